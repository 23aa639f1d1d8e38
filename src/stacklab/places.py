"""Where things lie on this machine: the XDG directories, and the course's data in a checkout or a wheel."""

from __future__ import annotations

from pathlib import Path

from platformdirs import PlatformDirs

_dirs = PlatformDirs("stacklab", appauthor=False)


def data_home() -> Path:
    """Installed software: the embedded cloud's environments ($XDG_DATA_HOME/stacklab)."""
    return Path(_dirs.user_data_dir)


def state_home() -> Path:
    """One directory per lab ($XDG_STATE_HOME/stacklab)."""
    return Path(_dirs.user_state_dir)


def config_home() -> Path:
    """The user's own settings: config.yaml, profiles/ ($XDG_CONFIG_HOME/stacklab)."""
    return Path(_dirs.user_config_dir)


def cache_home() -> Path:
    """What can be made or fetched again: images, cloud templates ($XDG_CACHE_HOME/stacklab)."""
    return Path(_dirs.user_cache_dir)


def course_data() -> Path:
    """The directory that holds `labs/`, `local.conf.d/` and `Vagrantfile.j2`.

    In a wheel they lie inside the package; in a checkout (also an editable install) at its top.
    """
    packaged = Path(__file__).parent / "data"
    return packaged if packaged.is_dir() else Path(__file__).parents[2]
