"""systemd's units: their state, how long they have been up, their last words, their journals, and watching them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stacklab.errors import CommandFailed
from stacklab.machines.base import Machine
from stacklab.stages import Progress
from stacklab.waiting import looks

LOOK_EVERY = 5.0
STARTING_SECONDS = 180
"""How long a unit may be on its way up: twice systemd's own limit for a start."""

RESTART_SECONDS = 420
"""For one restart: DevStack's units have TimeoutStopSec=300, and a start may take 90 s."""

LAST_WORDS = 8
"""Lines of a unit's journal that are shown as evidence."""

PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "ActiveEnterTimestampMonotonic"),
    *("TriggeredBy", "MainPID", "NRestarts"),
)

LOOK = f"""cat /proc/uptime
systemctl show --no-pager --property={",".join(PROPERTIES)} -- "$@"
"""


@dataclass(frozen=True)
class Unit:
    """One unit. `entered`: when it last became active, in seconds of the machine's clock; `age`: seconds since then.

    `triggers`: the units that start it on demand; `called`: whether one of them is up, and so ready to start it.
    A machine that was suspended counts the suspension to `age`: /proc/uptime does, systemd's stamps do not. VMs do not suspend.
    """

    name: str
    load: str
    active: str
    sub: str
    result: str
    enablement: str
    entered: float
    age: float
    triggers: tuple[str, ...] = ()
    called: bool = False
    pid: int | None = None
    restarts: int = 0

    @property
    def there(self) -> bool:
        """Whether the machine has such a unit."""
        return self.load != "not-found"

    @property
    def running(self) -> bool:
        """Whether it is up (a oneshot unit: has done its work)."""
        return self.active in ("active", "reloading")

    @property
    def resting(self) -> bool:
        """Whether it is down until somebody calls its socket, as libvirtd is in newer distributions: that is well."""
        return self.active == "inactive" and self.called

    @property
    def starting(self) -> bool:
        """Whether it is on its way up for the first time."""
        return self.active == "activating" and self.sub != "auto-restart"

    @property
    def failed(self) -> bool:
        """Whether it ended badly, also where systemd is about to try once more."""
        return self.active == "failed" or self.sub == "auto-restart"

    def young(self, seconds: float) -> bool:
        """Whether it is too early to say that it stays up, which takes so long."""
        return self.starting or (self.running and self.age < seconds)

    @property
    def at_boot(self) -> bool:
        """Whether it starts at boot, as far as that is the unit's own affair."""
        return self.enablement not in ("disabled", "masked", "masked-runtime", "enabled-runtime", "")

    @property
    def plain(self) -> str:
        """Its name as people say it."""
        return self.name.removesuffix(".service")

    @property
    def said(self) -> str:
        """`failed (exit-code)`, `inactive`, `active for 12 s`."""
        if not self.there:
            return "not there"
        if self.load == "masked":
            return "masked"
        if self.running:
            return f"{self.active} for {_spoken(self.age)}"
        why = self.result if self.result not in ("", "success") else self.sub if self.sub != "dead" else ""
        return f"{self.active} ({why})" if why and why != self.active else self.active


def service(name: str) -> str:
    """The full name of a unit: `httpd` is httpd.service."""
    return name if re.search(r"\.(service|socket|target)$", name) else f"{name}.service"


def stack_unit(name: str) -> str:
    """The unit of one of DevStack's services: `q-agt` is devstack@q-agt.service."""
    return f"devstack@{name}.service"


def look(machine: Machine, names: Iterable[str]) -> list[Unit]:
    """The named units, in this order. Raises CommandFailed."""
    units = _asked(machine, names)
    sockets = _asked(machine, sorted({name for unit in units if not unit.running for name in unit.triggers}))
    ready = {socket.name for socket in sockets if socket.running}
    return [replace(unit, called=not ready.isdisjoint(unit.triggers)) for unit in units]


def _asked(machine: Machine, names: Iterable[str]) -> list[Unit]:
    asked = list(names)
    return read_units(machine.script(LOOK, *asked, seconds=60).out, asked) if asked else []


def read_units(text: str, names: Sequence[str]) -> list[Unit]:
    """`LOOK`'s output. systemd answers in the order of the question; an alias would answer by another name."""
    uptime, _, rest = text.partition("\n")
    blocks = re.split(r"\n\s*\n", rest.strip())
    if len(blocks) != len(names):
        raise ValueError(f"systemctl show described {len(blocks)} units, not {len(names)}")
    return [_read_unit(name, block, float(uptime.split()[0])) for name, block in zip(names, blocks, strict=True)]


def _read_unit(name: str, block: str, now: float) -> Unit:
    values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    entered = int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    return Unit(
        name=name,
        load=values.get("LoadState", "not-found"),
        active=values.get("ActiveState", "unknown"),
        sub=values.get("SubState", ""),
        result=values.get("Result", ""),
        enablement=values.get("UnitFileState", ""),
        entered=entered,
        age=max(0.0, now - entered),
        triggers=tuple(values.get("TriggeredBy", "").split()),
        pid=int(values.get("MainPID") or 0) or None,
        restarts=int(values.get("NRestarts") or 0),
    )


