"""What Vagrant and libvirt complain of, in one line, and what is advised then; and a Vagrant that nobody waits for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.files import write_json
from stacklab.homes.libvirt.vagrant import Vagrant, not_fetched, started
from stacklab.lab import Lab

DOWNLOADER = [
    "An error occurred while downloading the remote file. The error",
    "message, if any, is reproduced below. Please fix this error and try",
    "again.",
]
CATALOGUE = [
    "The box 'centos/7' could not be found or",
    "could not be accessed in the remote catalog. If this is a private",
    "box on HashiCorp's Vagrant Cloud, please verify you're logged in via",
    "`vagrant login`. Also, please double-check the name. The expanded",
    "URL and error message are shown below:",
    'URL: ["https://vagrantcloud.com/centos/7"]',
]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([*DOWNLOADER, "Could not resolve host: cloud.example"], "Could not resolve host: cloud.example"),
        (
            [*DOWNLOADER, "Couldn't open file /nope", *DOWNLOADER, "Couldn't open file /nope"],
            "Couldn't open file /nope",
        ),
        (DOWNLOADER, "Vagrant does not say why"),
        ([*CATALOGUE, "Error: Could not resolve host: vagrantcloud.com"], "Could not resolve host: vagrantcloud.com"),
        (["The box you're attempting to add doesn't support the provider"], None),
        ([], None),
    ],
)
def test_why_a_box_was_not_fetched_is_told_once_and_alone(lines: list[str], why: str | None) -> None:
    assert not_fetched(lines) == why


@pytest.fixture
def left_at_work() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for the Vagrant of a `lab` that was killed."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(("later", "ends"), [(0, True), (1, False)])
def test_a_vagrant_left_at_work_is_ended_and_no_other_process_that_has_its_number(
    own_directories: Path, left_at_work: subprocess.Popen[bytes], later: int, ends: bool
) -> None:
    vagrant = Vagrant(Lab("intro"))
    vagrant.directory.mkdir(parents=True)
    began = started(left_at_work.pid)
    assert began is not None
    write_json(vagrant.directory / "vagrant.json", {"pid": left_at_work.pid, "started": began + later})
    vagrant.end()
    assert (started(left_at_work.pid) is None) == ends
    assert not (vagrant.directory / "vagrant.json").exists()
