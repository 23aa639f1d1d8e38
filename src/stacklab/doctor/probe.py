"""A probe looks at one thing that a home needs. Looking changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.errors import LabError


@dataclass(frozen=True)
class Probe:
    """`look` may raise anything: that is "cannot tell". `seconds`: after that it is given up, and cannot be told either.

    `wrong`: errors that are what the probe looks for. `closed`: by the ids of errors, what keeps it from looking; the line
    of that door has said why it is closed.
    """

    id: str
    title: str
    look: Callable[[], Finding]
    seconds: float = 60.0
    wrong: type[LabError] | tuple[type[LabError], ...] = ()
    closed: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> Finding:
        """Look once; whatever goes wrong with the looking is told, never passed over."""
        try:
            return self.look()
        except LabError as error:
            if isinstance(error, self.wrong):
                return failed(error)
            return (
                unknown(self.closed[error.id]) if error.id in self.closed else unknown(error.message, *_advice(error))
            )
        except Exception as error:  # noqa: BLE001 - a probe that breaks must not take the others, or the answer, with it
            return unknown(f"the probe itself failed: {type(error).__name__}: {error}")


def good(evidence: str) -> Finding:
    """All is well."""
    return Finding("good", evidence)


def warning(evidence: str, *remedies: Remedy | str) -> Finding:
    """It works, at a cost that the evidence names."""
    return Finding("warning", evidence, remedies=remedies)


def bad(evidence: str, *remedies: Remedy | str) -> Finding:
    """The home cannot work so."""
    return Finding("bad", evidence, remedies=remedies)


def unknown(evidence: str, *remedies: Remedy | str) -> Finding:
    """It could not be told, and why."""
    return Finding("unknown", evidence, remedies=remedies)


def failed(error: LabError) -> Finding:
    """The home cannot work so, and an error says why."""
    return bad(error.message, *_advice(error))


def _advice(error: LabError) -> tuple[str, ...]:
    return (error.advice,) if error.advice else ()


def gib(size: float) -> str:
    """Bytes, for people."""
    return f"{size / 2**30:.1f} GiB"
