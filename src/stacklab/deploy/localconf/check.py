"""Grading a local.conf that somebody wrote: sections found as DevStack finds them, and what stack.sh would stumble over.

How DevStack reads the file: inc/meta-config (`get_meta_section`: a line that begins with [[GROUP|FILE]] opens a section, what
stands before the first one is never read) and extract_localrc_section in functions-common, the same at pike-eol and
stable/2026.1. The section local|localrc is sourced by bash; the sections for other files are ini.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from stacklab.deploy.complaint import Complaint, meant
from stacklab.deploy.localconf import settings as judged
from stacklab.deploy.localconf.settings import PASSWORDS, Setting

HEAD = re.compile(r"^\[\[.+\|.*\]\]")
GROUPS = ("local", "post-config", "extra", "post-extra", "test-config", "pre-install")
"""Groups that stack.sh or a plugin of DevStack's asks for (merge_config_group; pre-install is of stable/2026.1 and others)."""
LOCALRC = "local|localrc"
FUNCTIONS = (
    "enable_service",
    "disable_service",
    "enable_plugin",
    "disable_all_services",
    "use_library_from_git",
    "define_plugin",
)
_SHELL = (
    "if",
    "then",
    "else",
    "elif",
    "fi",
    "for",
    "do",
    "done",
    "case",
    "esac",
    "export",
    "source",
    ".",
    "[",
    "[[",
    "echo",
    "unset",
    "{",
    "}",
)
_ASSIGNED = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)(\+?=)(.*)$")
_BLANKS = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)(\s+=|=\s+\S)")
_VARIABLE = re.compile(r"[$][{]?([A-Za-z_][A-Za-z0-9_]*)")
_ELSEWHERE = re.compile(r"\s*(source|[.]|eval|if|for|while|case|read)\s")
"""What a line begins with after which anything may be set."""
_ALONE = re.compile(r'"?[$][{]?([A-Za-z_][A-Za-z0-9_]*)[}]?"?')


@dataclass(frozen=True)
class Section:
    """A section: `head` without brackets ("local|localrc"), the line that it begins on, its lines with their numbers."""

    head: str
    line: int
    body: tuple[tuple[int, str], ...]


