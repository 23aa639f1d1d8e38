"""Tempest's own Python environment: from hashed requirements, under the XDG data directory, whole or not there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

import uv

from stacklab import indexes, places
from stacklab.files import locked
from stacklab.homes.embedded import software
from stacklab.stages import Progress

REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def version() -> str:
    """The pinned release of Tempest."""
    found = re.search(r"^tempest==(\S+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def _path() -> Path:
    made_of = REQUIREMENTS.read_bytes() + f"{sys.version_info[:2]}".encode()
    return places.data_home() / "tempest" / hashlib.sha256(made_of).hexdigest()[:12]


def python() -> Path:
    """Its interpreter."""
    return _path() / "bin" / "python"


def install(progress: Progress) -> None:
    """Make the environment unless it is there; what earlier requirements made goes. Raises DownloadFailed."""
    path = _path()
    with locked(path.parent / ".lock", wait=True):
        if path.exists():
            return
        draft = path.parent / "draft"
        for old in path.parent.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        _build(draft, progress)
        draft.rename(path)


def _build(draft: Path, progress: Progress) -> None:
    program = uv.find_uv_bin()
    variables = indexes.for_uv({k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")})
    software.run(
        [program, "venv", "--quiet", "--relocatable", "--no-project", "--python", sys.executable, str(draft)],
        variables,
        progress,
    )
    install_command = [program, "pip", "install", "--python", str(draft / "bin" / "python"), "--require-hashes"]
    install_command += ["--index-strategy", "unsafe-best-match", "--requirement", str(REQUIREMENTS)]
    software.run(install_command, variables, progress)
