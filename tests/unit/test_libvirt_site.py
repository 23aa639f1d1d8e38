"""A VM's names and networks: unique, beside everything that is there, and remembered."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from stacklab.deploy.profile.model import Box
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import DownloadFailed, UnsupportedMachine
from stacklab.homes.libvirt.boxes import wanted_box
from stacklab.homes.libvirt.site import RANGE, VmSite, free_networks, routes
from stacklab.lab import Lab

# what /proc/net/route says on a machine with a default route, a LAN and one of libvirt's bridges
ROUTE_TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
virbr1\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_routes_are_read_without_the_default_one() -> None:
    assert list(routes(ROUTE_TABLE)) == [IPv4Network("192.168.1.0/24"), IPv4Network("10.77.0.0/24")]


def test_networks_are_chosen_beside_what_is_there() -> None:
    assert str(free_networks([])) == "10.77.0.0/23"
    assert str(free_networks(routes(ROUTE_TABLE))) == "10.77.2.0/23"
    assert str(free_networks([IPv4Network("10.77.0.0/20")])) == "10.77.16.0/23"
    assert str(free_networks([IPv4Network("10.77.1.0/28"), IPv4Network("0.0.0.0/0")])) == "10.77.2.0/23"


def test_no_free_network_is_an_error_that_says_where_to_look() -> None:
    with pytest.raises(UnsupportedMachine, match="no two networks are free"):
        free_networks([RANGE])
    with pytest.raises(UnsupportedMachine):
        free_networks([IPv4Network("10.0.0.0/8")])


def test_two_labs_get_different_networks_and_each_keeps_its_own(own_directories: Path) -> None:
    sites = [VmSite.choose(Lab(name), "qemu:///system", "default", "qemu", []) for name in ("one", "two")]
    assert [site.networks for site in sites] == ["10.77.0.0/23", "10.77.2.0/23"]
    assert [VmSite.of(Lab(name)) for name in ("one", "two")] == sites
    assert (str(sites[1].address), str(sites[1].nat)) == ("10.77.2.10", "10.77.3.0/24")


def test_names_begin_with_the_labs_and_differ_between_users(own_directories: Path) -> None:
    first, second = (VmSite.choose(Lab("intro"), "qemu:///system", "default", "qemu", []) for _ in range(2))
    assert first.domain.startswith("lab-intro-")
    assert first.domain.endswith("-vm")
    assert first.domain != second.domain
    assert set(first.network_xml()) == {first.name, first.nat_name}


def test_the_profiles_box_comes_from_the_users_mirror() -> None:
    box = Box(name="centos/7", version="2004.01", url="https://cloud.example/boxes/7.box", sha256="ab" * 32)
    found = wanted_box(box, Settings(mirrors={"https://cloud.example/": "http://mirror.lan/"}), None)
    assert (found.url, found.name, found.version) == ("http://mirror.lan/boxes/7.box", "centos/7", "2004.01")
    assert found.sha256 == "ab" * 32


def test_a_box_by_name_alone_takes_the_version_that_vagrant_finds() -> None:
    found = wanted_box(Box(name="debian/bookworm64"), Settings(), None)
    assert (found.url, found.version) == (None, None)


def test_a_box_of_ones_own_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "my box (1).box"
    path.write_bytes(b"one")
    first = wanted_box(Box(name="x"), Settings(), str(path))
    path.write_bytes(b"two")
    second = wanted_box(Box(name="x"), Settings(), f"file://{path}")
    assert first.name == second.name == "lab/my-box-1"
    assert first.version != second.version
    assert second.url == path.as_uri()


def test_a_box_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="there is no box"):
        wanted_box(Box(name="x"), Settings(), str(tmp_path / "none.box"))
