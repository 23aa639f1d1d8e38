"""What labs share, the installed OpenStack and the first initialisations: who needs which, and removing the rest.

Both are named by what made them, so every new version leaves its predecessor behind: 1.1 GB an environment.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stacklab.files import locked, read_json, write_json
from stacklab.homes.embedded import mirror
from stacklab.homes.embedded.layout import Layout
from stacklab.lab import all_labs
from stacklab.removal import runs_from

ROSTER = "labs.json"
"""In the directory of the environments: the homes of the clouds that run from one. Labs may lie in other state directories
than ours (XDG_STATE_HOME), and still share the software."""


def register(environments: Path, home: Path) -> None:
    """A cloud in `home` runs from one of these environments."""
    with locked(environments / f"{ROSTER}.lock", wait=True):
        known = set(read_json(environments / ROSTER) or [])
        gone = {one for one in known if not Layout(Path(one)).made_file.exists()}
        write_json(environments / ROSTER, sorted((known - gone) | {str(home)}))


def homes(environments: Path) -> set[Path]:
    """Every cloud's home that we know of."""
    known = {Path(one) for one in read_json(environments / ROSTER) or []}
    known |= {lab.home_directory for lab in all_labs()}
    return {home for home in known if Layout(home).made_file.exists()}


def prune_environments(environments: Path, keep: str) -> list[Path]:
    """Remove the environments that no cloud needs and no process runs from; returns what is gone."""
    made = [read_json(Layout(home).made_file) or {} for home in homes(environments)]
    if any("environment" not in one for one in made):
        return []  # a cloud that an older lab made, and we cannot know from what
    needed = {keep, *(str(one["environment"]) for one in made)}
    return _prune(environments, lambda path: path.name in needed or runs_from(path))


def prune_templates(templates: Path, keep: str) -> list[Path]:
    """Remove all templates but one: a cloud that was made from a template is a copy, and does not need it any more."""
    return _prune(templates, lambda path: path.name == keep)


def _prune(root: Path, needed: Callable[[Path], bool]) -> list[Path]:
    gone = []
    for path in sorted(root.glob("[!.]*")):
        if not path.is_dir() or needed(path):
            continue
        with locked(path.with_name(f"{path.name}.lock"), wait=False) as mine:
            if mine:  # else somebody is making it, or copying from it
                _remove(path)
                gone.append(path)
    return gone


def _remove(path: Path) -> None:
    """Under another name first: what bears its own name is whole."""
    doomed = path.with_name(f".{path.name}.removing")
    mirror.remove(doomed)
    path.rename(doomed)
    mirror.remove(doomed)