def stack_units(machine: Machine, order: Sequence[str]) -> list[str]:
    """DevStack's units that the machine has: those of the profile in stack.sh's order, then any others."""
    listed = machine.run("systemctl", "list-unit-files", "--no-legend", "--no-pager", "devstack@*.service", check=False)
    return in_order(read_unit_files(listed.out), order)


def read_unit_files(text: str) -> list[str]:
    """The names in `systemctl list-unit-files` (which may begin a line with a dot or a star)."""
    return re.findall(r"^\W*(devstack@[^\s@]+\.service)\s", text, re.MULTILINE)


def in_order(there: Iterable[str], order: Sequence[str]) -> list[str]:
    """Sorted by stack.sh's order; what it does not name comes last."""
    rank = {stack_unit(name): place for place, name in enumerate(order)}
    return sorted(set(there), key=lambda unit: (rank.get(unit, len(rank)), unit))


def last_words(machine: Machine, unit: str, lines: int = LAST_WORDS) -> str:
    """The end of a unit's journal, indented, without colours and passwords; empty if there is none."""
    argv = ("journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}", f"--unit={unit}")
    shown = clean(machine.run(*argv, user="root", seconds=60, check=False).out)
    return "".join(f"\n  {line}" for line in shown.splitlines())


def clean(text: str) -> str:
    """Journal lines that can be shown: no terminal codes, no passwords in URLs, no endless lines."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    text = re.sub(r"(\w+://[^\s:/@]+:)[^\s/@]+@", r"\1********@", text)
    return "\n".join(line if len(line) <= 300 else f"{line[:300]} …" for line in text.strip().splitlines())


def why_down(machine: Machine, unit: Unit) -> str:
    """What is known of a unit that is not up: its state, and its last words if it has any."""
    words = last_words(machine, unit.name)
    return f"{unit.plain} is {unit.said}" + (f"; its journal ends:{words}" if words else "")


def watch(machine: Machine, names: Sequence[str], seconds: float, progress: Progress) -> dict[str, str]:
    """Watch units together until each has been up for so long; returns those that did not stay up, with the evidence.

    Returns at once where all have been up for longer. A unit that systemd itself starts again while we look has failed, too.
    """
    began = time.monotonic()
    seen: dict[str, float] = {}
    bad: dict[str, str] = {}
    for units in looks(
        lambda: look(machine, [name for name in names if name not in bad]), STARTING_SECONDS * 2, LOOK_EVERY
    ):
        waiting = []
        for unit in units:
            if unit.running and seen.setdefault(unit.name, unit.entered) != unit.entered:
                bad[unit.name] = f"{unit.plain} ended, and systemd started it again\n{why_down(machine, unit)}"
            elif unit.young(seconds) and (unit.running or time.monotonic() - began < STARTING_SECONDS):
                waiting.append(unit)
            elif not unit.running:
                bad[unit.name] = why_down(machine, unit)
        if not waiting:
            break
        progress(watching(waiting, bad, seconds))
    return bad


def watching(units: Sequence[Unit], bad: Iterable[str], seconds: float) -> str:
    """One line on what is being watched: the youngest, how long it is up, how many are with it."""
    youngest = min(units, key=lambda unit: unit.age if unit.running else -1)
    how = f"up for {youngest.age:.0f} of {seconds:.0f} s" if youngest.running else "starting"
    others = f", and {len(units) - 1} more" if len(units) > 1 else ""
    failed = "; failed: " + ", ".join(name.removesuffix(".service") for name in bad) if bad else ""
    return f"watching {youngest.plain}: {how}{others}{failed}"


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


class JournalLog:
    """A unit's journal; see `stacklab.logs.Log`."""

    poll = 2.0

    def __init__(self, machine: Machine, unit: str) -> None:
        self.machine = machine
        self.unit = unit
        self.where = f"journalctl -u {unit}, on {machine.name}"
        self._cursor = ""
        self._complaint = ""

    def last(self, count: int) -> list[str]:
        # One more than asked for: with 0 there would be no cursor to go on from.
        lines = self._ask("-n", str(max(count, 1)))
        return lines[-count:] if count else []

    def more(self) -> list[str]:
        return self._ask(f"--after-cursor={self._cursor}") if self._cursor else self._ask("-n", "100")

    def _ask(self, *options: str) -> list[str]:
        argv = ("journalctl", "--no-pager", "--quiet", "-o", "short-iso", "--show-cursor", "-u", self.unit, *options)
        done = self.machine.run(*argv, user="root", seconds=60, check=False)
        # 1 is also how some releases say that a unit has written nothing yet.
        if done.status not in (0, 1):
            raise CommandFailed(
                f"{self.where} ended with exit status {done.status}", status=done.status, said=done.err,
                advice="see there: journalctl --verify, and whether systemd-journald runs",
            )  # fmt: skip
        lines = done.lines
        complaint = done.err.strip() if done.status else ""
        if complaint != self._complaint:  # once, not at every look
            self._complaint = complaint
            lines = [*(f"journalctl: {line}" for line in complaint.splitlines()), *lines]
        if lines and lines[-1].startswith("-- cursor: "):
            self._cursor = lines.pop().removeprefix("-- cursor: ")
        return lines
