"""clouds.yaml while the public endpoints are behind TLS: the lab looks from inside, and two entries come by https.

`lab-admin` and `lab-learner` go on through the internal endpoints, and know the lab's authority for whatever asks a public one.
`lab-https` is the administrator by https alone; `lab-https-no-ca` is the same without the authority, and fails.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from stacklab.files import read_json, write_atomic, write_json

BY_TLS, WITHOUT_CA = "lab-https", "lab-https-no-ca"
_OF = "lab-admin"


def _file(directory: Path) -> Path:
    return directory / "logins.json"


def _kept(directory: Path) -> Path:
    return directory / "clouds.yaml.before"


def laid_over(clouds: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The entries as they shall be, given what a home would write by itself. `directory`: the lab's one for https."""
    told = read_json(_file(directory))
    return clouds if told is None else _over(clouds, told["identity"], told["cacert"])


def _over(clouds: dict[str, Any], identity: str, cacert: str) -> dict[str, Any]:
    inside = {name: {**entry, "interface": "internal", "cacert": cacert} for name, entry in clouds.items()}
    by_tls = copy.deepcopy(clouds[_OF])
    by_tls["auth"]["auth_url"] = identity
    by_tls["interface"] = "public"
    return {**inside, BY_TLS: {**by_tls, "cacert": cacert}, WITHOUT_CA: by_tls}


def _entries(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))  # the learner may have written it anew, and not as JSON


def begin(directory: Path, clouds_file: Path, identity: str, cacert: Path) -> None:
    """From now on the homes write the entries so. What the file held is kept; nothing is written to it yet."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _file(directory).exists():
        write_atomic(_kept(directory), clouds_file.read_bytes(), mode=0o600)
    write_json(_file(directory), {"identity": identity, "cacert": str(cacert)}, mode=0o600)


def begun(directory: Path) -> bool:
    """Whether the entries are ours to take away."""
    return _file(directory).exists() or _kept(directory).exists()


def end(directory: Path, clouds_file: Path, rewrite: Any) -> bool:
    """The file as it was: the same bytes where the home would write the same. False if there is nothing of ours."""
    if not begun(directory):
        return False
    _file(directory).unlink(missing_ok=True)
    rewrite()
    kept = _kept(directory)
    if kept.exists():
        if _entries(kept) == _entries(clouds_file):  # else passwords or addresses have changed since
            write_atomic(clouds_file, kept.read_bytes(), mode=0o600)
        kept.unlink()
    return True
