"""A deployment that takes from this host's cache: DevStack's address leads nowhere, and the machine clones it all the same."""

# ruff: noqa: F811 - a fixture that is imported and then named as an argument

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import standin
from tests.machine.system_fixture import debian  # noqa: F401 - a fixture
from tests.machine.test_home_ssh import BESIDE, SLEEPER
from tests.systems import System

LAB = str(Path(sys.executable).with_name("lab"))
ELSEWHERE = "https://devstack.invalid/standin/devstack.git"
"""Names nothing: `.invalid` never resolves (RFC 2606)."""


def test_what_was_prefetched_is_cloned_without_the_internet_and_the_server_ends_with_the_run(
    debian: System, tmp_path: Path
) -> None:
    bare = tmp_path / "upstream" / "standin" / "devstack.git"
    bare.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", standin.bundle(tmp_path), bare], check=True)
    config, home = tmp_path / ".config" / "stacklab", tmp_path
    (config / "profiles").mkdir(parents=True)
    container = {"container": {"title": "In a container", "why": "a test", "when": "container"}}
    data = standin.profile_data(variants=container, devstack={"repo": ELSEWHERE, "ref": standin.TAG})
    (config / "profiles" / "standin.yaml").write_text(json.dumps(data))
    mirrors = {"https://devstack.invalid/": f"{(tmp_path / 'upstream').as_uri()}/"}
    (config / "config.yaml").write_text(json.dumps({"deploy": {"mirrors": mirrors}}))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "config").write_text(
        f"Host course\n  HostName {debian.address}\n  User {debian.user}\n  IdentityFile {debian.key}\n"
    )
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    debian.ssh("systemctl disable --now apache2 memcached", user="root")
    for name in BESIDE:
        debian.ssh(f"cat > /etc/systemd/system/{name}.service", user="root", given=SLEEPER)
    debian.ssh("echo STANDIN_SECONDS=5 > /etc/standin.conf", user="root")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "LAB_", "OS_"))}
    environment = kept | {"HOME": str(home), "NO_COLOR": "1"}

    def lab(*words: str, expect: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run([LAB, *words], env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode in expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    # DevStack itself comes; what else it clones is not known of a stand-in, and that is said.
    assert "without its stackrc" in lab("prefetch", "standin", "--only", "git", expect=(12,))
    bare.rename(tmp_path / "gone")  # the internet is taken away
    told = lab("up", "session4", "--image", str(image), "--on", "ssh:course", "--profile", "standin")
    assert "come from here, through the SSH connection" in told
    assert "session4 is ready" in told
    # The clone names the place that it would be fetched from, and git fetches from there again from now on.
    origin = debian.ssh("runuser -u stack -- git -C /opt/stack/devstack remote get-url origin", user="root").stdout
    assert origin.strip() == f"{(tmp_path / 'upstream').as_uri()}/standin/devstack.git"  # the user's mirror of it
    assert "the end of what was prefetched" in told
    assert debian.ssh("cat /etc/stacklab/git.conf", user="root", check=False).returncode != 0
    assert "127.0.0.1" not in debian.ssh("cat /etc/pip.conf", user="root", check=False).stdout
    state = tmp_path / ".local" / "state" / "stacklab" / "intro"
    assert subprocess.run(["pgrep", "-f", f"stacklab.prefetch.server {state}"], check=False).returncode == 1
    lab("destroy", "--yes")