def sections(text: str) -> tuple[list[tuple[int, str]], list[Section]]:
    """What stands before the first section, and the sections, in order."""
    before: list[tuple[int, str]] = []
    found: list[tuple[str, int, list[tuple[int, str]]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if HEAD.match(line):
            # DevStack takes the line's first word and drops its brackets.
            found.append((re.sub(r"[][]", "", line.split()[0]), number, []))
        else:
            (found[-1][2] if found else before).append((number, line))
    return before, [Section(head, number, tuple(body)) for head, number, body in found]


def check(
    text: str,
    *,
    addresses: Iterable[str],
    known: Iterable[str] = (),
    values: Mapping[str, Sequence[str] | str] = MappingProxyType({}),
) -> list[Complaint]:
    """Everything that is wrong, by line.

    `addresses`: those of the machine that the file is for; `known`: names of settings; `values`: what some may be, as
    `Explanations` has it.
    """
    before, parts = sections(text)
    found = [*_outside(before), *_heads(parts)]
    if "\r" in text:
        number = text[: text.index("\r")].count("\n") + 1
        found.append(
            Complaint(number, "lines end as on Windows (CR LF), and the CR would belong to each value: dos2unix")
        )
    localrc = [part for part in parts if part.head == LOCALRC]
    if not localrc:
        found.append(
            Complaint(0, f"there is no section [[{LOCALRC}]], the only one that stack.sh takes its settings from")
        )
        return sorted(found)
    settings: dict[str, Setting] = {}
    names = {*known, *PASSWORDS, "HOST_IP"}
    for part in localrc:
        for number, line in part.body:
            found += _statement(number, line, settings, names)
    found += [
        *judged.passwords(settings),
        *_left_empty([line for part in localrc for line in part.body], names),
        *judged.address(settings, list(addresses)),
        *judged.ranges(settings),
        *judged.values(settings, values),
    ]
    for part in parts:
        if part.head != LOCALRC:
            found += _ini(part)
    return sorted(found)


def misread(text: str, said: str) -> list[Complaint]:
    """bash's own complaints (`bash -n`, fed with `shell_part`) as ours."""
    found = []
    for line in said.splitlines():
        match = re.match(r"^[^:]*: line (\d+): (.*)$", line)
        if match and "`" not in match[2][:1]:
            number = min(int(match[1]), len(text.splitlines()))
            found.append(Complaint(number, f"bash cannot read it: {match[2].split('`')[0].strip()}"))
    return found[:1] if found else [Complaint(0, "bash cannot read the section local|localrc")] * bool(said.strip())


def shell_part(text: str) -> str:
    """The text of the sections that bash sources, every other line left empty, so that line numbers stay."""
    lines = [""] * len(text.splitlines())
    for part in sections(text)[1]:
        if part.head == LOCALRC:
            for number, line in part.body:
                lines[number - 1] = line
    return "\n".join(lines) + "\n"


def _silent(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _outside(before: Sequence[tuple[int, str]]) -> list[Complaint]:
    found = []
    for number, line in before:
        if _silent(line):
            continue
        if line.lstrip().startswith("["):
            found.append(_misspelt(number, line))
        else:
            found.append(Complaint(number, "stands before the first section, so DevStack never reads it"))
    return found


def _misspelt(number: int, line: str) -> Complaint:
    what = line.strip()[:60]
    return Complaint(
        number, f"'{what}' opens no section: it has to be [[GROUP|FILE]] at the line's beginning, like [[{LOCALRC}]]"
    )


def _heads(parts: Sequence[Section]) -> list[Complaint]:
    found = []
    for part in parts:
        group, _, file = part.head.partition("|")
        if group not in GROUPS:
            near = meant_word(group, GROUPS)
            found.append(
                Complaint(
                    part.line, f"nothing of DevStack's asks for the group '{group}'" + (f": {near}?" if near else "")
                )
            )
        elif group == "local" and file != "localrc":
            found.append(
                Complaint(part.line, f"of the group local DevStack reads the section [[{LOCALRC}]] alone, not '{file}'")
            )
        for number, line in part.body:
            # In the shell's part `[[ … ]]` is a condition; what looks like a section there is a slip.
            if re.match(r"^\s*\[+\s*[a-z-]+\s*\|", line):
                found.append(_misspelt(number, line))
    return found


def meant_word(word: str, known: Sequence[str]) -> str | None:
    """The closest of a few words."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, n=1, cutoff=0.6)), None)


def _statement(number: int, line: str, settings: dict[str, Setting], names: set[str]) -> list[Complaint]:
    """One line of the shell's part."""
    if _silent(line) or re.match(r"^\s*\[+\s*[a-z-]+\s*\|", line):
        return []
    text = line.strip()
    if blank := _BLANKS.match(text):
        return [
            Complaint(number, f"{blank[1]}: there must be no blank beside '=', or bash takes {blank[1]} for a command")
        ]
    assigned = _ASSIGNED.match(text)
    if assigned is None:
        return _call(number, text)
    name, sign, value = assigned[1], assigned[2], _uncommented(assigned[3])
    plain, complaint = _value(number, name, value)
    found = [complaint] if complaint else []
    if name in settings and sign == "=":
        found.append(
            Complaint(number, f"{name} is set a second time (first on line {settings[name].line}); the last one counts")
        )
    if near := meant(name, names):
        found.append(Complaint(number, f"{name} is no setting of DevStack's that lab knows: is {near} meant?"))
    if not value.strip().startswith("'"):
        found += _replaced(number, name, value, {*settings, *names})
    settings[name] = Setting(number, plain)
    return found


def _replaced(number: int, name: str, value: str, names: set[str]) -> list[Complaint]:
    """What bash would put something else for than its writer thinks. Of a password nothing is quoted, it may be a part."""
    if re.search(r"[$]\(|`", value):
        return []  # what a command says, only bash could tell
    if name in PASSWORDS and re.search(r"[$][$0-9!#?*@-]", value):
        return [Complaint(number, f"{name}: bash puts something else where the $ is; letters and digits alone")]
    near = [(used, meant(used, names)) for used in _VARIABLE.findall(value)]
    return [
        Complaint(
            number,
            f"{name}: nothing sets {'its variable' if name in PASSWORDS else f'${used}'}, so bash puts nothing there: "
            f"is ${instead} meant?",
        )
        for used, instead in near
        if instead
    ]


def _left_empty(lines: Sequence[tuple[int, str]], names: set[str]) -> list[Complaint]:
    """Passwords that are nothing but a variable which no line above sets."""
    found, known = [], set[str]()
    for number, line in lines:
        if _ELSEWHERE.match(line):
            break
        assigned = _ASSIGNED.match(line.strip())
        if assigned is None:
            continue
        name, alone = assigned[1], _ALONE.fullmatch(_uncommented(assigned[3]).strip())
        if name in PASSWORDS and alone and alone[1] not in known and not meant(alone[1], {*known, *names}):
            why = "nothing above sets its variable, so it is empty: stack.sh would ask for it at a prompt, and so hang"
            found.append(Complaint(number, f"{name}: {why}"))
        known.add(name)
    return found


def _value(number: int, name: str, value: str) -> tuple[str | None, Complaint | None]:
    try:
        words = shlex.split(value)
    except ValueError:
        return None, Complaint(number, f"{name}: a quote is opened and not closed")
    if len(words) > 1 and re.search(r"[$]\(|`", value):
        return None, None  # what a command says, only bash could tell
    if len(words) > 1:
        return None, Complaint(
            number, f"{name}: a value with blanks needs quotes; bash would run what comes after the first as a command"
        )
    plain = words[0] if words else ""
    single = value.strip().startswith("'")
    return (None if re.search(r"[$`]", value) and not single else plain), None


def _uncommented(value: str) -> str:
    """Without a comment: for bash, one begins a word (p#w is a word), outside quotes."""
    quote, literal = "", False
    for at, sign in enumerate(value):
        if literal or (sign == "\\" and quote != "'"):
            literal = not literal
        elif sign in ("'", '"') and quote in ("", sign):
            quote = "" if quote else sign
        elif sign == "#" and not quote and (at == 0 or value[at - 1].isspace()):
            return value[:at]
    return value


def _call(number: int, text: str) -> list[Complaint]:
    word = re.split(r"[\s;]", text, maxsplit=1)[0]
    if word in FUNCTIONS or word in _SHELL:
        if word in ("enable_service", "disable_service") and len(text.split()) == 1:
            return [Complaint(number, f"{word} names no service")]
        if word == "enable_plugin" and len(text.split()) < 3:
            return [Complaint(number, "enable_plugin needs a name and the address of a git repository")]
        return []
    near = meant_word(word, FUNCTIONS)
    hint = f": {near}?" if near else "; a setting is written NAME=value"
    return [Complaint(number, f"bash would run '{word[:30]}' as a command{hint}")]


def _ini(part: Section) -> list[Complaint]:
    found = []
    inside = False
    for number, line in part.body:
        if _silent(line) or re.match(r"^\s*\[+\s*[a-z-]+\s*\|", line):
            continue
        if re.match(r"^\[.+\]", line):
            inside = True
        elif "=" not in line:
            found.append(Complaint(number, f"in [[{part.head}]] a line is [section] or name = value"))
        elif not inside:
            found.append(Complaint(number, f"in [[{part.head}]] a [section] has to come first"))
    return found
