"""What the tests of the deployment share: a lab, a connection to the machine, a deployment of the stand-in for DevStack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.profile.settings import Settings
from stacklab.lab import Lab
from stacklab.machines.address import Address
from stacklab.machines.base import Machine
from stacklab.machines.ssh import SshMachine
from tests import standin
from tests.systems import System

_CLEAR = """
for unit in lab-stack lab-unstack $(systemctl list-unit-files 'devstack@*' --no-legend | awk '{print $1}'); do
    systemctl kill --signal=KILL $unit 2>/dev/null || true; systemctl stop $unit 2>/dev/null || true
    systemctl reset-failed $unit 2>/dev/null || true
done
rm -rf /var/lib/stacklab /etc/stacklab /opt/stack/* /etc/systemd/system/devstack@* /run/standin
systemctl daemon-reload
# Debian starts them when they are installed; a machine that serves the web looks used.
systemctl stop apache2 memcached
"""


def connection(system: System) -> SshMachine:
    """A connection that notices soon that it is lost; not so soon that a busy machine's silence is taken for that."""
    address = Address(host=system.address, user=system.user)
    return SshMachine(address, known_hosts=system.known_hosts, key=system.key, pulse=5, patience=30)


def until(true: Callable[[], bool], what: str, seconds: float = 180) -> None:
    """Wait for it; the test fails where it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.2)


@contextmanager
def held(machine: Machine, unit: str) -> Iterator[None]:
    """One of lab's units stays up meanwhile, however fast its program is and however slow those who look at it.

    Its main process is stopped, the wrapper that is to tell the end. Not all of them: sudo stops itself where what it runs is
    stopped, perhaps after it was told to go on.
    """
    kill = ("systemctl", "kill", "--kill-who=main")
    machine.run(*kill, "--signal=STOP", unit, user="root")
    try:
        yield
    finally:
        machine.run(*kill, "--signal=CONT", unit, user="root")


def behave(deployment: Deployment, **settings: str) -> None:
    """`standin.behave` with few services: making and removing all of them is what takes the time."""
    standin.behave(deployment.machine, **{"STANDIN_UNITS": "keystone g-api n-cpu", **settings})


def fresh_deployment(system: System, scratch: Path) -> Deployment:
    """The machine as a fresh lab sees it: nothing of an earlier test's is left on it. Needs `own_directories`."""
    lab = Lab("deploy")
    lab.update(session="session4")
    machine = connection(system)
    machine.script(_CLEAR, user="root")
    standin.bring(machine, scratch)
    deployment = Deployment(
        lab=lab, profile=standin.profile(), machine=machine, host_ip=system.address, settings=Settings()
    )
    behave(deployment, STANDIN_SECONDS="6")
    return deployment
