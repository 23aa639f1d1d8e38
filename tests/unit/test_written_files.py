"""local.conf and the answer file: every line explained, what lab writes is fine, each mistake is told with its line."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacklab.cli.main import run
from stacklab.conditions.services import unit_names
from stacklab.deploy.explained import of_answer_file, of_local_conf
from stacklab.deploy.localconf import check as localconf_check
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.packstack import answers
from stacklab.deploy.packstack import check as answers_check
from stacklab.deploy.profile.load import load_profile, profile_names
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import NotServed, ProfileInvalid, UnknownName
from stacklab.kinds.roles import sorting
from tests.unit.localconf_reader import sections

HOST = "192.0.2.7"
PASSWORDS = {name: f"{name.replace('-', '')}Secret1" for name in (*localconf.SECRETS, *answers.SECRETS)}
SHIPPED = ("centos7-pike", "debian12-2026.1", "rocky9-2026.1")
PACKSTACK = "centos7-pike-packstack"

pytestmark = pytest.mark.usefixtures("own_directories")


def rows(table: str) -> list[Any]:
    """The rows of a table of written_files.yaml."""
    tables = yaml.safe_load(Path(__file__).with_name("written_files.yaml").read_text(encoding="utf-8"))
    return [tuple(row.values()) if isinstance(row, dict) else row for row in tables[table]]


def every_profile() -> Iterator[Profile]:
    """Each with each of its variants."""
    for name in SHIPPED:
        profile = load_profile(name)
        yield profile
        for variant in profile.variants:
            yield profile.with_variants([variant])


def local_conf(profile: Profile, *services: str) -> str:
    return localconf.render(
        profile, Settings(proxy="http://proxy:3128"), services=services, secrets=PASSWORDS, host_ip=HOST
    )


def answer_file(*services: str) -> str:
    return answers.render(load_profile(PACKSTACK), services=services, secrets=PASSWORDS, host_ip=HOST)


# --- every line is explained -----------------------------------------------------------------------------------------------


def choices(profile: Profile) -> Iterator[list[str]]:
    """No service, each of them, all of them."""
    yield []
    yield from ([service] for service in profile.served)
    yield profile.served


def test_every_line_of_every_local_conf_is_explained_and_right() -> None:
    explanations, explained = of_local_conf(), 0
    for profile in every_profile():
        for services in choices(profile):
            text = local_conf(profile, *services)
            explained += sum(bool(why) for _, why in explanations.tell(text))
            assert graded(text) == []
    assert explained > 500


def test_every_line_of_the_answer_file_is_explained_and_right() -> None:
    for services in choices(load_profile(PACKSTACK)):
        text = answer_file(*services)
        assert sum(bool(why) for _, why in of_answer_file().tell(text)) > 40
        assert graded_answers(text) == []


def test_a_line_that_nothing_explains_is_named() -> None:
    with pytest.raises(KeyError, match="SOMETHING_NEW=1"):
        list(of_local_conf().tell("[[local|localrc]]\nSOMETHING_NEW=1\n"))


# --- local.conf ------------------------------------------------------------------------------------------------------------


def graded(text: str) -> list[str]:
    return [str(complaint) for complaint in localconf_check.check(text, addresses=[HOST])]


def test_sections_are_found_as_another_reader_finds_them() -> None:
    text = local_conf(load_profile("centos7-pike").with_variants(["vsctl"]))
    ours = {part.head: [line for _, line in part.body] for part in localconf_check.sections(text)[1:]}
    assert ours == {head: body.splitlines() for head, body in sections(text).items()}


GOOD = f"""[[local|localrc]]
ADMIN_PASSWORD=secret1
DATABASE_PASSWORD=secret2
RABBIT_PASSWORD=secret3
SERVICE_PASSWORD=secret4
HOST_IP={HOST}
LOGFILE=/opt/stack/logs/stack.sh.log
disable_service tempest
[[post-config|$NOVA_CONF]]
[DEFAULT]
debug = True
"""


@pytest.mark.parametrize(("was", "now", "says"), rows("local.conf"))
def test_each_mistake_in_a_local_conf_is_told_with_its_line(was: str, now: str, says: str) -> None:
    assert graded(GOOD) == []
    assert was in GOOD
    complaints = graded(GOOD.replace(was, now, 1))
    assert any(re.match(says.replace("?", "[?]"), complaint) for complaint in complaints), complaints
    assert not any("secret" in complaint for complaint in complaints)  # a password is never quoted


@pytest.mark.parametrize("line", rows("taken by DevStack"))
def test_what_devstack_takes_is_no_mistake(line: str) -> None:
    assert graded(GOOD.replace("LOGFILE=/opt/stack/logs/stack.sh.log", line)) == []


@pytest.mark.parametrize(("was", "now"), rows("left to bash"))
def test_what_only_bash_could_tell_is_left_to_it(was: str, now: str) -> None:
    assert graded(GOOD.replace(was, now)) == []


def test_what_bash_cannot_read_is_told_with_the_files_own_line() -> None:
    text = GOOD.replace("disable_service tempest", "if true; then")
    part = localconf_check.shell_part(text)
    done = subprocess.run(["bash", "-n"], input=part, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    (complaint,) = localconf_check.misread(text, done.stderr)
    assert complaint.line >= 8
    assert "syntax error" in complaint.text


# --- the answer file -------------------------------------------------------------------------------------------------------


def graded_answers(text: str) -> list[str]:
    return [str(complaint) for complaint in answers_check.check(text, addresses=[HOST])]


def test_answers_are_read_back_as_they_were_meant() -> None:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(answer_file("swift", "heat"))
    read = parser["general"]
    assert read["CONFIG_KEYSTONE_ADMIN_PW"] == PASSWORDS["admin"]
    assert read["CONFIG_MARIADB_PW"] == PASSWORDS["database"]
    assert {read[f"CONFIG_{key}"] for key in ("CONTROLLER_HOST", "COMPUTE_HOSTS", "AMQP_HOST")} == {HOST}
    assert (read["CONFIG_SWIFT_INSTALL"], read["CONFIG_HEAT_INSTALL"]) == ("y", "y")
    parser.read_string(answer_file())
    assert parser["general"]["CONFIG_SWIFT_INSTALL"] == "n"


@pytest.mark.parametrize(("was", "now", "says"), rows("answer file"))
def test_each_mistake_in_an_answer_file_is_told_with_its_line(was: str, now: str, says: str) -> None:
    good = answer_file()
    assert was in good
    changed = good.replace(was, now, 1)
    pattern = "".join(re.escape(part) if part != ".*" else part for part in re.split(r"(\.\*)", says))
    complaints = graded_answers(changed)
    expected = [complaint for complaint in complaints if re.search(pattern, complaint)]
    assert expected, complaints
    assert "Secret1" not in "".join(complaints)
    line = int(expected[0].partition(":")[0].removeprefix("line "))
    assert 0 < line <= len(changed.splitlines())


@pytest.mark.parametrize("password", ["two\nlines", "a b", "per%cent", 'quo"te', "semi;colon", "ünïcödé"])
def test_a_value_that_packstack_would_read_otherwise_is_refused_and_not_told(password: str) -> None:
    with pytest.raises(ProfileInvalid) as caught:
        answers.render(load_profile(PACKSTACK), secrets=dict.fromkeys(answers.SECRETS, password), host_ip=HOST)
    assert password not in caught.value.message


def test_what_packstack_does_not_install_is_refused() -> None:
    with pytest.raises(NotServed, match="PackStack does not install it"):
        answer_file("barbican")
    with pytest.raises(UnknownName):
        answer_file("swfit")
    with pytest.raises(NotServed, match="no profile deploys debian 12 with PackStack"):
        answers.profile_like(load_profile("debian12-2026.1"))
    assert answers.profile_like(load_profile("centos7-pike")).name == PACKSTACK


def test_lab_render_shows_the_answer_file_of_the_same_machine_without_passwords(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["render", "answer-file", "--profile", "centos7-pike", "--with", "heat"]) == 0
    out = capsys.readouterr().out
    assert "CONFIG_HEAT_INSTALL=y" in out
    assert out.count("********") == 4
    assert run(["render", "answer-file", "--profile", "debian12-2026.1"]) == 43


# --- the profile, and the roles ---------------------------------------------------------------------------------------------


def test_every_unit_of_every_profile_has_its_role() -> None:
    known = sorting().services
    for name in profile_names():
        missing = [unit for unit in unit_names(load_profile(name)) if unit not in known]
        assert missing == [], name
        roles = {role for unit in unit_names(load_profile(name)) for role in known[unit].roles}
        assert roles == {"controller", "network", "compute", "storage"}


def test_real_names_are_the_units_names() -> None:
    units = unit_names(load_profile(PACKSTACK))
    assert units["openstack-nova-compute"] == "openstack-nova-compute.service"
    assert not [unit for unit in units.values() if unit.startswith("devstack@")]
