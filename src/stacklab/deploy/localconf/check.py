"""Grading a local.conf that somebody wrote: sections found as DevStack finds them, and what stack.sh would stumble over.

How DevStack reads the file: inc/meta-config (`get_meta_section`: a line that begins with [[GROUP|FILE]] opens a section, what
stands before the first one is never read) and extract_localrc_section in functions-common, the same at pike-eol and
stable/2026.1. The section local|localrc is sourced by bash; the sections for other files are ini.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from stacklab.deploy.complaint import Complaint, meant
from stacklab.deploy.localconf import settings as judged
from stacklab.deploy.localconf.settings import PASSWORDS, Assignment

_LIKE_A_HEAD = re.compile(r"^\s*\[+\s*[a-z-]+\s*\|")
HEAD = re.compile(r"^\[\[.+\|.*\]\]")
GROUPS = ("local", "post-config", "extra", "post-extra", "test-config", "pre-install")
"""Groups that stack.sh or a plugin of DevStack's asks for (merge_config_group; pre-install is of stable/2026.1 and others)."""
LOCALRC = "local|localrc"
FUNCTIONS = (
    *("enable_service", "disable_service", "disable_all_services"),
    *("enable_plugin", "define_plugin", "use_library_from_git"),
)
_SHELL = frozenset(
    "if then else elif fi for do done case esac export source . [ [[ echo unset { }".split()  # noqa: SIM905 -- words
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
    parts: list[tuple[str, int, list[tuple[int, str]]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if HEAD.match(line):
            # DevStack takes the line's first word and drops its brackets.
            parts.append((re.sub(r"[][]", "", line.split()[0]), number, []))
        else:
            (parts[-1][2] if parts else before).append((number, line))
    return before, [Section(head, number, tuple(body)) for head, number, body in parts]


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
    return sorted(_complaints(text, list(addresses), {*known, *PASSWORDS, "HOST_IP"}, values))


def _complaints(
    text: str, addresses: list[str], names: set[str], values: Mapping[str, Sequence[str] | str]
) -> Iterator[Complaint]:
    before, parts = sections(text)
    yield from _outside(before)
    for part in parts:
        yield from _head(part)
    if "\r" in text:
        number = text[: text.index("\r")].count("\n") + 1
        yield Complaint(number, "lines end as on Windows (CR LF), and the CR would belong to each value: dos2unix")
    lines = [line for part in parts if part.head == LOCALRC for line in part.body]
    if not any(part.head == LOCALRC for part in parts):
        text = f"there is no section [[{LOCALRC}]], the only one that stack.sh takes its settings from"
        yield Complaint(0, text)
        return
    settings: dict[str, Assignment] = {}
    for number, line in lines:
        yield from _statement(number, line, settings, names)
    yield from judged.passwords(settings)
    yield from _left_empty(lines, names)
    yield from judged.address(settings, addresses)
    yield from judged.ranges(settings)
    yield from judged.values(settings, values)
    for part in parts:
        if part.head != LOCALRC:
            yield from _ini(part)


def misread(text: str, complained: str) -> list[Complaint]:
    """bash's own complaints (`bash -n`, fed with `shell_part`) as ours: the first that says something."""
    for line in complained.splitlines():
        match = re.match(r"^[^:]*: line (\d+): (.*)$", line)
        if match and "`" not in match[2][:1]:
            number = min(int(match[1]), len(text.splitlines()))
            return [Complaint(number, f"bash cannot read it: {match[2].split('`')[0].strip()}")]
    return [Complaint(0, f"bash cannot read the section {LOCALRC}")] if complained.strip() else []


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


def _outside(before: Sequence[tuple[int, str]]) -> Iterator[Complaint]:
    for number, line in before:
        if line.lstrip().startswith("["):
            yield _misspelt(number, line)
        elif not _silent(line):
            yield Complaint(number, "stands before the first section, so DevStack never reads it")


def _misspelt(number: int, line: str) -> Complaint:
    text = f"'{line.strip()[:60]}' opens no section: it has to be [[GROUP|FILE]] at the line's beginning, like [[{LOCALRC}]]"
    return Complaint(number, text)


def _head(part: Section) -> Iterator[Complaint]:
    group, _, file = part.head.partition("|")
    if group not in GROUPS:
        near = _closest(group, GROUPS)
        hint = f": {near}?" if near else ""
        yield Complaint(part.line, f"nothing of DevStack's asks for the group '{group}'{hint}")
    elif group == "local" and file != "localrc":
        yield Complaint(part.line, f"of the group local DevStack reads the section [[{LOCALRC}]] alone, not '{file}'")
    for number, line in part.body:
        # In the shell's part `[[ … ]]` is a condition; what looks like a section there is a slip.
        if _LIKE_A_HEAD.match(line):
            yield _misspelt(number, line)


def _closest(word: str, known: Sequence[str]) -> str | None:
    return next(iter(get_close_matches(word, known, n=1, cutoff=0.6)), None)


def _statement(number: int, line: str, settings: dict[str, Assignment], names: set[str]) -> Iterator[Complaint]:
    """One line of the shell's part; what it sets is added to `settings`."""
    if _silent(line) or _LIKE_A_HEAD.match(line):
        return
    text = line.strip()
    if blank := _BLANKS.match(text):
        text = f"{blank[1]}: there must be no blank beside '=', or bash takes {blank[1]} for a command"
        yield Complaint(number, text)
        return
    assigned = _ASSIGNED.match(text)
    if assigned is None:
        yield from _call(number, text)
        return
    name, sign, value = assigned[1], assigned[2], _uncommented(assigned[3])
    plain, wrong = _value(value)
    if wrong:
        yield Complaint(number, f"{name}: {wrong}")
    if name in settings and sign == "=":
        text = f"{name} is set a second time (first on line {settings[name].line}); the last one counts"
        yield Complaint(number, text)
    if near := meant(name, names):
        yield Complaint(number, f"{name} is no setting of DevStack's that lab knows: is {near} meant?")
    if not value.strip().startswith("'"):
        yield from _replaced(number, name, value, {*settings, *names})
    settings[name] = Assignment(number, plain)


def _replaced(number: int, name: str, value: str, names: set[str]) -> Iterator[Complaint]:
    """What bash would put something else for than its writer thinks. Of a password nothing is quoted, it may be a part."""
    if re.search(r"[$]\(|`", value):
        return  # what a command says, only bash could tell
    if name in PASSWORDS and re.search(r"[$][$0-9!#?*@-]", value):
        yield Complaint(number, f"{name}: bash puts something else where the $ is; letters and digits alone")
        return
    for used in _VARIABLE.findall(value):
        if instead := meant(used, names):
            what = "its variable" if name in PASSWORDS else f"${used}"
            text = f"{name}: nothing sets {what}, so bash puts nothing there: is ${instead} meant?"
            yield Complaint(number, text)


def _left_empty(lines: Sequence[tuple[int, str]], names: set[str]) -> Iterator[Complaint]:
    """Passwords that are nothing but a variable which no line above sets."""
    known = set[str]()
    for number, line in lines:
        if _ELSEWHERE.match(line):
            return
        assigned = _ASSIGNED.match(line.strip())
        if assigned is None:
            continue
        name, alone = assigned[1], _ALONE.fullmatch(_uncommented(assigned[3]).strip())
        if name in PASSWORDS and alone and alone[1] not in known and not meant(alone[1], {*known, *names}):
            yield Complaint(number, f"{name}: nothing above sets its variable, so it is empty: {judged.ASKS}")
        known.add(name)


def _value(value: str) -> tuple[str | None, str]:
    """What bash would make of it (None: only bash could tell), and what is wrong with it."""
    try:
        words = shlex.split(value)
    except ValueError:
        return None, "a quote is opened and not closed"
    if len(words) > 1:
        command = re.search(r"[$]\(|`", value)
        wrong = "a value with blanks needs quotes; bash would run what comes after the first as a command"
        return None, "" if command else wrong
    single = value.strip().startswith("'")
    return (None if re.search(r"[$`]", value) and not single else "".join(words)), ""


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


def _call(number: int, text: str) -> Iterator[Complaint]:
    word = re.split(r"[\s;]", text, maxsplit=1)[0]
    arguments = len(text.split()) - 1
    if word in ("enable_service", "disable_service") and not arguments:
        yield Complaint(number, f"{word} names no service")
    elif word == "enable_plugin" and arguments < 2:
        yield Complaint(number, "enable_plugin needs a name and the address of a git repository")
    elif word not in FUNCTIONS and word not in _SHELL:
        near = _closest(word, FUNCTIONS)
        hint = f": {near}?" if near else "; a setting is written NAME=value"
        yield Complaint(number, f"bash would run '{word[:30]}' as a command{hint}")


def _ini(part: Section) -> Iterator[Complaint]:
    inside = False
    for number, line in part.body:
        if _silent(line) or _LIKE_A_HEAD.match(line):
            continue
        if re.match(r"^\[.+\]", line):
            inside = True
        elif "=" not in line:
            yield Complaint(number, f"in [[{part.head}]] a line is [section] or name = value")
        elif not inside:
            yield Complaint(number, f"in [[{part.head}]] a [section] has to come first")
