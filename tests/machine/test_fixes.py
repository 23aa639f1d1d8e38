"""The fixes on a real Debian with systemd: Apache, memcached, MariaDB, RabbitMQ, Open vSwitch and libvirtd are the real ones.

DevStack's own units are stand-ins (a unit that sleeps, a unit that dies), because a whole DevStack takes half an hour; the
acceptance test runs the same code on one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stacklab.conditions.catalogue import AFTER_REBOOT, ConditionCatalogue, stages
from stacklab.conditions.condition import Finding
from stacklab.conditions.machine import Target
from stacklab.conditions.runner import RepairOutcome, all_well, repair
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Recovery
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import ServiceFailed
from stacklab.events import Event, StageEnded, StageMoved
from stacklab.lab import Lab
from stacklab.machines.address import Address
from stacklab.machines.base import Machine
from stacklab.machines.ssh import SshMachine
from tests.systems import System, missing, system

PACKAGES = (
    *("libvirt-daemon-system", "mariadb-server", "openvswitch-switch", "ovn-central", "ovn-host", "rabbitmq-server"),
)
"""Also those of test_faults, so that both work on one root file system."""
STAYS = "exec sleep infinity"
WATCH_SECONDS = 12
"""How long a unit must stay up here; on a learner's machine it is 75 s, enough for DevStack's slowest agent."""
DIES = "sleep 4; echo 'Could not retrieve schema from tcp:127.0.0.1:6640: Connection refused' >&2; exit 1"
PROXY = """
<Proxy balancer://front>
  BalancerMember http://127.0.0.1:5999 retry=600
  ProxySet forcerecovery=Off
</Proxy>
ProxyPass /identity balancer://front/
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if why := missing():
        pytest.skip(why)
    with system(tmp_path_factory.mktemp("fixes"), PACKAGES) as running:
        # No kernel module here: the userspace datapath. The bridge itself survives a reboot, as on every DevStack.
        running.ssh(
            "cd /var/www/html; mkdir identity dashboard; cp index.html identity; cp index.html dashboard", user="root"
        )
        running.ssh("ovs-vsctl --may-exist add-br br-ex -- set bridge br-ex datapath_type=netdev", user="root")
        yield running


@pytest.fixture(scope="module")
def machine(debian: System) -> Iterator[SshMachine]:
    address = Address(debian.address, debian.user)
    reached = SshMachine(address, known_hosts=debian.known_hosts, key=debian.key)
    yield reached
    reached.close()


