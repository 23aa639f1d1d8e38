"""What session 2's services stand on, looked at on a real Debian with real MariaDB and RabbitMQ, filled as DevStack does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.course.load import load_session
from stacklab.kinds.context import Workspace
from stacklab.machines.address import Address
from stacklab.machines.site import Site
from stacklab.machines.ssh import SshMachine
from stacklab.replay.check import Grade, check
from tests.machine.test_fixes import PACKAGES
from tests.systems import System, missing, system
from tests.workspaces import workspace_on

SESSION = load_session("session2")

# lib/databases/mysql and lib/rpc_backend of DevStack: there is a login with a password, which is kept in ~/.my.cnf of the stack
# user; Nova's cells have a virtual host of their own.
FILL = """
for name in keystone neutron nova_api nova_cell0 nova_cell1; do mysql -e "CREATE DATABASE $name"; done
mysql -e "CREATE USER 'stacker'@'localhost' IDENTIFIED BY 'a-password'; GRANT ALL ON *.* TO 'stacker'@'localhost'"
mkdir -p /opt/stack
printf '[client]\\nuser=stacker\\npassword=a-password\\n' > /opt/stack/.my.cnf
chmod 600 /opt/stack/.my.cnf
rabbitmqctl -q add_vhost nova_cell1
"""
QUEUE = """
rabbitmqctl -q eval '
    rabbit_amqqueue:declare({resource, <<"nova_cell1">>, queue, <<"conductor">>}, false, false, [], none, <<"us">>).'
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if why := missing():
        pytest.skip(why)
    with system(tmp_path_factory.mktemp("session2"), PACKAGES) as running:
        running.ssh("systemctl start mariadb rabbitmq-server", user="root", seconds=600)
        running.ssh(FILL, user="root", seconds=600)
        yield running


@pytest.fixture
def workspace(debian: System, own_directories: Path) -> Iterator[Workspace]:
    """The machine as the site of a cloud whose API nobody asks."""
    address = Address(debian.address, debian.user)
    machine = SshMachine(address, known_hosts=debian.known_hosts, key=debian.key)
    names = {"apache": "apache2", "database": "mariadb", "queue": "rabbitmq-server"}
    yield workspace_on(Site(machine, "/var/lib/stacklab", "devstack", names=names), SESSION, own_directories)
    machine.close()


def graded(workspace: Workspace, step: str) -> Grade:
    return check(workspace, [SESSION.step(step)]).grades[0]


def test_the_time_source_of_a_container_is_its_host(workspace: Workspace) -> None:
    grade = graded(workspace, "time")
    assert (grade.status, "its host's" in grade.actual) == ("passed", True), grade


def test_the_databases_are_listed_with_the_login_that_devstack_left(workspace: Workspace, debian: System) -> None:
    assert graded(workspace, "database").status == "passed"
    debian.ssh("mysql -e 'DROP DATABASE neutron'", user="root")
    grade = graded(workspace, "database")
    debian.ssh("mysql -e 'CREATE DATABASE neutron'", user="root")
    assert (grade.status, "neutron" in grade.actual) == ("failed", True), grade


def test_a_database_server_that_does_not_run_fails(workspace: Workspace, debian: System) -> None:
    debian.ssh("systemctl stop mariadb", user="root")
    grade = graded(workspace, "database")
    debian.ssh("systemctl start mariadb", user="root")
    assert grade.status == "failed", grade
    assert "a-password" not in grade.actual


def test_the_queue_is_well_when_nova_s_conductor_has_its_queue(workspace: Workspace, debian: System) -> None:
    assert graded(workspace, "queue").status == "failed"  # it runs, but nobody has connected
    debian.ssh(QUEUE, user="root")
    grade = graded(workspace, "queue")
    assert (grade.status, "conductor" in grade.actual) == ("passed", True), grade
    debian.ssh("systemctl stop rabbitmq-server", user="root")
    assert graded(workspace, "queue").status == "failed"
