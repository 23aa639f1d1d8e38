"""local.conf and the answer file: every line explained, what lab writes is fine, each mistake is told with its line."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Iterator

import pytest

from stacklab.cli.main import run
from stacklab.conditions.services import unit_names
from stacklab.deploy.explained import of_local_conf
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
            for line in explanations.tell(text):
                assert line.why or not line.line.strip() or line.line.startswith("#"), line
                explained += bool(line.why)
            assert graded(text) == []
    assert explained > 500


def test_every_line_of_the_answer_file_is_explained_and_right() -> None:
    for services in choices(load_profile(PACKSTACK)):
        text = answer_file(*services)
        assert sum(bool(line.why) for line in answers.explanations().tell(text)) > 40
        assert graded_answers(text) == []


def test_a_line_that_nothing_explains_is_named() -> None:
    with pytest.raises(KeyError, match="SOMETHING_NEW=1"):
        of_local_conf().tell("[[local|localrc]]\nSOMETHING_NEW=1\n")


# --- local.conf ------------------------------------------------------------------------------------------------------------


def graded(text: str) -> list[str]:
    told = of_local_conf()
    found = localconf_check.check(text, addresses=[HOST], known=told.names, values=told.values)
    return [str(one) for one in found]


def test_sections_are_found_as_another_reader_finds_them() -> None:
    text = local_conf(load_profile("centos7-pike").with_variants(["vsctl"]))
    ours = {part.head: [line for _, line in part.body] for part in localconf_check.sections(text)[1]}
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


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("[[local|localrc]]", "[local|localrc]", "line 1: .*opens no section"),
        ("[[local|localrc]]", " [[local|localrc]]", "line 1: .*opens no section"),
        ("[[local|localrc]]", "[[locale|localrc]]", "line 1: .*group 'locale': local?"),
        ("[[local|localrc]]", "[[local|localc]]", "line 1: .*not 'localc'"),
        ("[[local|localrc]]", "FOO=1\n[[local|localrc]]", "line 1: .*never reads it"),
        ("[[post-config|", "[[post-conf|", "line 9: .*'post-conf': post-config?"),
        ("[[post-config|$NOVA_CONF]]", "[post-config|$NOVA_CONF]", "line 9: .*opens no section"),
        ("ADMIN_PASSWORD=secret1\n", "", "ADMIN_PASSWORD is not set"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD=", "line 2: ADMIN_PASSWORD is empty"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASWORD=secret1", "line 2: .*is ADMIN_PASSWORD meant"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD='********'", "line 2: .*asterisks"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD='a/b@c'", "line 2: .*letters and digits alone"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD = secret1", "line 2: .*no blank beside '='"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD=my secret", "line 2: .*needs quotes"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD='secret1", "line 2: .*not closed"),
        ("RABBIT_PASSWORD=secret3\n", "", "RABBIT_PASSWORD is not set"),
        (f"HOST_IP={HOST}\n", "", "HOST_IP is not set"),
        (f"HOST_IP={HOST}", f"HOST_IP={HOST}\r", "line 6: lines end as on Windows"),
        (f"HOST_IP={HOST}", "HOST_IP=192.0.2.8", "line 6: .*no address of the machine"),
        (f"HOST_IP={HOST}", "HOST_IP=127.0.0.1", "line 6: .*loopback"),
        (f"HOST_IP={HOST}", "HOST_IP=devstack", "line 6: .*no IPv4 address"),
        (f"HOST_IP={HOST}", f"HOST_IP={HOST}\nHOST_IP={HOST}", "line 7: HOST_IP is set a second time .first on line 6"),
        ("LOGFILE=", "FLOATING_RANGE=192.0.2.0/24\nLOGFILE=", "line 7: HOST_IP lies in FLOATING_RANGE"),
        ("LOGFILE=", "FLOATING_RANGE=172.24.4.1/24\nLOGFILE=", "line 7: .*no network"),
        ("LOGFILE=", "FIXED_RANGE=10.0.0.0/8\nFLOATING_RANGE=10.1.0.0/16\nLOGFILE=", "line 7: .*in common"),
        ("LOGFILE=", "LIBVIRT_TYPE=qem\nLOGFILE=", "line 7: LIBVIRT_TYPE is 'qem', and has to be one of kvm, qemu, "),
        ("LOGFILE=", "IP_VERSION=5\nLOGFILE=", "line 7: IP_VERSION is '5', and has to be one of 4, 6, "),
        ("LOGFILE=", "LOG_COLOR=Flase\nLOGFILE=", "line 7: LOG_COLOR is 'Flase', and has to be True or False"),
        ("LOGFILE=", "API_WORKERS=one\nLOGFILE=", "line 7: API_WORKERS is 'one', and has to be a whole number"),
        ("LOGFILE=", "VOLUME_BACKING_FILE_SIZE=much\nLOGFILE=", "line 7: .* has to be a size like 24G"),
        (
            "LOGFILE=",
            "SERVICE_HOST=$HOSTIP\nLOGFILE=",
            "line 7: SERVICE_HOST: nothing sets [$]HOSTIP.* is [$]HOST_IP meant",
        ),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD=$OF_MINE", "line 2: .*nothing above sets its variable"),
        (
            "DATABASE_PASSWORD=secret2",
            "DATABASE_PASSWORD=$RABBIT_PASSWORD",
            "line 3: .*nothing above sets its variable",
        ),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD=$secret1", "line 2: .*nothing above sets its variable"),
        (
            "ADMIN_PASSWORD=secret1",
            "ADMIN_PASSWORD=$RABIT_PASSWORD",
            "line 2: .*its variable.* is [$]RABBIT_PASSWORD meant",
        ),
        ("LOGFILE=", "LIBVIRT_TYPE=qem # see $X\nLOGFILE=", "line 7: LIBVIRT_TYPE is 'qem'"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD=p#w", "line 2: .*letters and digits alone"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD=secret$$", "line 2: .*bash puts something else where the [$] is"),
        ("disable_service tempest", "disable_servce tempest", "line 8: .*disable_service?"),
        ("disable_service tempest", "disable_service", "line 8: .*names no service"),
        ("disable_service tempest", "enable_plugin heat", "line 8: enable_plugin needs"),
        ("disable_service tempest", "tempest off", "line 8: bash would run 'tempest'"),
        ("debug = True", "debug True", "line 11: .*name = value"),
        ("[DEFAULT]\n", "", "line 10: .*has to come first"),
    ],
)
def test_each_mistake_in_a_local_conf_is_told_with_its_line(was: str, now: str, says: str) -> None:
    assert graded(GOOD) == []
    assert was in GOOD
    found = graded(GOOD.replace(was, now, 1))
    assert any(re.match(says.replace("?", "[?]"), one) for one in found), found
    assert not any("secret" in one for one in found)  # a password is never quoted


@pytest.mark.parametrize(
    "line",
    [
        "LIBVIRT_TYPE=kvm",
        "LIBVIRT_TYPE=kvm # as fast as it can",
        "SERVICE_HOST='#x'",
        "SERVICE_HOST=192.0.2.7 # not $HOSTIP, and it's as good",
        'API_WORKERS=2\nGIT_BASE="5\\" # y"',
        "GIT_BASE=it\\'s # y",
        "VOLUME_BACKING_FILE_SIZE=24GiB",
        "MYSQL_USER=me\nMYSQL_PASSWORD=x # costs $5",
        "LIBVIRT_TYPE=",
        "LOG_COLOR=no",
        "VOLUME_BACKING_FILE_SIZE=24G",
        "SERVICE_HOST=$HOST_IP",
        "DEST=${DEST:-/opt/stack}",
        "LIBVIRT_TYPE=$OF_MY_OWN",
        "LOGFILE='$HOSTIP'",
    ],
)
def test_what_devstack_takes_is_no_mistake(line: str) -> None:
    assert graded(GOOD.replace("LOGFILE=/opt/stack/logs/stack.sh.log", line)) == []


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("ADMIN_PASSWORD=secret1", "source ~/secrets\nADMIN_PASSWORD=$MINE"),
        ("ADMIN_PASSWORD=secret1", "ADMIN_PASSWORD=$(awk '{print $1}' /etc/mine)"),
        (f"HOST_IP={HOST}", "HOST_IP=$(hostname -I | cut -d' ' -f1)"),
        (f"HOST_IP={HOST}", 'HOST_IP="$(hostname -I)"'),
        (f"HOST_IP={HOST}", "HOST_IP=`hostname -i`"),
    ],
)
def test_what_only_bash_could_tell_is_left_to_it(was: str, now: str) -> None:
    assert graded(GOOD.replace(was, now)) == []


def test_what_bash_cannot_read_is_told_with_the_files_own_line() -> None:
    text = GOOD.replace("disable_service tempest", "if true; then")
    part = localconf_check.shell_part(text)
    done = subprocess.run(["bash", "-n"], input=part, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    found = localconf_check.misread(text, done.stderr)
    assert len(found) == 1
    assert found[0].line >= 8
    assert "syntax error" in found[0].text


def test_no_section_at_all() -> None:
    assert any("there is no section [[local|localrc]]" in one for one in graded(""))


# --- the answer file -------------------------------------------------------------------------------------------------------


def graded_answers(text: str) -> list[str]:
    found = answers_check.check(text, addresses=[HOST], known=answers.explanations().names)
    return [str(one) for one in found]


def test_answers_are_read_back_as_they_were_meant() -> None:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(answer_file("swift", "heat"))
    read = parser["general"]
    assert read["CONFIG_KEYSTONE_ADMIN_PW"] == PASSWORDS["admin"]
    assert read["CONFIG_MARIADB_PW"] == PASSWORDS["database"]
    assert {read[key] for key in answers_check.HOSTS} == {HOST}
    assert (read["CONFIG_SWIFT_INSTALL"], read["CONFIG_HEAT_INSTALL"]) == ("y", "y")
    parser.read_string(answer_file())
    assert parser["general"]["CONFIG_SWIFT_INSTALL"] == "n"


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("[general]", "[genral]", "'[genral]': PackStack reads the section [general] alone"),
        ("[general]\n", "", "stands before [general]"),
        (
            f"CONTROLLER_HOST={HOST}",
            "CONTROLLER_HOST=192.0.2.9",
            "CONFIG_CONTROLLER_HOST is 192.0.2.9, which is no address",
        ),
        (f"COMPUTE_HOSTS={HOST}", "COMPUTE_HOSTS=localhost", "CONFIG_COMPUTE_HOSTS is 'localhost', which is no IPv4"),
        (f"NETWORK_HOSTS={HOST}", "NETWORK_HOSTS=127.0.0.1", "CONFIG_NETWORK_HOSTS is a loopback address"),
        (f"CONFIG_AMQP_HOST={HOST}", "CONFIG_AMQP_HOST=", "CONFIG_AMQP_HOST is not set"),
        ("CONFIG_NOVA_INSTALL=y", "CONFIG_NOVA_INSTALL=n", "CONFIG_NOVA_INSTALL is n"),
        ("CONFIG_NOVA_INSTALL=y", "CONFIG_NOVA_INSTALL=yes", "has to be y or n"),
        ("CONFIG_NOVA_INSTALL=y", "CONFIG_NOVA_INSTAL=y", "is CONFIG_NOVA_INSTALL meant"),
        ("CONFIG_NOVA_INSTALL=y", "NOVA=y", "they begin with CONFIG_"),
        ("CONFIG_NOVA_INSTALL=y", "CONFIG_NOVA_INSTALL", "written KEY=value"),
        ("CONFIG_NOVA_INSTALL=y", " CONFIG_NOVA_INSTALL=y", "begins with a blank"),
        ("CONFIG_NOVA_INSTALL=y", "CONFIG_NOVA_INSTALL=y\nCONFIG_NOVA_INSTALL=y", "a second time"),
        ("ADMIN_PW=adminSecret1", 'ADMIN_PW="adminSecret1"', "no quotes"),
        ("ADMIN_PW=adminSecret1", "ADMIN_PW=100%", "begins an interpolation"),
        ("ADMIN_PW=adminSecret1", "ADMIN_PW=********", "asterisks"),
        ("TENANT_NETWORK_TYPES=vxlan", "TENANT_NETWORK_TYPES=gre", "names gre, which is not among"),
        ("EXTERNAL_PHYSNET=extnet", "EXTERNAL_PHYSNET=public", "is public, which .*MAPPINGS does not name"),
        ("FLOATRANGE=172.24.4.0/24", "FLOATRANGE=192.0.2.0/24", "the machine itself lies in"),
    ],
)
def test_each_mistake_in_an_answer_file_is_told_with_its_line(was: str, now: str, says: str) -> None:
    good = answer_file()
    assert was in good
    changed = good.replace(was, now, 1)
    pattern = "".join(re.escape(part) if part != ".*" else part for part in re.split(r"(\.\*)", says))
    found = [one for one in graded_answers(changed) if re.search(pattern, one)]
    assert found, graded_answers(changed)
    assert "Secret1" not in "".join(graded_answers(changed))
    line = int(found[0].partition(":")[0].removeprefix("line "))
    assert 0 < line <= len(changed.splitlines())


def test_without_any_password_nobody_could_log_in() -> None:
    lines = [line for line in answer_file().splitlines() if "ADMIN_PW" not in line and "DEFAULT_PASSWORD" not in line]
    assert any("nobody could log in as admin" in one for one in graded_answers("\n".join(lines)))


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
