"""clouds.yaml while the public endpoints are behind TLS: the lab looks from inside, and two entries come by https.

`lab-admin` and `lab-learner` go on through the internal endpoints, and know the lab's authority for whatever asks a public one.
`lab-https` is the administrator by https alone; `lab-https-no-ca` is the same without the authority, and fails.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from stacklab.files import precious_exists, read_precious, remove_precious, write_precious

BY_TLS, WITHOUT_CA = "lab-https", "lab-https-no-ca"
_OF = "lab-admin"


def _file(directory: Path) -> Path:
    return directory / "logins.json"


def laid_over(clouds: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The entries as they shall be, given what a home would write by itself. `directory`: the lab's one for https."""
    moved = read_precious(_file(directory))
    if moved is None:
        return clouds
    inside = {name: {**entry, "interface": "internal", "cacert": moved["cacert"]} for name, entry in clouds.items()}
    by_tls = copy.deepcopy(clouds[_OF])
    by_tls["auth"]["auth_url"] = moved["identity"]
    by_tls["interface"] = "public"
    return {**inside, BY_TLS: {**by_tls, "cacert": moved["cacert"]}, WITHOUT_CA: by_tls}


def begin(directory: Path, identity: str, cacert: Path) -> None:
    """From now on the homes write the entries so; nothing is written to clouds.yaml yet."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_precious(_file(directory), {"identity": identity, "cacert": str(cacert)})


def end(directory: Path) -> bool:
    """From now on they write them as before; False if they do already."""
    begun = precious_exists(_file(directory))
    remove_precious(_file(directory))
    return begun
