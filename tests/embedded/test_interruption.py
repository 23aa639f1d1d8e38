"""Ctrl-C in every stage of the real `lab up`: one clear line, no trace, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stacklab.homes.embedded import software
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.lab import Lab
from tests.embedded.conftest import quiet

LAB = str(Path(sys.executable).parent / "lab")
UP = [LAB, "--lab", "cut", "up", "session4", "--json"]
LONG = {"guest-image", "template", "services"}
"""Stages of a new lab that take long enough to be met for certain. The others may be over when the key is heard."""
TOLD = {"software", "template", "services"}
"""These say how they get on: they are interrupted at the second such line, in their middle, the others as they begin."""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A lab and a cache of this test's own: nothing is initialised, no image is there."""
    if not os.environ.get("LAB_TEST_FRESH") and not software.installed():
        software.install(quiet)
    for kind in ("STATE", "CACHE", *(["DATA"] if os.environ.get("LAB_TEST_FRESH") else [])):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    yield dict(os.environ)
    EmbeddedHome(Lab("cut")).stop(quiet, patience=0)
    shutil.rmtree(tmp_path, ignore_errors=True)


def interrupt(environment: dict[str, str], done: set[str]) -> tuple[list[dict[str, Any]], int, str]:
    """Run `lab up` and press Ctrl-C in the first stage that is not in `done`, and put it there.

    As a terminal does it: for the whole foreground process group.
    """
    process = subprocess.Popen(
        UP, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    events: list[dict[str, Any]] = []
    said: list[str] = []
    pressed = False
    assert process.stdout
    assert process.stderr
    with process:
        for line in process.stdout:
            event = json.loads(line)
            events.append(event)
            if event["event"] not in ("stage-began", "stage-moved") or pressed or event["stage"] in done:
                continue
            said.append(event["stage"])
            if event["stage"] not in TOLD or said.count(event["stage"]) > 2:
                done.add(event["stage"])
                os.killpg(process.pid, signal.SIGINT)
                pressed = True
        complaint = process.stderr.read()
    return events, process.returncode, complaint


def assert_told(events: list[dict[str, Any]], code: int, complaint: str) -> str:
    """What happened, and how to go on; nothing else. Returns the stage that was interrupted; empty if it was between two."""
    assert code == 130, (events, complaint)
    assert complaint.strip().splitlines() == [
        "lab: interrupted; what was done stays done",
        "     → goes on from there: lab --lab cut up session4 --json",
    ]
    assert events[-1] | {"event": "error", "id": "interrupted", "exit": 130} == events[-1]
    ended: dict[str, Any] = next((event for event in reversed(events) if event["event"] == "stage-ended"), {})
    if ended.get("outcome") != "failed":
        return ""  # the stage was over when the key was heard
    assert (ended["outcome"], ended["detail"]) == ("failed", "interrupted"), events
    return str(ended["stage"])


def test_every_stage_can_be_interrupted_and_taken_up_again(environment: dict[str, str], tmp_path: Path) -> None:
    done: set[str] = set()
    met = set()
    events, code, complaint = interrupt(environment, done)
    while code:
        met.add(assert_told(events, code, complaint))
        events, code, complaint = interrupt(environment, done)
    assert events[-1]["event"] == "up"
    assert complaint == ""
    assert met >= (LONG | {"software"} if os.environ.get("LAB_TEST_FRESH") else LONG)
    status = subprocess.run([LAB, "--lab", "cut", "status"], env=environment, capture_output=True, check=False)
    assert status.returncode == 0
    subprocess.run([LAB, "--lab", "cut", "destroy", "--yes"], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert processes_that_name(tmp_path) == []
    assert not Lab("cut").directory.exists()


def processes_that_name(directory: Path) -> list[str]:
    """Command lines and environments of our processes in which this directory occurs: services, guests, helpers."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue  # not ours, or it ended while we looked
        if os.fsencode(directory) in told:
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
