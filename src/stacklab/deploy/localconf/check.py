"""Grading a local.conf that somebody wrote: sections found as DevStack finds them, and what stack.sh would stumble over.

How DevStack reads the file: inc/meta-config (`get_meta_section`: a line that begins with [[GROUP|FILE]] opens a section, what
stands before the first one is never read) and extract_localrc_section in functions-common, the same at pike-eol and
stable/2026.1. The section local|localrc is sourced by bash; the sections for other files are ini.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from stacklab.deploy.explained import Explanations, of_local_conf
from stacklab.deploy.grading import Complaint, Setting, judged, meant

LOCALRC = "local|localrc"
HEAD = re.compile(r"^\[\[.+\|.*\]\]")
_LIKE_A_HEAD = re.compile(r"^\s*\[+\s*[a-z-]+\s*\|")
GROUPS = ("local", "post-config", "extra", "post-extra", "test-config", "pre-install")
"""Groups that stack.sh or a plugin of DevStack's asks for (merge_config_group; pre-install is of stable/2026.1 and others)."""
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
_ALONE = re.compile(r'"?[$][{]?([A-Za-z_][A-Za-z0-9_]*)[}]?"?')
_COMMAND = re.compile(r"[$]\(|`")
_ELSEWHERE = re.compile(r"(source|[.]|eval|if|for|while|case|read)\s")
"""What a line begins with after which anything may be set."""


@dataclass(frozen=True)
class Section:
    """A section: `head` without brackets ("local|localrc"), the line that it begins on, its lines with their numbers."""

    head: str
    line: int
    body: list[tuple[int, str]] = field(default_factory=list)


def sections(text: str) -> list[Section]:
    """In order; what stands before the first one is a section without a head."""
    parts = [Section("", 0)]
    for number, line in enumerate(text.splitlines(), 1):
        if HEAD.match(line):
            # DevStack takes the line's first word and drops its brackets.
            parts.append(Section(re.sub(r"[][]", "", line.split()[0]), number))
        else:
            parts[-1].body.append((number, line))
    return parts


def check(text: str, *, addresses: Iterable[str]) -> list[Complaint]:
    """Everything that is wrong, by line. `addresses`: those of the machine that the file is for."""
    return sorted(_complaints(text, list(addresses), of_local_conf()))


def _complaints(text: str, addresses: Sequence[str], known: Explanations) -> Iterator[Complaint]:
    before, *parts = sections(text)
    for part in (before, *parts):
        yield from _heads(part)
    if "\r" in text:
        number = text[: text.index("\r")].count("\n") + 1
        yield Complaint(number, "lines end as on Windows (CR LF), and the CR would belong to each value: dos2unix")
    if not any(part.head == LOCALRC for part in parts):
        yield Complaint(0, f"there is no section [[{LOCALRC}]], the only one that stack.sh takes its settings from")
        return
    for number, line in before.body:
        if not _silent(line):
            yield Complaint(number, "stands before the first section, so DevStack never reads it")
    shell = _Localrc(known)
    for part in parts:
        for number, line in part.body if part.head == LOCALRC else []:
            yield from (Complaint(number, problem) for problem in shell.read(number, line))
        if part.head != LOCALRC:
            yield from _ini(part)
    yield from judged(known.rules, shell.settings, addresses)


def _silent(line: str) -> bool:
    """Whether a line says nothing, or something that `_heads` tells of."""
    return not line.strip() or line.lstrip().startswith("#") or bool(_LIKE_A_HEAD.match(line))


def _heads(part: Section) -> Iterator[Complaint]:
    group, _, file = part.head.partition("|")
    if part.head and group not in GROUPS:
        yield Complaint(part.line, f"nothing of DevStack's asks for the group '{group}'{_close(group, GROUPS)}")
    elif group == "local" and file != "localrc":
        yield Complaint(part.line, f"of the group local DevStack reads the section [[{LOCALRC}]] alone, not '{file}'")
    for number, line in part.body:
        # In the shell's part `[[ … ]]` is a condition; what looks like a section there is a slip.
        if _LIKE_A_HEAD.match(line):
            problem = f"'{line.strip()[:60]}' opens no section: it has to be [[GROUP|FILE]] at the line's beginning"
            yield Complaint(number, f"{problem}, like [[{LOCALRC}]]")


def _close(word: str, known: Sequence[str], otherwise: str = "") -> str:
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f": {near[0]}?" if near else otherwise


# --- the section that bash sources -----------------------------------------------------------------------------------


