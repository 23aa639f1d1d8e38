"""What the fixes read out of systemctl, ip, SELinux's programs and Nova's answers."""

from __future__ import annotations

import dataclasses

import pytest

from stacklab.conditions import systemd
from stacklab.conditions.instances import Guest, stopped_by_nova
from stacklab.conditions.network import addresses, default_devices, is_up, joined, ports, satisfies
from stacklab.conditions.selinux import module_name, read_booleans, rules
from stacklab.errors import ProfileInvalid
from stacklab.machines.selinux import forced, read_config

SHOWN = """1000.50 1900.10
LoadState=loaded
ActiveState=active
SubState=running
Result=success
UnitFileState=enabled
ActiveEnterTimestampMonotonic=960500000
TriggeredBy=libvirtd.socket libvirtd-ro.socket

LoadState=loaded
ActiveState=failed
SubState=failed
Result=exit-code
UnitFileState=disabled
ActiveEnterTimestampMonotonic=10000000

LoadState=loaded
ActiveState=activating
SubState=auto-restart
Result=exit-code
UnitFileState=enabled
ActiveEnterTimestampMonotonic=0

LoadState=not-found
ActiveState=inactive
SubState=dead
Result=success
UnitFileState=
ActiveEnterTimestampMonotonic=0
"""


def test_units_are_read_in_the_order_of_the_question() -> None:
    up, failed, again, missing = systemd.read_units(SHOWN, ["libvirtd.service", "b.service", "c.service", "d.service"])
    assert (up.running, up.age, up.young(75), up.at_boot) == (True, 40.0, True, True)
    assert up.triggers == ("libvirtd.socket", "libvirtd-ro.socket")
    assert up.said == "active for 40 s"
    assert (failed.failed, failed.running, failed.at_boot, failed.said) == (True, False, False, "failed (exit-code)")
    assert (again.failed, again.starting) == (True, False)
    assert (missing.there, missing.said) == (False, "not there")


def test_an_old_systemd_that_leaves_properties_out_is_understood() -> None:
    (unit,) = systemd.read_units("5.0 1.0\nLoadState=loaded\nActiveState=inactive\n", ["httpd.service"])
    assert (unit.running, unit.failed, unit.at_boot, unit.said) == (False, False, False, "inactive")


def test_an_answer_for_another_number_of_units_is_not_taken() -> None:
    with pytest.raises(ValueError, match="4 units, not 2"):
        systemd.read_units(SHOWN, ["a", "b"])


def test_a_unit_is_old_enough_after_the_watch() -> None:
    first, *_ = systemd.read_units(SHOWN, ["a", "b", "c", "d"])
    assert not dataclasses.replace(first, age=75).young(75)


def test_unit_files_are_found_with_marks_and_columns() -> None:
    listed = "devstack@n-api.service enabled enabled\n● devstack@q-agt.service loaded\n  devstack@.service static\n"
    assert systemd.read_unit_files(listed) == ["devstack@n-api.service", "devstack@q-agt.service"]


def test_units_come_in_the_order_of_stacking_and_unknown_ones_last() -> None:
    there = ["devstack@h-eng.service", "devstack@n-api.service", "devstack@keystone.service"]
    assert systemd.in_order(there, ["etcd", "keystone", "n-api"]) == [
        "devstack@keystone.service",
        "devstack@n-api.service",
        "devstack@h-eng.service",
    ]


def test_watching_tells_the_youngest_and_how_many_are_with_it() -> None:
    first, failed, *_ = systemd.read_units(SHOWN, ["devstack@q-agt.service", "devstack@n-api.service", "c", "d"])
    older = dataclasses.replace(first, name="devstack@n-cpu.service", age=60.0)
    assert systemd.watching([older, first], [], 75) == "watching devstack@q-agt: up for 40 of 75 s, and 1 more"
    assert systemd.watching([older], [failed.name], 75).endswith("; failed: devstack@n-api")


def test_journal_lines_lose_colours_passwords_and_length() -> None:
    text = "\x1b[01;31mERROR\x1b[00m mysql+pymysql://root:s3cret@127.0.0.1/nova\n" + "x" * 400
    shown = systemd.clean(text)
    assert shown.startswith("ERROR mysql+pymysql://root:********@127.0.0.1/nova\n")
    assert shown.endswith("x …")
    assert "s3cret" not in shown


def test_a_bridge_is_up_by_its_flag_not_by_its_state() -> None:
    assert is_up("7: br-ex: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UNKNOWN mode DEFAULT")
    assert not is_up("7: br-ex: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN mode DEFAULT")
    assert not is_up("7: br-ex: <BROADCAST,LOWER_UP> mtu 1500")


