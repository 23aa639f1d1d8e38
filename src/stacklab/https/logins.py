"""clouds.yaml. While the public endpoints are behind TLS the lab looks from inside, and two more entries come by https.

`lab-admin` and `lab-learner` go on through the internal endpoints then, and know the authority for whatever asks a public one.
`lab-https` is the administrator by https alone; `lab-https-no-ca` is the same without the authority, and fails.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stacklab.cloud.access import LEARNER
from stacklab.files import precious_exists, read_precious, remove_precious, write_precious

BY_TLS, WITHOUT_CA = "lab-https", "lab-https-no-ca"
ADMIN, LEARNERS = "lab-admin", "lab-learner"
REGION = "RegionOne"
"""DevStack's default."""


def _file(directory: Path) -> Path:
    return directory / "logins.json"


def clouds_text(identity: str, passwords: Mapping[str, str], directory: Path) -> str:
    """The file. `passwords`: of admin and learner; `directory`: the lab's one for https."""

    def entry(user: str, project: str, password: str) -> dict[str, Any]:
        domains = {"user_domain_id": "default", "project_domain_id": "default"}
        login = {"auth_url": identity, "username": user, "password": password, "project_name": project, **domains}
        return {"auth": login, "region_name": REGION, "identity_api_version": "3"}

    clouds = {
        ADMIN: entry("admin", "admin", passwords["admin"]),
        LEARNERS: entry(LEARNER["learner"], LEARNER["learner_project"], passwords["learner"]),
    }
    if (moved := read_precious(_file(directory))) is not None:
        by_tls = copy.deepcopy(clouds[ADMIN])
        by_tls["auth"]["auth_url"] = moved["identity"]
        by_tls["interface"] = "public"
        clouds = {name: {**login, "interface": "internal", "cacert": moved["cacert"]} for name, login in clouds.items()}
        clouds |= {BY_TLS: {**by_tls, "cacert": moved["cacert"]}, WITHOUT_CA: by_tls}
    return json.dumps({"clouds": clouds}, indent=2) + "\n"  # JSON is YAML, and quotes as needed


def begin(directory: Path, identity: str, cacert: Path) -> None:
    """From now on the homes write the entries so; nothing is written to clouds.yaml yet."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_precious(_file(directory), {"identity": identity, "cacert": str(cacert)})


def end(directory: Path) -> bool:
    """From now on they write them as before; False if they do already."""
    begun = precious_exists(_file(directory))
    remove_precious(_file(directory))
    return begun
