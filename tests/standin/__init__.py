"""A stand-in for DevStack: a small git repository whose stack.sh behaves like the real one's; see devstack/README.md.

It is brought to a machine as a git bundle, over the machine's own connection: no network and no server is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from stacklab.deploy.profile.model import Profile
from stacklab.machines.base import Machine

DIRECTORY = Path(__file__).parent / "devstack"
API = Path(__file__).parent / "api.py"
"""What both stand-ins serve alike."""
TAG = "standin-1"
BRANCH = "stable/standin"
ON_MACHINE = "/srv/standin/devstack.bundle"
SETTINGS = "/etc/standin.conf"
UNITS = [
    *("keystone", "n-api", "q-ovn-agent", "neutron-api", "neutron-rpc-server", "neutron-periodic-workers"),
    *("neutron-ovn-maintenance-worker", "placement-api", "n-sch", "n-api-meta", "n-novnc-cell1", "n-super-cond"),
    *("n-cond-cell1", "n-cpu", "c-api", "c-sch", "c-vol", "g-api"),
]


def bundle(scratch: Path) -> Path:
    """A git bundle of the stand-in with one commit, a tag and a branch. The same every time, down to the commit's name."""
    repository, target = scratch / "standin-devstack", scratch / "standin-devstack.bundle"
    shutil.rmtree(repository, ignore_errors=True)
    shutil.copytree(DIRECTORY, repository, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(API, repository / "tools")
    for path in repository.rglob("*"):
        executable = path.is_dir() or path.suffix == ".sh" or path.parent.name == "tools"
        path.chmod(0o755 if executable else 0o644)
    date = "2026-01-01T00:00:00+00:00"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{f"GIT_{who}_NAME": "stand-in" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "stand-in@invalid" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_DATE": date for who in ("AUTHOR", "COMMITTER")},
        **{"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
    }

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(repository), *arguments], env=environment, check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch", BRANCH)
    git("add", "--all")
    git("commit", "--quiet", "--message", "A stand-in for DevStack")
    git("tag", TAG)
    git("bundle", "create", str(target), "--all", "HEAD")
    return target


def bring(machine: Machine, scratch: Path, **settings: str) -> str:
    """Put the repository on the machine and set how it shall behave (STANDIN_…, see its README); its address for git."""
    machine.put(ON_MACHINE, bundle(scratch).read_bytes())
    behave(machine, **settings)
    return ON_MACHINE


def behave(machine: Machine, **settings: str) -> None:
    """Change how stack.sh and unstack.sh behave from their next start on."""
    machine.put(SETTINGS, "".join(f"{name}='{value}'\n" for name, value in settings.items()))


def profile_data(**changes: Any) -> dict[str, Any]:
    """A profile for Debian 12 with the stand-in, as the text of a profile's file would hold it."""
    data: dict[str, Any] = {
        "name": "standin",
        "title": "Debian 12 and a stand-in for DevStack",
        "summary": "for tests",
        "tested": "the stand-in, by these tests",
        "family": "debian",
        "distribution": "debian 12",
        "release": "standin",
        "usual_minutes": 1,
        "box": {"name": "lab/standin"},
        "size": {"memory": 1024, "least_memory": 512, "least_disk": 1},
        "packages": {"install": ["git", "sudo", "apache2", "memcached", "python3", "curl", "procps"]},
        "devstack": {"repo": ON_MACHINE, "ref": TAG, "drop": {"files/debs/general": ["Django"]}},
        "fragments": ["secrets", "address", "logging"],
        "values": {"logfile": "/opt/stack/logs/stack.sh.log"},
        "units": {
            "apache": "apache2",
            "memcached": "memcached",
            "database": "mariadb",
            "queue": "rabbitmq-server",
            "switch": [],
            "libvirt": "libvirtd",
            "network_agent": "q-ovn-agent",
            "watch_seconds": 8,
            "devstack": UNITS,
        },
    }
    return data | changes


def profile(**changes: Any) -> Profile:
    """`profile_data` as a Profile."""
    return Profile.model_validate(profile_data(**changes))
