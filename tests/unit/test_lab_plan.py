"""What `lab up` was told: kept when it can be done, forgotten when it cannot, and never in the way of removing a lab."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.homes.plan import Plan
from stacklab.lab import Lab

NOWHERE = "ssh://nobody@127.0.0.1:1"


@pytest.fixture
def image(own_directories: Path) -> str:
    path = own_directories / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    return str(path)


def test_consent_to_a_used_machine_is_for_one_run(image: str) -> None:
    assert run(["up", "session4", "--on", NOWHERE, "--image", image, "--even-if-used"]) == 25
    assert Plan.of(Lab("intro")).address == NOWHERE
    assert Plan.of(Lab("intro")).used is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--profile", "nope"], 41),
        (["--memory", "100"], 43),
        (["--profile", "debian12-2026.1", "--with", "murano"], 43),
        (["--box", "/there/is/no.box"], 12),
        (["--on", "moon"], 22),
        (["--on", "ssh://a:b@host"], 22),
    ],
)
def test_what_cannot_be_done_is_not_remembered(image: str, words: list[str], code: int) -> None:
    assert run(["up", "session4", "--on", "libvirt", *words, "--image", image]) == code
    assert Plan.of(Lab("intro")) == Plan()


def test_a_mistaken_machine_can_be_corrected_as_long_as_nothing_was_made(image: str) -> None:
    assert run(["up", "session4", "--on", NOWHERE, "--image", image]) == 25
    assert run(["up", "session4", "--on", "ssh://nobody@127.0.0.1:2"]) == 25
    assert Plan.of(Lab("intro")).address == "ssh://nobody@127.0.0.1:2"


@pytest.mark.parametrize("damage", [None, "{", '{"home": "libvirt", "plan": {"profile": "gone"}}'])
def test_a_lab_can_be_removed_whatever_became_of_its_record(
    own_directories: Path, damage: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab("intro")
    lab.home_directory.mkdir(parents=True)
    (lab.home_directory / "anything").write_text("x")
    if damage is not None:
        (lab.directory / "lab.json").write_text(damage)
    if damage is None:
        assert run(["status"]) == 52
        assert "destroy removes" in capsys.readouterr().err
        assert run(["up", "session4"]) == 52
    assert run(["destroy", "--yes"]) == 0
    assert not lab.directory.exists()


def test_lost_passwords_are_told_and_not_made_up(own_directories: Path) -> None:
    lab = Lab("intro")
    lab.update(home="embedded", stages={"ready": {"outcome": "done"}})
    assert run(["password"]) == 52
    assert not (lab.directory / "secrets.json").exists()
