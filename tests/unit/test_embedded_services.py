"""Ports: free, remembered, and replaced only when somebody else took one."""

from __future__ import annotations

import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stacklab.homes.embedded import services
from stacklab.homes.embedded.https import OwnApache
from stacklab.homes.embedded.layout import Layout

NAMES = ("keystone", "glance", "nova")


def everything_free(port: int) -> bool:
    return True


def test_ports_are_free_and_different() -> None:
    chosen, replaced = services.choose_ports(NAMES, {})
    assert replaced == []
    assert len(set(chosen.values())) == len(NAMES)
    assert all(services.is_free(port) for port in chosen.values())


def test_remembered_ports_are_kept_while_they_are_free() -> None:
    remembered = {"keystone": 20001, "glance": 20002, "nova": 20003}
    assert services.choose_ports(NAMES, remembered, everything_free) == (remembered, [])


def test_a_port_that_somebody_took_is_replaced_and_named() -> None:
    remembered = {"keystone": 20001, "glance": 20002, "nova": 20003}
    chosen, replaced = services.choose_ports(NAMES, remembered, lambda port: port != 20002)
    assert replaced == ["glance"]
    assert chosen["keystone"] == 20001
    assert chosen["glance"] not in remembered.values()


def test_a_port_that_a_program_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not services.is_free(server.getsockname()[1])


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(20000, 20005)), st.sets(st.integers(20000, 20005)))
def test_whatever_is_remembered_or_taken_the_choice_is_usable(remembered: dict[str, int], taken: set[int]) -> None:
    chosen, replaced = services.choose_ports(NAMES, remembered, lambda port: port not in taken)
    assert set(chosen) == set(NAMES)
    assert len(set(chosen.values())) == len(NAMES)
    assert not taken & set(chosen.values())
    assert all(remembered[name] != chosen[name] for name in replaced)


def test_the_port_of_a_virtual_host_is_chosen_once_and_kept_when_somebody_listens_there(tmp_path: Path) -> None:
    """What is shown is pasted by a learner, listens there from then on, and is looked for there by the next `lab check`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        horizon = int(server.getsockname()[1])

        def apache() -> OwnApache:
            return OwnApache(Layout(tmp_path), lambda: {"horizon": horizon})

        shown = apache().port_for("horizon", horizon, ()), apache().plain_port()
        with socket.create_server(("127.0.0.1", shown[0])), socket.create_server(("127.0.0.1", shown[1])):
            assert (apache().port_for("horizon", horizon, ()), apache().plain_port()) == shown