@pytest.fixture
def deployment(machine: SshMachine, own_directories: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """The machine with two healthy units, keystone and q-agt, that are gone afterwards."""
    shipped = load_profile("debian12-2026.1")
    units = shipped.units.model_copy(
        update={
            "devstack": ["keystone", "q-agt"],
            "network_agent": "q-agt",
            "switch": ["openvswitch-switch"],
            "watch_seconds": WATCH_SECONDS,
        }
    )
    settings = {"net.ipv4.ip_forward": "1", "net.ipv4.ip_local_reserved_ports": "35357,35358"}
    recovery = Recovery(sysctl=settings, start_instances=False)
    profile = shipped.model_copy(update={"units": units, "recovery": recovery})
    for name in profile.units.devstack:
        unit(machine, name, STAYS)
    yield Deployment(Lab("intro"), profile, machine, "192.0.2.1", Settings())
    for name in profile.units.devstack:
        machine.script(
            f"systemctl disable --now devstack@{name}; rm /etc/systemd/system/devstack@{name}.service", user="root"
        )
    machine.run("systemctl", "daemon-reload", user="root")


def unit(machine: Machine, name: str, command: str) -> None:
    """A devstack@ unit as DevStack writes them (one file each, no Restart), enabled and started."""
    text = f'[Service]\nExecStart=/bin/sh -c "{command}"\nKillMode=process\n[Install]\nWantedBy=multi-user.target\n'
    machine.put(f"/etc/systemd/system/devstack@{name}.service", text)
    machine.script(
        f"systemctl daemon-reload; systemctl enable devstack@{name}; systemctl restart devstack@{name}", user="root"
    )


def ignored(event: Event) -> None:
    """Nobody looks."""


def catalogue(deployment: Deployment) -> ConditionCatalogue:
    return ConditionCatalogue(Target(lambda: deployment))


def check(deployment: Deployment, fix: str) -> Finding:
    return catalogue(deployment)[fix].look()


def apply(deployment: Deployment, *fixes: str) -> list[RepairOutcome]:
    return repair(catalogue(deployment).these(fixes), ignored)


@pytest.mark.parametrize(
    ("fix", "unit_name"),
    [("apache", "apache2"), ("memcached", "memcached"), ("database", "mariadb"), ("queue", "rabbitmq-server")],
)
def test_a_stopped_and_disabled_service_is_found_started_and_enabled(
    deployment: Deployment, fix: str, unit_name: str
) -> None:
    deployment.machine.run("systemctl", "disable", "--now", unit_name, user="root")
    found = check(deployment, fix)
    assert found.state == "bad"
    assert found.evidence == f"{unit_name} is inactive, and will not start at boot (disabled)"

    (outcome,) = apply(deployment, fix)
    assert (outcome.result, outcome.changed) == ("done", True), outcome.after.evidence
    assert "starts at boot" in outcome.after.evidence
    assert "answers on port" in outcome.after.evidence
    said = (
        deployment.machine.run("systemctl", "is-active", unit_name).out
        + deployment.machine.run("systemctl", "is-enabled", unit_name).out
    )
    assert said.split() == ["active", "enabled"]

    (second,) = apply(deployment, fix)
    assert (second.result, second.changed) == ("already", False)


def test_a_service_that_runs_and_is_only_not_enabled_goes_on_running(deployment: Deployment) -> None:
    apply(deployment, "memcached")
    before = deployment.machine.run("systemctl", "show", "-p", "MainPID", "memcached").out
    deployment.machine.run("systemctl", "disable", "memcached", user="root")
    assert "will not start at boot" in check(deployment, "memcached").evidence
    apply(deployment, "memcached")
    assert check(deployment, "memcached").state == "good"
    assert deployment.machine.run("systemctl", "show", "-p", "MainPID", "memcached").out == before


def test_a_masked_service_is_unmasked(deployment: Deployment) -> None:
    deployment.machine.run("systemctl", "mask", "--now", "memcached", user="root")
    assert "masked" in check(deployment, "memcached").evidence
    (outcome,) = apply(deployment, "memcached")
    assert outcome.result == "done", outcome.after.evidence


def test_a_service_that_cannot_start_is_reported_with_its_journal(deployment: Deployment) -> None:
    deployment.machine.put("/etc/apache2/conf-enabled/broken.conf", "ThisIsNoDirective\n")
    try:
        deployment.machine.run("systemctl", "stop", "apache2", user="root")
        (outcome,) = apply(deployment, "apache")
        assert outcome.result == "failed"
        with pytest.raises(ServiceFailed, match="apache"):
            all_well([outcome])
        assert "ThisIsNoDirective" in check(deployment, "apache").evidence
    finally:
        deployment.machine.run("rm", "/etc/apache2/conf-enabled/broken.conf", user="root")
    (outcome,) = apply(deployment, "apache")
    assert outcome.result == "done", outcome.after.evidence


def test_a_service_that_is_not_installed_is_no_surprise(deployment: Deployment) -> None:
    units = deployment.profile.units.model_copy(update={"apache": "httpd"})
    elsewhere = replace(deployment, profile=deployment.profile.model_copy(update={"units": units}))
    assert check(elsewhere, "apache") == Finding(
        "bad", "there is no unit httpd.service on this machine: stack.sh (lab up) installs it"
    )
    (outcome,) = apply(elsewhere, "apache")
    assert outcome.result == "failed"
    assert outcome.after.evidence == outcome.before.evidence


def test_a_daemon_at_rest_behind_its_socket_is_well(deployment: Deployment) -> None:
    deployment.machine.script(
        "systemctl start libvirtd.socket; systemctl stop libvirtd.service", user="root", check=False
    )
    deployment.machine.run("systemctl", "start", "libvirtd.socket", user="root")
    assert deployment.machine.run("systemctl", "is-active", "libvirtd", check=False).out.strip() == "inactive"
    assert check(deployment, "switch").state == "good"
    deployment.machine.run(
        "systemctl", "stop", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", user="root"
    )
    deployment.machine.run("systemctl", "stop", "openvswitch-switch", user="root")
    found = check(deployment, "switch")
    assert found.state == "bad"
    assert {line.split()[0] for line in found.evidence.splitlines()} == {"openvswitch-switch", "libvirtd"}
    (outcome,) = apply(deployment, "switch")
    assert outcome.result == "done", outcome.after.evidence


def test_the_public_bridge_gets_its_address_back(deployment: Deployment) -> None:
    deployment.machine.script("ip addr flush dev br-ex; ip link set br-ex down", user="root")
    found = check(deployment, "bridge")
    assert found == Finding("bad", "br-ex is down, with no address; it should be up, with 172.24.4.1/24")
    (outcome,) = apply(deployment, "bridge")
    assert outcome.after == Finding("good", "br-ex is up, with 172.24.4.1/24")
    assert deployment.machine.run("ping", "-c1", "-W2", "172.24.4.1", user="root").ok
    (second,) = apply(deployment, "bridge")
    assert second.result == "already"


def test_a_bridge_that_is_not_there_is_said_to_be_the_switchs_affair(deployment: Deployment) -> None:
    cloud = deployment.profile.cloud.model_copy(update={"bridge": "br-nowhere"})
    elsewhere = replace(deployment, profile=deployment.profile.model_copy(update={"cloud": cloud}))
    (outcome,) = apply(elsewhere, "bridge")
    assert outcome.result == "failed"
    assert "no bridge br-nowhere" in outcome.before.evidence


def test_forwarding_is_set_now_and_for_good_and_others_ports_stay_reserved(deployment: Deployment) -> None:
    deployment.machine.script(
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.ip_local_reserved_ports=8080; rm -f /etc/sysctl.d/60-stacklab.conf",
        user="root",
    )
    found = check(deployment, "forwarding")
    assert found.state == "bad"
    assert found.evidence.splitlines() == [
        "net.ipv4.ip_forward is 0, not 1",
        "net.ipv4.ip_local_reserved_ports is 8080, not 35357,35358",
    ]
    (outcome,) = apply(deployment, "forwarding")
    assert outcome.after == Finding("good", "net.ipv4.ip_forward=1; net.ipv4.ip_local_reserved_ports=8080,35357-35358")
    assert b"net.ipv4.ip_forward = 1\n" in (deployment.machine.read("/etc/sysctl.d/60-stacklab.conf") or b"")
    assert apply(deployment, "forwarding")[0].result == "already"


def test_a_kernel_without_a_setting_is_told(deployment: Deployment) -> None:
    recovery = Recovery(sysctl={"net.nowhere.such-setting": "1"})
    elsewhere = replace(deployment, profile=deployment.profile.model_copy(update={"recovery": recovery}))
    (outcome,) = apply(elsewhere, "forwarding")
    assert outcome.result == "failed"
    assert "not there" in outcome.before.evidence
    assert "net.nowhere.such-setting" in outcome.after.evidence or "such-setting" in outcome.after.evidence


def test_the_nat_rule_comes_back_once(deployment: Deployment) -> None:
    deployment.machine.run("iptables", "-t", "nat", "-F", "POSTROUTING", user="root")
    assert check(deployment, "masquerade") == Finding("bad", "172.24.4.0/24 is not masqueraded on host0")
    assert apply(deployment, "masquerade")[0].result == "done"
    assert apply(deployment, "masquerade")[0].result == "already"
    rules = deployment.machine.run("iptables", "-t", "nat", "-S", "POSTROUTING", user="root").lines
    assert rules.count("-A POSTROUTING -s 172.24.4.0/24 -o host0 -j MASQUERADE") == 1


def test_apache_that_gave_a_service_up_is_started_anew(deployment: Deployment) -> None:
    """A balancer remembers a dead member (here for 600 s) and answers 503 although it is well again."""
    machine = deployment.machine
    machine.put("/etc/apache2/conf-enabled/front.conf", PROXY)
    machine.script("a2enmod -q proxy_http proxy_balancer lbmethod_byrequests; systemctl restart apache2", user="root")
    try:
        assert "/identity: 503" in check(deployment, "front").evidence
        machine.script(
            "mkdir -p /srv/front; systemd-run -q --unit=front python3 -m http.server -d /srv/front 5999\n"
            "for i in $(seq 50); do ! curl -sf http://127.0.0.1:5999/ || exit 0; sleep 0.2; done; exit 1",
            user="root",
        )
        found = check(deployment, "front")
        assert found.state == "bad", "it is well again, and Apache does not know"
        (outcome,) = apply(deployment, "front")
        assert outcome.result == "done", outcome.after.evidence
        assert "/identity: 200" in outcome.after.evidence
    finally:
        machine.script(
            "systemctl stop front || :; rm -f /etc/apache2/conf-enabled/front.conf; systemctl restart apache2",
            user="root",
        )


def test_selinux_is_none_of_debians_business(deployment: Deployment) -> None:
    assert check(deployment, "selinux") == Finding("not_applicable", "this distribution comes without SELinux")
    (outcome,) = apply(deployment, "selinux")
    assert outcome.result == "skipped"


def test_an_agent_that_fails_again_while_it_is_watched_is_caught_and_the_healthy_unit_is_not_touched(
    deployment: Deployment,
) -> None:
    machine = deployment.machine
    unit(machine, "q-agt", "exit 1")
    found = check(deployment, "network-agent")
    assert found.state == "bad"
    assert found.evidence.startswith("devstack@q-agt is failed (exit-code)")

    unit(machine, "q-agt", DIES)
    machine.run("systemctl", "stop", "devstack@q-agt", user="root")
    # `units` waits and looks again only where a unit is young, and the fixture's may not be any more.
    machine.run("systemctl", "restart", "devstack@keystone", user="root")
    before = machine.run("systemctl", "show", "-p", "MainPID", "devstack@keystone").out
    told: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, StageMoved):
            told.append(event.detail)

    outcomes = repair(catalogue(deployment).these(("network-agent", "units")), emit)
    assert [outcome.result for outcome in outcomes] == ["failed", "failed"]
    assert "Connection refused" in outcomes[0].after.evidence, "the journal's end is the evidence"
    assert any("systemctl restart devstack@q-agt.service" in line for line in told)
    assert any(f"of {WATCH_SECONDS} s" in line for line in told)
    assert machine.run("systemctl", "show", "-p", "MainPID", "devstack@keystone").out == before
    with pytest.raises(ServiceFailed, match="Connection refused"):
        all_well(outcomes)

    unit(machine, "q-agt", STAYS)
    machine.run("systemctl", "kill", "-s", "KILL", "devstack@q-agt", user="root")
    machine.script("for i in $(seq 50); do ! systemctl is-failed devstack@q-agt || exit 0; sleep 0.1; done; exit 1")
    outcomes = apply(deployment, "network-agent", "units")
    assert [outcome.changed for outcome in outcomes] == [True, False], "one repair, one watch for both"
    assert all(outcome.after.state == "good" for outcome in outcomes)
    assert check(deployment, "network-agent").state == "good"