def test_addresses_and_default_devices_are_read() -> None:
    assert addresses("7: br-ex    inet 172.24.4.1/24 scope global br-ex\\       valid_lft forever") == ["172.24.4.1/24"]
    assert addresses("") == []
    routes = (
        "default via 192.0.2.1 dev eth0 proto dhcp src 192.0.2.7\ndefault via 192.0.2.1 dev eth1\n10.0.0.0/8 dev x\n"
    )
    assert default_devices(routes) == ["eth0", "eth1"]
    assert default_devices("default dev ppp0 scope link\n") == ["ppp0"]


def test_reserved_ports_count_whatever_way_the_kernel_writes_them() -> None:
    assert ports("1,5-7") == {1, 5, 6, 7}
    assert satisfies("35357-35358", "35357,35358")
    assert satisfies("80,35357-35400", "35357,35358")
    assert not satisfies("", "35357,35358")
    assert not satisfies(None, "1")
    assert satisfies("1", "1")
    assert not satisfies("0", "1")
    assert joined("80", "35357,35358") == "35357,35358,80"
    assert joined("", "35357,35358") == "35357,35358"
    assert joined("0", "1") == "1"


def test_selinux_configuration_and_kernel_command_line_are_read() -> None:
    assert read_config("# SELINUX= can take\nSELINUX=permissive\nSELINUXTYPE=targeted\n") == "permissive"
    assert read_config("SELINUXTYPE=targeted\n") == "enforcing"
    assert forced("root=/dev/vda1 security=selinux enforcing=1 quiet") == "enforcing"
    assert forced("enforcing=1 x enforcing=0") == "permissive"
    assert forced("root=/dev/vda1 noenforcing=1") is None
    assert read_booleans("httpd_can_network_connect --> off\nhttpd_enable_homedirs --> on\n") == {
        "httpd_can_network_connect": False,
        "httpd_enable_homedirs": True,
    }


def test_rules_of_a_module_are_taken_apart() -> None:
    source = """
    module lab_ovsdb 1.0;
    require { type openvswitch_t; type ovsdb_port_t; class tcp_socket name_bind; }
    # allow nothing_t else_t:file read;
    allow openvswitch_t ovsdb_port_t:tcp_socket name_bind;
    allow { a_t b_t } self : process { signal sigkill };
    """
    assert module_name(source) == "lab_ovsdb"
    assert rules(source) == [
        "openvswitch_t:ovsdb_port_t:tcp_socket:name_bind",
        "a_t:a_t:process:signal",
        "a_t:a_t:process:sigkill",
        "b_t:b_t:process:signal",
        "b_t:b_t:process:sigkill",
    ]
    with pytest.raises(ProfileInvalid, match="module NAME VERSION"):
        module_name("allow a_t b_t:file read;")


BOOTED = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@pytest.mark.parametrize(
    ("actions", "nova"),
    [
        ([{"action": "stop", "user_id": None, "start_time": "2023-11-14T22:15:00.000000"}], True),
        ([{"action": "stop", "user_id": None, "start_time": "2023-11-14T22:12:00.000000"}], True),
        ([{"action": "stop", "user_id": None, "start_time": "2023-11-13T22:12:00.000000"}], False),
        ([{"action": "stop", "user_id": "5f", "start_time": "2023-11-14T22:15:00.000000"}], False),
        (
            [{"action": "attach_interface", "user_id": "5f"}, {"action": "stop", "user_id": "5f", "start_time": "x"}],
            False,
        ),
        ([{"action": "create", "user_id": "5f", "start_time": "2023-11-14T21:15:00.000000"}], True),
    ],
    ids=[
        "noticed after boot",
        "noticed going down",
        "shut down from within the day before",
        "by a person",
        "by a person, then more",
        "never stopped",
    ],
)
def test_who_stopped_an_instance_is_told_from_its_actions(actions: list[dict[str, object]], nova: bool) -> None:
    assert stopped_by_nova(actions, BOOTED) is nova


def test_an_instance_is_lost_if_nova_thinks_that_it_runs_or_stopped_it_itself() -> None:
    active = Guest("1", "vm", "ACTIVE", really=False, by_nova=False)
    assert active.lost
    assert active.order == "reboot --hard"
    assert not dataclasses.replace(active, really=True).lost
    assert not dataclasses.replace(active, really=None).lost
    off = Guest("1", "vm", "SHUTOFF", really=False, by_nova=True)
    assert off.lost
    assert off.order == "start"
    assert not dataclasses.replace(off, by_nova=False).lost
    assert not Guest("1", "vm", "ERROR", really=False, by_nova=True).lost


def test_an_instance_is_not_up_before_nova_has_done_with_it() -> None:
    assert Guest("1", "vm", "HARD_REBOOT", really=True, by_nova=False).moving
    assert Guest("1", "vm", "SHUTOFF", really=False, by_nova=True, busy=True).moving
    assert not Guest("1", "vm", "ACTIVE", really=True, by_nova=False).moving
