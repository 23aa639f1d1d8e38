"""An instance is a machine that runs: seen from Nova, on its console, from inside, and as a process here."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from stacklab.homes.base import Home
from tests.embedded.guests import Guests, alive, guests_of, until

# openstacksdk warns about what its own convenience layer does
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(scope="module")
def guests(cloud_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guests]:
    with guests_of(cloud_home, tmp_path_factory.mktemp("guests"), Guests) as found:
        yield found


def test_a_guest_has_the_address_name_and_key_that_the_cloud_gave_it(guests: Guests) -> None:
    server = guests.start("first", user_data="IyEvYmluL3NoCmVjaG8gdXNlci1kYXRhLW9mLSQoaG9zdG5hbWUpCg==")
    assert guests.run(server, "hostname") == "first"
    address = guests.address(server)
    assert f" inet {address}/24 " in guests.run(server, "ip -4 -o addr show eth0")
    mac = next(iter(server.addresses.values()))[0]["OS-EXT-IPS-MAC:mac_addr"]
    assert guests.run(server, "cat /sys/class/net/eth0/address") == mac
    console = until("the console shows it", lambda: "login:" in guests.console(server) and guests.console(server))
    # The kernel writes its lines whenever it likes, also in the middle of another one.
    console = re.sub(r"\[ *\d+\.\d{6}\] [^\n]*\n", "", console)
    assert f"address {address}/24" in console
    assert "user-data-of-first" in console
    assert "Linux version" in (guests.instances / server.id / "console.log").read_text(errors="replace")
    # the host key that SSH meets is the one that the console showed
    assert guests.run(server, "sudo dropbearkey -y -f /etc/dropbear/ed25519 | grep ^ssh-").split()[1] in console
    guests.delete(server)


def test_a_guest_does_not_reach_the_servers_of_this_machine(guests: Guests) -> None:
    server = guests.start("inside")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for address in ("10.77.0.1", "10.77.0.2", "127.0.0.1"):  # QEMU's gateway and name server; the guest itself
            guests.run(server, f"nc -w 3 {address} {port} </dev/null || true")
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    guests.delete(server)


def test_stop_start_pause_and_reboot(guests: Guests) -> None:
    server = guests.start("life")
    guests.run(server, "echo kept > kept; sync")
    compute = guests.cloud.compute

    first = guests.pid(server)
    compute.stop_server(server)
    guests.wait(server, "SHUTOFF")
    assert not alive(first)
    assert "Power down" in guests.console(server)  # the guest was asked, not cut off
    assert guests.access.ssh_endpoint(server.id) is None

    compute.start_server(server)
    guests.wait(server, "ACTIVE")
    assert guests.run(server, "cat kept") == "kept"

    second = guests.pid(server)
    compute.pause_server(server)
    guests.wait(server, "PAUSED")
    compute.unpause_server(server)
    guests.wait(server, "ACTIVE")
    assert guests.pid(server) == second

    for kind in ("SOFT", "HARD"):
        before = guests.pid(server)
        compute.reboot_server(server, kind)
        until(f"a {kind} reboot", partial(_ended, before))
        guests.wait(server, "ACTIVE")
        assert guests.run(server, "cat kept") == "kept"
    guests.delete(server)


def test_an_interface_comes_and_goes(guests: Guests) -> None:
    server = guests.start("second-leg")
    guests.run(server, "test ! -e /sys/class/net/eth1")
    interface = guests.cloud.compute.create_server_interface(server, net_id=guests.network.id)
    mac = until("the guest has it", lambda: guests.run(server, "cat /sys/class/net/eth1/address || true"))
    assert mac == interface.mac_addr
    guests.run(server, "sudo ip link set eth1 up && sudo udhcpc -q -n -t 10 -i eth1 -s /usr/share/udhcpc/lab")
    assert f" inet {interface.fixed_ips[0]['ip_address']}/" in guests.run(server, "ip -4 -o addr show eth1")
    guests.cloud.compute.delete_server_interface(interface.port_id, server=server)
    until("the guest has lost it", lambda: not guests.run(server, "ls -d /sys/class/net/eth1 || true"))
    guests.delete(server)


def test_a_guest_that_goes_down_by_itself_is_seen(guests: Guests) -> None:
    server = guests.start("selfish")
    guests.run(server, "(sleep 3; sudo poweroff) >/dev/null 2>&1 </dev/null &")  # once ssh has said that all is well
    guests.wait(server, "SHUTOFF")
    guests.delete(server)


def test_nothing_is_left_of_a_deleted_guest(guests: Guests) -> None:
    server = guests.start("gone")
    pid, directory = guests.pid(server), guests.instances / server.id
    assert alive(pid)
    guests.delete(server)
    assert not alive(pid)
    assert not directory.exists()
    assert guests.access.ssh_endpoint(server.id) is None


def test_a_guest_outlives_its_compute_service(guests: Guests) -> None:
    server = guests.start("survivor")
    guests.run(server, "echo still > here")
    pid, way = guests.pid(server), guests.way(server)
    nova = next(service for service in guests.home.status().services if service.name == "nova")
    assert nova.pid is not None
    os.kill(nova.pid, signal.SIGKILL)
    until("nova answers again", lambda: _answers(guests, nova.pid))
    assert guests.pid(server) == pid
    assert guests.way(server) == way
    assert guests.run(server, "cat here") == "still"
    assert "login:" in guests.console(server)
    guests.cloud.compute.stop_server(server)  # and it is under control again
    guests.wait(server, "SHUTOFF")
    guests.delete(server)


def _ended(pid: int) -> bool:
    return not alive(pid)


def _answers(guests: Guests, old: int | None) -> bool:
    now = next(service for service in guests.home.status().services if service.name == "nova")
    if now.pid in (None, old):
        return False
    try:
        return any(True for _ in guests.cloud.compute.services(binary="nova-compute"))
    except Exception:  # noqa: BLE001 - while it comes back it may fail in any way
        return False
