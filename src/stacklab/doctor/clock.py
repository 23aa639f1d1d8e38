"""The clock: what the kernel says of it, and a registry's date. Where it is wrong, certificates and tokens are refused."""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import requests

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import registries
from stacklab.doctor.probe import bad, good, unknown
from stacklab.download import reason, without_password
from stacklab.machines.clock import OFF_SECONDS

_STATUS, _UNSYNC = 40, 0x40
"""Of struct timex (adjtimex(2), 64-bit Linux): where `status` is, and its bit STA_UNSYNC."""


_KERNEL = {
    True: "the kernel says it is synchronised",
    False: "the kernel says nothing synchronises it",
    None: "the kernel cannot be asked",
}


def synchronised() -> bool | None:
    """Whether the kernel knows of something that keeps its clock right; None where it cannot be asked."""
    if struct.calcsize("P") != 8:
        return None
    buffer = ctypes.create_string_buffer(512)  # modes 0: only read
    if ctypes.CDLL(None).adjtimex(buffer) < 0:
        return None
    return not struct.unpack_from("i", buffer, _STATUS)[0] & _UNSYNC


def clock(settings: Settings, urls: Iterable[str] | None = None, now: Callable[[], float] = time.time) -> Finding:
    """This machine's. `urls`: where to ask for the date; without them, the Python package indexes."""
    of_pip, _, asking = registries.indexes_of_pip(settings)
    pages = [registries.page(url) for url in of_pip] if urls is None else list(urls)
    kernel = _KERNEL[synchronised()]
    trouble = []
    for url in pages:
        if urlsplit(url).scheme not in ("http", "https"):
            continue
        began = now()
        try:
            answer = registries.ask(asking, url)
        except requests.exceptions.SSLError as error:
            trouble.append(f"{without_password(url)}: {reason(error)} (a clock that is wrong does that, too)")
            continue
        except requests.RequestException as error:
            # an answer that is an error has a date all the same
            if error.response is None:
                trouble.append(f"{without_password(url)}: {reason(error)}")
                continue
            answer = error.response
        date, age = answer.headers.get("Date"), answer.headers.get("Age", "0")
        if not date:
            trouble.append(f"{without_password(url)} answers without a date")
            continue
        theirs = parsedate_to_datetime(date).timestamp() + (int(age) if age.isdigit() else 0)
        return judged(began, now(), theirs, f"{urlsplit(url).hostname}'s", kernel)
    return unknown(
        f"{kernel}; nobody to compare it with: {'; '.join(trouble) or 'no index is reached over HTTP'}", "date -u"
    )


def judged(began: float, ended: float, theirs: float, whose: str, kernel: str) -> Finding:
    """`theirs` was told between `began` and `ended` (seconds since the epoch); it has whole seconds only."""
    off = max(0.0, theirs - ended, began - theirs - 1)
    if off > OFF_SECONDS:
        way = "behind" if theirs > ended else "ahead of"
        return bad(f"{off:.0f} s {way} {whose} date; {kernel}", *_set())
    return good(f"agrees with {whose} date ({'within a second' if off < 1 else f'{off:.0f} s off'}); {kernel}")


def _set() -> tuple[Remedy | str, ...]:
    if Path("/run/systemd/system").is_dir():
        return (Remedy(("timedatectl", "set-ntp", "true"), root=True),)
    return ("sudo date -u -s 'YYYY-MM-DD HH:MM:SS'",)
