"""Which checkpoint a session starts with, and what a home answers that saves nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from stacklab.errors import CheckpointMissing
from stacklab.homes.base import HomeCheckpoints
from stacklab.homes.libvirt.home import STACKED, LibvirtCheckpoints, LibvirtHome
from stacklab.lab import Lab


class Saved:
    """Stands for the VM's checkpoints."""

    def __init__(self, *names: str) -> None:
        self.there = set(names)

    def names(self) -> list[str]:
        return sorted(self.there)

    def drop(self, name: str, progress: object) -> None:
        self.there.discard(name)


def checkpoints(saved: Saved) -> LibvirtCheckpoints:
    home = SimpleNamespace(lab=Lab("intro"), vm=SimpleNamespace(checkpoints=saved))
    return LibvirtCheckpoints(cast(LibvirtHome, home))


def test_a_session_starts_from_what_was_saved_for_it_and_any_other_from_the_cloud_as_it_was_made(
    own_directories: Path,
) -> None:
    saved, lab = Saved(STACKED, "start"), Lab("intro")
    lab.update(session="session2", start_of="session2", stacked_for="session1")
    assert checkpoints(saved).start() == "start"
    lab.update(session="session4")
    assert checkpoints(saved).start() == STACKED
    assert saved.names() == [STACKED]
    assert lab.record.start_of == "session4"
    assert checkpoints(saved).already() == f"'{STACKED}' is saved"


def test_the_start_is_the_cloud_as_it_was_made_where_no_other_was_saved(own_directories: Path) -> None:
    checkpoints(Saved(STACKED)).verify("start")
    with pytest.raises(CheckpointMissing, match="no checkpoint 'mine'"):
        checkpoints(Saved(STACKED)).verify("mine")


def test_a_home_that_saves_nothing_says_so_before_anything_is_touched() -> None:
    none = HomeCheckpoints()
    assert (none.saves, none.names(), none.start()) == (False, [], "start")
    none.drop("mine", lambda detail: None)
    with pytest.raises(CheckpointMissing, match="the machine is yours"):
        none.restore("mine", lambda detail: None)