class _Localrc:
    """Reads the section line by line; `settings` is what it sets."""

    def __init__(self, known: Explanations) -> None:
        self.settings: dict[str, Setting] = {}
        self._names = known.names
        self._passwords = {name for name, rule in known.rules.items() if rule.form == "password"}
        self._set_elsewhere = False

    def read(self, number: int, line: str) -> Iterator[str]:
        """What is wrong with a line."""
        if _silent(line):
            return
        text = line.strip()
        self._set_elsewhere |= bool(_ELSEWHERE.match(text))
        if blank := _BLANKS.match(text):
            yield f"{blank[1]}: there must be no blank beside '=', or bash takes {blank[1]} for a command"
            return
        assigned = _ASSIGNED.match(text)
        if assigned is None:
            yield from _call(text)
            return
        name, sign, value = assigned[1], assigned[2], _uncommented(assigned[3])
        plain, wrong = self._value(name, value)
        if wrong:
            yield f"{name}: {wrong}"
        if name in self.settings and sign == "=" and self.settings[name].value != plain:
            yield f"{name} is set a second time (first on line {self.settings[name].line}); the last one counts"
        if near := meant(name, self._names):
            yield f"{name} is no setting of DevStack's that lab knows: is {near} meant?"
        if not value.strip().startswith("'") and not _COMMAND.search(value):
            yield from self._replaced(name, value)
        self.settings[name] = Setting(number, plain)

    def _value(self, name: str, value: str) -> tuple[str | None, str]:
        """What bash would make of it (None: only bash could tell), and what is wrong with it."""
        try:
            words = shlex.split(value)
        except ValueError:
            return None, "a quote is opened and not closed"
        if len(words) > 1:
            wrong = "a value with blanks needs quotes; bash would run what comes after the first as a command"
            return None, "" if _COMMAND.search(value) else wrong
        if value.strip().startswith("'") or not re.search(r"[$`]", value):
            return "".join(words), ""
        alone = _ALONE.fullmatch(value.strip())
        if alone and alone[1] in self.settings:
            return self.settings[alone[1]].value, ""
        # A password that is nothing but a variable which nothing sets is empty.
        return "" if alone and name in self._passwords and not self._set_elsewhere else None, ""

    def _replaced(self, name: str, value: str) -> Iterator[str]:
        """What bash would put something else for than its writer thinks. Of a password nothing is quoted, it may be a part."""
        if name in self._passwords and re.search(r"[$][$0-9!#?*@-]", value):
            yield f"{name}: bash puts something else where the $ is; letters and digits alone"
            return
        for used in _VARIABLE.findall(value):
            if instead := meant(used, {*self.settings, *self._names}):
                what = "its variable" if name in self._passwords else f"${used}"
                yield f"{name}: nothing sets {what}, so bash puts nothing there: is ${instead} meant?"


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


def _call(text: str) -> Iterator[str]:
    word = re.split(r"[\s;]", text, maxsplit=1)[0]
    arguments = len(text.split()) - 1
    if word in ("enable_service", "disable_service") and not arguments:
        yield f"{word} names no service"
    elif word == "enable_plugin" and arguments < 2:
        yield "enable_plugin needs a name and the address of a git repository"
    elif word not in FUNCTIONS and word not in _SHELL:
        yield f"bash would run '{word[:30]}' as a command{_close(word, FUNCTIONS, '; a setting is written NAME=value')}"


def shell_part(text: str) -> str:
    """The text of the sections that bash sources, every other line left empty, so that line numbers stay."""
    lines = [""] * len(text.splitlines())
    for part in sections(text):
        if part.head == LOCALRC:
            for number, line in part.body:
                lines[number - 1] = line
    return "\n".join(lines) + "\n"


def misread(text: str, complained: str) -> list[Complaint]:
    """bash's own complaints (`bash -n`, fed with `shell_part`) as ours: the first that says something."""
    for line in complained.splitlines():
        match = re.match(r"^[^:]*: line (\d+): (.*)$", line)
        if match and "`" not in match[2][:1]:
            number = min(int(match[1]), len(text.splitlines()))
            return [Complaint(number, f"bash cannot read it: {match[2].split('`')[0].strip()}")]
    return [Complaint(0, f"bash cannot read the section {LOCALRC}")] if complained.strip() else []


# --- the sections for other files ------------------------------------------------------------------------------------


def _ini(part: Section) -> Iterator[Complaint]:
    inside = False
    for number, line in part.body:
        if _silent(line):
            continue
        if re.match(r"^\[.+\]", line):
            inside = True
        elif "=" not in line:
            yield Complaint(number, f"in [[{part.head}]] a line is [section] or name = value")
        elif not inside:
            yield Complaint(number, f"in [[{part.head}]] a [section] has to come first")