def test_a_unit_that_is_up_for_seconds_only_is_not_yet_called_well(deployment: Deployment) -> None:
    deployment.machine.run("systemctl", "restart", "devstack@q-agt", user="root")
    found = check(deployment, "network-agent")
    assert found.state == "unknown"
    assert "too early to tell" in found.evidence


def test_a_machine_without_devstacks_units_is_broken_not_well(deployment: Deployment) -> None:
    for name in deployment.profile.units.devstack:
        deployment.machine.run("rm", f"/etc/systemd/system/devstack@{name}.service", user="root")
        deployment.machine.run("systemctl", "daemon-reload", user="root")
    try:
        assert check(deployment, "stack-units").state == "bad"
        assert check(deployment, "network-agent").state == "bad"
    finally:
        for name in deployment.profile.units.devstack:
            unit(deployment.machine, name, STAYS)


def test_the_stage_of_lab_up_repairs_what_stacking_left_and_then_has_nothing_to_do(deployment: Deployment) -> None:
    (stage,) = stages(deployment)
    deployment.machine.run("systemctl", "disable", "--now", "apache2", "memcached", user="root")
    assert stage.already() is None
    assert stage.run(lambda _: None) == "repaired: apache, memcached"
    assert stage.already() is not None


def test_recovery_after_a_real_reboot_puts_everything_back_and_then_changes_nothing(
    debian: System, deployment: Deployment
) -> None:
    machine = deployment.machine
    apply(deployment, "apache", "database", "queue", "switch", "bridge", "forwarding", "masquerade")
    # What stack.sh never does, and what the first recovery does for good.
    machine.script("systemctl disable apache2 memcached; rm -f /etc/sysctl.d/60-stacklab.conf", user="root")
    debian.reboot()
    machine.close()
    for fix in ("apache", "memcached", "bridge", "masquerade"):
        assert check(deployment, fix).state == "bad", fix
    # Units have no ordering: one did not come up.
    machine.run("systemctl", "stop", "devstack@keystone", user="root")

    events: list[StageEnded] = []

    def emit(event: Event) -> None:
        if isinstance(event, StageEnded):
            events.append(event)

    outcomes = repair(catalogue(deployment).these(AFTER_REBOOT), emit)
    said = {outcome.condition.id: f"{outcome.result}: {outcome.after.evidence}" for outcome in outcomes}
    results = {outcome.condition.id: outcome.result for outcome in outcomes}
    assert "failed" not in results.values(), said
    assert [event.stage for event in events] == list(results), "one line for each fix, in order"
    for fix in ("apache", "memcached", "bridge", "masquerade", "stack-units"):
        assert results[fix] == "done", (fix, said[fix])
    assert results["database"] == results["queue"] == "already", said
    assert all_well(outcomes).startswith("repaired: apache, memcached,")

    before = state(machine)
    again = apply(deployment, *AFTER_REBOOT)
    assert not any(outcome.changed for outcome in again)
    assert all_well(again).startswith("nothing to do")
    assert state(machine) == before


def state(machine: Machine) -> str:
    """What a needless repair would change: processes, addresses, rules, files."""
    return machine.script(
        "for u in apache2 memcached mariadb rabbitmq-server openvswitch-switch devstack@keystone devstack@q-agt; do\n"
        "  systemctl show -p Id,MainPID,ActiveEnterTimestampMonotonic,UnitFileState $u\n"
        "done; ip -o addr show dev br-ex | sort; iptables -t nat -S\n"
        "sysctl net.ipv4.ip_forward; ls -l --time-style=full-iso /etc/sysctl.d",
        user="root",
    ).out
