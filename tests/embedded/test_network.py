"""A cloud whose network is Neutron's own OVN: packets flow, rules bite, and OVN comes back with everything else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stacklab.cli.main import run
from stacklab.course.load import load_session
from stacklab.homes.embedded import ovn, supervision
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.replay.bringup import bring_up as lab_up
from tests.embedded.conftest import connect, end, quiet
from tests.embedded.guests import Guests, guests_of, until

# openstacksdk warns about what its own convenience layer does
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(scope="module")
def home(directories: Path) -> Iterator[EmbeddedHome]:
    """A lab of these tests' own, on OVN."""
    if why := ovn.why_none_possible():
        pytest.skip(f"a network namespace with taps is not to be had here: {why}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_NETWORK", "ovn")
        home = EmbeddedHome(Lab("network"))
        try:
            lab_up(home.lab, load_session("session4"), Plan(home="embedded"), None, lambda event: None)
            yield home
        finally:
            end(home)
            shutil.rmtree(home.lab.directory, ignore_errors=True)


@pytest.fixture
def admin(home: EmbeddedHome) -> Iterator[Any]:
    yield from connect(home, "lab-admin")


class RoutedGuests(Guests):
    """Instances behind a router, each with a floating IP, and a security group that lets SSH in."""

    def __init__(self, home: EmbeddedHome, directory: Path) -> None:
        super().__init__(home, directory)
        network = self.cloud.network
        self.public = network.find_network("public", ignore_missing=False)
        subnet = next(iter(network.subnets(network_id=self.network.id)))
        self.router = network.create_router(name=self.tag, external_gateway_info={"network_id": self.public.id})
        network.add_interface_to_router(self.router, subnet_id=subnet.id)
        self.group = network.create_security_group(name=self.tag)
        self.let_in("tcp", 22)

    def let_in(self, protocol: str, port: int | None = None) -> Any:
        return self.cloud.network.create_security_group_rule(
            security_group_id=self.group.id,
            direction="ingress",
            protocol=protocol,
            port_range_min=port,
            port_range_max=port,
        )

    def start(self, name: str, **more: Any) -> Any:
        server = super().start(name, security_groups=[{"name": self.tag}], **more)
        port = next(iter(self.cloud.network.ports(device_id=server.id)))
        self.cloud.network.create_ip(floating_network_id=self.public.id, port_id=port.id)
        return server

    def clean(self) -> None:
        """Nothing: the whole lab goes."""


@pytest.fixture(scope="module")
def guests(home: EmbeddedHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoutedGuests]:
    with guests_of(home, tmp_path_factory.mktemp("guests"), RoutedGuests) as found:
        yield found


@pytest.fixture(scope="module")
def pair(guests: RoutedGuests) -> tuple[Any, Any]:
    """Two instances on one network."""
    return guests.start("first"), guests.start("second")


def pings(guests: Guests, server: Any, address: str) -> bool:
    return guests.run(server, f"ping -c 2 -W 3 {address} >/dev/null && echo answers || echo silent") == "answers"


def test_the_real_controller_is_neutrons_agent(admin: Any) -> None:
    agents = [(agent.binary, agent.is_alive) for agent in admin.network.agents()]
    assert agents == [("ovn-controller", True)]


def test_instances_on_one_network_reach_each_other_and_a_rule_bites(
    guests: RoutedGuests, pair: tuple[Any, Any]
) -> None:
    first, second = pair
    ports = [port.status for server in pair for port in guests.cloud.network.ports(device_id=server.id)]
    assert ports == ["ACTIVE", "ACTIVE"]
    assert not pings(guests, first, guests.address(second)), "the group lets in SSH alone"
    rule = guests.let_in("icmp")
    until("the rule lets it in", lambda: pings(guests, first, guests.address(second)))
    guests.cloud.network.delete_security_group_rule(rule)
    until("it is shut out again", lambda: not pings(guests, first, guests.address(second)))


def test_a_guest_learns_mtu_and_gateway_and_finds_the_outside_by_its_router(
    guests: RoutedGuests, pair: tuple[Any, Any]
) -> None:
    first, _ = pair
    network = guests.cloud.network.get_network(guests.network.id)
    assert guests.run(first, "cat /sys/class/net/eth0/mtu") == str(network.mtu)
    assert pings(guests, first, "172.24.4.1"), "the cloud's machine, by way of the router's SNAT"


def test_commands_run_in_the_clouds_network(home: EmbeddedHome, pair: tuple[Any, Any], guests: RoutedGuests) -> None:
    lab = [str(Path(sys.executable).parent / "lab"), "--lab", home.lab.name, "netns", "--"]
    shown = subprocess.run([*lab, "ovn-nbctl", "show"], capture_output=True, text=True, check=True).stdout
    assert all(port.id in shown for server in pair for port in guests.cloud.network.ports(device_id=server.id))
    assert "172.24.4.1/24" in subprocess.run([*lab, "ip", "address"], capture_output=True, text=True, check=True).stdout


def test_a_killed_daemon_comes_back_and_traffic_flows_again(
    home: EmbeddedHome, guests: RoutedGuests, pair: tuple[Any, Any]
) -> None:
    for name in ("ovs-vswitchd", "ovnnb_db", "ovn-controller"):
        os.kill(int((home.layout.run / "ovn" / f"{name}.pid").read_text()), signal.SIGKILL)
        until("OVN is back", lambda: _state(home, "ovn") == "running")
        assert guests.run(pair[0], "hostname") == "first", name
    assert supervision.guests(home.layout) != []


def _state(home: EmbeddedHome, name: str) -> str:
    return next(state.state for state in supervision.services(home.layout) if state.name == name)


def test_a_reset_leaves_nothing_of_it_in_ovn(home: EmbeddedHome, guests: RoutedGuests, admin: Any) -> None:
    home.checkpoints.restore("start", quiet)
    assert [network.name for network in admin.network.networks()] == ["public"]
    shown = subprocess.run(
        [*ovn.inside(home.layout), "ovn-nbctl", "--columns=name", "--format=csv", "--no-headings", "list", "logical_switch"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert len(shown.split()) == 1
    assert run(["--lab", home.lab.name, "status"]) == 0
