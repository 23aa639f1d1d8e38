"""Events and results → a terminal, plain lines, or JSON. The only room that knows how things look."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from stacklab.durations import seconds
from stacklab.errors import LabError
from stacklab.events import Event, Note, StageBegan, StageEnded, StageMoved
from stacklab.plain import in_json, plain

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

SIGNS = {
    "✓": ("green", {"done", "passed", "already", "running", "good"}),
    "–": ("bright_black", {"skipped", "not_applicable", "absent", "stopped", "open"}),
    "✗": ("red", {"failed", "degraded", "bad"}),
    "!": ("yellow", {"warning"}),
    "?": ("yellow", {"unknown"}),
    "…": ("yellow", {"starting", "begun"}),
}
"""A sign, its colour, and what it stands for: outcomes, grades, findings, services, exercises."""
WIDTH = 100
"""The longest line of prose that is easy to read."""
EVENTS = {StageBegan: "stage-began", StageMoved: "stage-moved", StageEnded: "stage-ended", Note: "note"}


class Console:
    """Where a command's words go. `as_json`: one JSON object a line (events) or one document (results).

    `aim`: what is done to all text, so that the commands in it work on the lab that this one works on; `str` for somebody's
    file or log, which is shown as it stands.
    """

    def __init__(self, *, as_json: bool = False, aim: Callable[[str], str] = str) -> None:
        self.as_json = as_json
        self.aim = aim
        self.terminal = sys.stdout.isatty() and not as_json and os.environ.get("TERM") != "dumb"
        # https://no-color.org and its counterpart
        forced = bool(os.environ.get("FORCE_COLOR"))
        self.colour = (self.terminal or forced) and not os.environ.get("NO_COLOR") and not as_json
        self._spinner: Status | None = None
        self._running: _Running | None = None

    # --- text ----------------------------------------------------------------------------------------------------------

    def print(self, text: str = "") -> None:
        """A line of text (nothing with --json)."""
        if not self.as_json:
            sys.stdout.write(f"{plain(self.aim(text), coloured=self.colour)}\n")
            sys.stdout.flush()

    def result(self, value: Any) -> None:
        """A JSON document (only with --json)."""
        if self.as_json:
            self._write_json(value, indent=2)

    def result_line(self, value: Any) -> None:
        """One more event of a stream (only with --json)."""
        if self.as_json:
            self._write_json(value)

    def _write_json(self, value: Any, indent: int | None = None) -> None:
        sys.stdout.write(in_json(json.dumps(self._aimed(value), indent=indent, ensure_ascii=False)) + "\n")
        sys.stdout.flush()

    def _aimed(self, value: Any) -> Any:
        """A JSON value, in all of whose texts the commands are aimed; a dataclass is its fields."""
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            return {key: self._aimed(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._aimed(item) for item in value]
        return self.aim(value) if isinstance(value, str) else value

    def style(self, text: str, colour: str) -> str:
        """`text` in a colour, where colours are wanted."""
        codes = {"green": "32", "red": "31", "yellow": "33", "bright_black": "90", "cyan": "36", "bold": "1"}
        return f"\x1b[{codes[colour]}m{text}\x1b[0m" if self.colour else text

    def mark(self, status: str) -> str:
        """✓, ✗, ? or – for a status."""
        for sign, (colour, statuses) in SIGNS.items():
            if status in statuses:
                return self.style(sign, colour)
        return self.style("•", "bold")

    def heading(self, text: str) -> None:
        """A line that stands out."""
        self.print(self.style(text, "bold"))

    def indented(self, text: str, by: int = 4) -> None:
        """Every line of `text`, moved to the right."""
        for line in text.splitlines():
            self.print(f"{' ' * by}{line}" if line.strip() else "")

    def wrapped(self, lead: str, text: str) -> None:
        """A paragraph after `lead`, in lines as wide as the terminal (80 without one), and as is easy to read."""
        width = min(WIDTH, shutil.get_terminal_size().columns)
        lines = textwrap.wrap(self.aim(text), max(width - len(lead), 20), break_on_hyphens=False)
        self.print("\n".join((lead if not number else " " * len(lead)) + line for number, line in enumerate(lines)))

    def typed(self, lead: str, text: str) -> None:
        """A command after `lead`. What has several lines is a script, which a terminal is given as it stands, below it."""
        self.print(f"{lead.rstrip()}\n{text}" if "\n" in text else f"{lead}{text}")

    def warning(self, text: str) -> None:
        """A line that is worth a look."""
        self.print(self.style(f"! {text}", "yellow"))

    def shown(self, text: str) -> None:
        """What a step has brought to light."""
        self.indented(self.style(text, "cyan"))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns as wide as they must be; a terminal's narrow width is the terminal's to wrap."""
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        self.print(
            self.style("  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip(), "bold")
        )
        for row in rows:
            self.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def error(self, error: LabError) -> None:
        """One line on what is wrong, one on what to do next."""
        if self.as_json:
            what = {"event": "error", "id": error.id, "message": error.message}
            self._write_json({**what, "advice": error.advice, "exit": error.exit_code})
        sys.stderr.write(f"lab: {plain(self.aim(error.message))}\n")
        if error.advice:
            sys.stderr.write(f"     → {plain(self.aim(error.advice))}\n")

    # --- events --------------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Show one event."""
        if self.as_json:
            self._write_json({"event": EVENTS[type(event)], **asdict(event)})
        elif isinstance(event, StageBegan):
            self._stage_began(event)
        elif isinstance(event, StageMoved):
            if self._running:
                self._running.detail = event.detail
            else:
                self.print(f"    {event.detail}")
        elif isinstance(event, StageEnded):
            self._stage_ended(event)
        elif event.level == "warning":
            self.warning(event.text)
        else:
            self.print(event.text)

    def emit_text(self, event: Event) -> None:
        """The same, where a JSON document follows, in which all of it is."""
        if not self.as_json:
            self.emit(event)

    def _stage_began(self, event: StageBegan) -> None:
        usual = f" (usually {seconds(event.usual)})" if event.usual and event.usual >= 2 else ""
        if not self.terminal:
            self.print(f"• {event.title} ...{usual}")
            return
        import rich.console
        import rich.status

        self._running = _Running(event.title, event.usual, time.monotonic())
        screen = rich.console.Console(no_color=not self.colour, highlight=False)
        self._spinner = rich.status.Status(self._running, console=screen)
        self._spinner.start()

    def _stage_ended(self, event: StageEnded) -> None:
        if self._spinner:
            self._spinner.stop()
            self._spinner = self._running = None
        took = seconds(event.seconds) if event.outcome != "already" else "already"
        # Why something failed is what the error says, which comes next.
        shown = event.detail if event.outcome != "failed" else ""
        detail = f"  {self.style(shown, 'bright_black')}" if shown else ""
        self.print(f"{self.mark(event.outcome)} {event.title}  {took}{detail}")

    @contextmanager
    def working(self, title: str, usual: float | None = None) -> Iterator[Any]:
        """Show that something goes on; yields a function that takes a line on what it is just now."""
        began = time.monotonic()
        self.emit(StageBegan(title, title, usual))
        try:
            yield lambda detail: self.emit(StageMoved(title, detail))
        except BaseException:
            self.emit(StageEnded(title, title, "failed", time.monotonic() - began))
            raise
        self.emit(StageEnded(title, title, "done", time.monotonic() - began))


@dataclass
class _Running:
    """The spinner's text, made anew at every frame so that the clock runs while nothing else happens."""

    title: str
    usual: float | None
    began: float
    detail: str = ""

    def __rich__(self) -> Text:
        from rich.text import Text

        usual = f" of usually {seconds(self.usual)}" if self.usual and self.usual >= 2 else ""
        clock = f"{seconds(time.monotonic() - self.began)}{usual}"
        return Text(plain(f"{self.title}  {clock}  {self.detail}"), no_wrap=True, overflow="ellipsis")
