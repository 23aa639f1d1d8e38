"""local.conf, read by a reader that is not DevStack's: the values meant arrive, whatever is in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.deploy.grading import MASK
from stacklab.deploy.localconf.render import SECRETS, fragments, render
from stacklab.deploy.profile.load import load_profile, profile_names
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import NotServed, ProfileInvalid, UnknownName
from tests.unit.localconf_reader import Reading, read

PASSWORDS = {name: f"{name}Secret1" for name in SECRETS}
HOST = "192.0.2.7"

pytestmark = pytest.mark.usefixtures("own_directories")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    directory = tmp_path / "empty"
    directory.mkdir()
    return directory


def reading(profile: Profile, directory: Path, settings: Settings | None = None, *services: str) -> Reading:
    text = render(profile, settings or Settings(), services=services, secrets=PASSWORDS, host_ip=HOST)
    return read(text, directory)


@pytest.mark.parametrize("name", ["centos7-pike", "debian12-2026.1", "rocky9-2026.1"])
def test_what_every_profile_says(name: str, empty: Path) -> None:
    profile = load_profile(name)
    seen = reading(profile, empty).variables
    passwords = {key: seen[f"{key.upper()}_PASSWORD"] for key in ("admin", "database", "rabbit", "service")}
    assert passwords == {key: PASSWORDS[key] for key in passwords}
    assert (seen["HOST_IP"], seen["SERVICE_HOST"], seen["IP_VERSION"]) == (HOST, HOST, "4")
    assert seen["GIT_BASE"] == "https://opendev.org"
    assert seen["FLOATING_RANGE"] == profile.cloud.floating_range
    assert seen["LIBVIRT_TYPE"] == "qemu"
    assert seen["LOGFILE"] == "/opt/stack/logs/stack.sh.log"
    assert seen["LOG_COLOR"] == "False"


def test_what_each_release_needs_beside(empty: Path) -> None:
    readings = {}
    for name in ("centos7-pike", "debian12-2026.1", "rocky9-2026.1"):
        (empty / name).mkdir()
        readings[name] = reading(load_profile(name), empty / name)
    pike, today = readings["centos7-pike"], readings["debian12-2026.1"]
    branches = {name for name, value in pike.variables.items() if value == "pike-eol"}
    assert branches == {f"{project}_BRANCH" for project in ("REQUIREMENTS", "KEYSTONE", "GLANCE", "NOVA", "NEUTRON")}
    assert not {"PYTHON3_VERSION", "USE_PYTHON3", "GIT_DEPTH", "LIBVIRT_CPU_MODE"} & pike.variables.keys()
    assert ("disable_service", "tempest") in pike.calls
    assert (today.variables["API_WORKERS"], today.variables["LIBVIRT_CPU_MODE"]) == ("1", "none")
    assert readings["rocky9-2026.1"].variables["PYTHON3_VERSION"] == "3.11"


def test_a_container_gets_what_its_kernel_lacks(empty: Path) -> None:
    seen = reading(load_profile("debian12-2026.1").with_variants(["container"]), empty).variables
    assert seen["OVS_DATAPATH_TYPE"] == "netdev"
    assert seen["CINDER_ENABLED_BACKENDS"] == "nfs:nfs"
    assert seen["CINDER_NFS_SERVERPATH"] == f"localhost:{seen['NFS_EXPORT_DIR']}"


def test_a_section_for_another_file_is_ini(empty: Path) -> None:
    seen = reading(load_profile("centos7-pike").with_variants(["vsctl"]), empty)
    assert seen.files["post-config|/$Q_PLUGIN_CONF_FILE"]["ovs"]["ovsdb_interface"] == "vsctl"


@pytest.mark.parametrize("name", ["centos7-pike", "debian12-2026.1", "rocky9-2026.1"])
def test_every_service_that_is_served(name: str, empty: Path) -> None:
    profile = load_profile(name)
    for service in profile.served:
        directory = empty / service
        directory.mkdir()
        seen = reading(profile, directory, None, service)
        declared = profile.services[service]
        assert {key: seen.variables[key] for key in declared.values} == declared.values
        if declared.plugin:
            call = ("enable_plugin", service, f"https://opendev.org/{declared.plugin}.git", str(declared.ref))
            assert seen.calls.count(call) == 1


HOSTILE = [
    "with blanks  two",
    'double " quote',
    "single ' quote",
    "$HOME ${PATH} $(touch owned) `touch owned`",
    "'; touch owned; '",
    "back\\slash \\n \\",
    "# no comment",
    "[[local|localrc]]",
    "~root *?[a] {a,b} !! && || > owned < x | y & ;",
    "-n",
    "=equals=",
    "ünïcödé ✓",
    "",
]


@pytest.mark.parametrize("password", HOSTILE)
def test_a_hostile_value_arrives_as_it_is_and_does_nothing(password: str, empty: Path) -> None:
    settings = Settings(mirrors={"https://opendev.org/openstack/": f"https://mirror/{password}/openstack/"})
    secrets = dict.fromkeys(SECRETS, password)
    text = render(load_profile("centos7-pike"), settings, services=["swift", "heat"], secrets=secrets, host_ip=HOST)
    seen = read(text, empty)
    for name in ("ADMIN_PASSWORD", "DATABASE_PASSWORD", "RABBIT_PASSWORD", "SERVICE_PASSWORD", "SWIFT_HASH"):
        assert seen.variables[name] == password
    assert seen.variables["GIT_BASE"] == f"https://mirror/{password}"
    assert ("enable_plugin", "heat", f"https://mirror/{password}/openstack/heat.git", "pike-eol") in seen.calls
    assert seen.variables["LIBVIRT_TYPE"] == "qemu"
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("password", ["two\nlines", "tab\tulator", "nul\0", "return\r", "escape\x1b"])
def test_a_control_character_is_refused_and_the_value_is_not_told(password: str) -> None:
    with pytest.raises(ProfileInvalid, match="control character") as caught:
        render(load_profile("centos7-pike"), Settings(), secrets=dict.fromkeys(SECRETS, password), host_ip=HOST)
    assert "secrets.j2:2" in str(caught.value)
    assert password[:3] not in caught.value.message.replace("secrets", "")


# --- what a fragment may do ----------------------------------------------------------------------------------------


def own_fragment(directories: Path, text: str) -> Profile:
    """A profile with one fragment more, which lies in the user's configuration."""
    home = directories / "config/stacklab"
    (home / "local.conf.d").mkdir(parents=True)
    (home / "local.conf.d/mine.j2").write_text(text)
    (home / "profiles").mkdir()
    profile = {"based_on": "debian12-2026.1", "fragments": ["secrets", "mine"], "values": {"mine": "a b", "odd": "x;y"}}
    (home / "profiles/mine.yaml").write_text(json.dumps(profile))
    # A value that no fragment uses is refused, and not every text here uses both.
    (home / "local.conf.d/uses.j2").write_text("{{ v.mine | sh }}{{ v.odd | sh }}\n")
    return load_profile("mine")


def test_a_users_own_fragment(own_directories: Path, empty: Path) -> None:
    profile = own_fragment(
        own_directories,
        "{# of mine #}\nMINE={{ v.mine | sh }}\n[[post-config|$NOVA_CONF]]\n[DEFAULT]\nmine = {{ v.mine | ini }}\n",
    )
    text = render(profile, Settings(), secrets=PASSWORDS, host_ip=HOST)
    seen = read(text, empty)
    assert seen.variables["MINE"] == "a b"
    assert seen.files["post-config|$NOVA_CONF"]["DEFAULT"]["mine"] == "a b"
    assert "# mine: of mine" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A=1\nMINE={{ v.mine }}\n", "mine.j2:2: a value goes into local.conf without one of the filters"),
        ("\n\nMINE={{ v.absent | sh }}\n", "mine.j2:3: .*absent"),
        ("{{ v.mine | variable }}=1\n", "mine.j2:1: 'a b' cannot be the name of a variable"),
        ("enable_service {{ v.odd | words }}\n", "mine.j2:1: names of DevStack's services"),
        ("[[post-config|x]]\n[a]\nb = {{ v.odd | ini }}\n", "mine.j2:3: .*DevStack's shell would change"),
        ("MINE={{ v.mine | sh\n", "mine.j2:1: "),
        ("MINE={{ v | sh }}\n", "mine.j2:1: a value .* neither text nor a number"),
    ],
)
def test_a_wrong_fragment_is_told_with_file_and_line(text: str, says: str, own_directories: Path) -> None:
    profile = own_fragment(own_directories, text)
    with pytest.raises(ProfileInvalid, match=says):
        render(profile, Settings(), secrets=PASSWORDS, host_ip=HOST)


@pytest.mark.parametrize("value", ["$(id)", "`id`", 'a"b', "a\\b", "a  b", "*", "a&b", "a'b", "[x]", "", " a"])
def test_an_ini_value_that_devstacks_shell_would_change_is_refused(value: str, own_directories: Path) -> None:
    profile = own_fragment(own_directories, "[[post-config|x]]\n[a]\nb = {{ v.mine | ini }}\n")
    changed = profile.model_copy(update={"values": {**profile.values, "mine": value}})
    with pytest.raises(ProfileInvalid, match=r"DevStack's shell would change"):
        render(changed, Settings(), secrets=PASSWORDS, host_ip=HOST)


def test_a_fragment_that_is_not_there() -> None:
    profile = load_profile("centos7-pike").model_copy(update={"fragments": ["secrest"]})
    with pytest.raises(ProfileInvalid, match="no fragment 'secrest'") as caught:
        fragments(profile, Settings())
    assert "secrets" in caught.value.advice


# --- choosing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "service", "says"), [("rocky9-2026.1", "murano", "retired"), ("centos7-pike", "ironic", "ramdisk")]
)
def test_what_cannot_be_served_is_refused_with_the_profiles_reason(name: str, service: str, says: str) -> None:
    with pytest.raises(NotServed, match=f"{name} cannot serve {service}: .*{says}"):
        fragments(load_profile(name), Settings(), services=["heat", service])


def test_what_a_service_needs_comes_before_it_and_says_who_wants_it() -> None:
    by = {"heat": "session session9"}
    used = fragments(load_profile("centos7-pike"), Settings(), services=["magnum", "heat", "swift"], asked_by=by)
    chosen = [(entry.name, entry.chosen) for entry in used if entry.service]
    assert chosen == [
        ("heat", "magnum needs it"), ("barbican", "magnum needs it"), ("magnum", "--with"), ("swift", "--with"),
    ]  # fmt: skip
    assert all(entry.why for entry in used)


def test_an_image_of_ones_own_and_a_proxy_bring_their_fragments(own_directories: Path, empty: Path) -> None:
    home = own_directories / "config/stacklab"
    home.mkdir(parents=True)
    (home / "config.yaml").write_text(
        "profiles:\n  debian12-2026.1:\n    values: {image_name: tiny, image_url: 'file:///opt/tiny.img'}\n"
    )
    settings = Settings(proxy="http://proxy.example:3128", no_proxy=["10.77.0.0/16"])
    seen = reading(load_profile("debian12-2026.1"), empty, settings).variables
    assert (seen["DEFAULT_IMAGE_NAME"], seen["IMAGE_URLS"]) == ("tiny", "file:///opt/tiny.img")
    assert seen["DOWNLOAD_DEFAULT_IMAGES"] == "False"
    assert seen["http_proxy"] == seen["https_proxy"] == "http://proxy.example:3128"
    assert seen["no_proxy"] == f"localhost,127.0.0.1,{HOST},10.77.0.0/16"


def test_mirrors_are_used_and_one_that_cannot_work_is_refused(empty: Path) -> None:
    mirrors = {
        "https://opendev.org/openstack/": "git://192.0.2.1/openstack/",
        "https://github.com/novnc/": "git://192.0.2.1/",
    }
    seen = reading(load_profile("debian12-2026.1"), empty, Settings(mirrors=mirrors), "heat")
    assert seen.variables["GIT_BASE"] == "git://192.0.2.1"
    assert seen.variables["NOVNC_REPO"] == "git://192.0.2.1/noVNC.git"
    assert ("enable_plugin", "heat", "git://192.0.2.1/openstack/heat.git", "stable/2026.1") in seen.calls
    with pytest.raises(ProfileInvalid, match="has to end in /openstack/"):
        reading(
            load_profile("debian12-2026.1"), empty, Settings(mirrors={"https://opendev.org/openstack/": "git://x/os/"})
        )


@pytest.mark.parametrize("address", ["", "host", "192.0.2.300", "::1", "192.0.2.1; id"])
def test_the_address_must_be_one(address: str) -> None:
    with pytest.raises(ProfileInvalid, match="no IPv4 address"):
        render(load_profile("centos7-pike"), Settings(), host_ip=address)


# --- showing -------------------------------------------------------------------------------------------------------


def test_what_is_shown_holds_no_secret() -> None:
    settings = Settings(
        proxy="http://user:hush1@proxy:3128", mirrors={"https://opendev.org/": "https://user:hush2@mirror/"}
    )
    text = render(load_profile("centos7-pike"), settings, services=["swift"], host_ip=HOST)
    assert "hush" not in text
    assert text.count(MASK) >= 5
    real = render(load_profile("centos7-pike"), settings, services=["swift"], secrets=PASSWORDS, host_ip=HOST)
    assert len(real.splitlines()) == len(text.splitlines())
    assert "hush1" in real


def test_lab_render_shows_it_without_a_lab(capsys: pytest.CaptureFixture[str], own_directories: Path) -> None:
    assert run(["render", "local.conf", "--profile", "debian12-2026.1", "--with", "heat, swift"]) == 0
    out = capsys.readouterr().out
    assert "enable_plugin heat" in out
    assert f"ADMIN_PASSWORD='{MASK}'" in out
    assert not (own_directories / "state").exists()
    assert run(["render", "local.conf", "--with", "swfit"]) == 41
    assert "did you mean 'swift'" in capsys.readouterr().err
    assert run(["render", "local.conf", "--profile", "debian12-2026.1", "--with", "murano"]) == 43


def test_lab_profiles_lists_and_tells_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in profile_names())
    for name in profile_names():
        assert run(["profiles", name]) == 0
        out = capsys.readouterr().out
        assert load_profile(name).tested in out
        assert run(["profiles", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == name
    assert run(["profiles", "centos8"]) == 41
    assert "did you mean 'centos7-pike'" in capsys.readouterr().err


# --- what is told of services --------------------------------------------------------------------------------------


def test_only_services_that_are_served_are_suggested() -> None:
    profile = load_profile("debian12-2026.1")
    for word in ("muran", "sahar", "teapot", "kubernetes"):
        with pytest.raises(UnknownName) as caught:
            profile.chosen([word])
        assert not {"murano", "sahara", "congress", "ironic"} & set(re.findall(r"[a-z]+", caught.value.advice)), word
    assert "services of debian12-2026.1: swift, heat" in caught.value.advice


def test_what_needs_a_refused_service_is_not_served_either() -> None:
    profile = load_profile("centos7-pike")
    heat = profile.services["heat"].model_copy(update={"refused": "not today"})
    changed = profile.model_copy(update={"services": {**profile.services, "heat": heat}})
    with pytest.raises(NotServed, match=r"cannot serve heat \(for sahara\): not today"):
        changed.chosen(["sahara"])
    assert {"magnum", "sahara"} <= set(profile.served)
    assert not {"heat", "magnum", "sahara"} & set(changed.served)


def test_one_broken_profile_keeps_nobody_from_seeing_the_others(
    capsys: pytest.CaptureFixture[str], own_directories: Path
) -> None:
    folder = own_directories / "config/stacklab/profiles"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("based_on: broken\n")
    assert run(["profiles"]) == 42
    out = capsys.readouterr().out
    assert "centos7-pike" in out
    assert "broken.yaml:1: based_on: a profile cannot be based on itself" in out
    assert run(["profiles", "--json"]) == 42
    seen = {load["name"]: load for load in json.loads(capsys.readouterr().out)}
    assert seen["broken"]["error"] == "profile-invalid"
    assert "centos7-pike" in seen


def test_lab_render_says_that_the_address_stands_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", "local.conf"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("# There is no machine")
    assert f"HOST_IP={lines[1].split(':')[1].split()[0]}" in lines


def test_lab_render_refuses_what_it_cannot_tell(capsys: pytest.CaptureFixture[str], own_directories: Path) -> None:
    assert run(["render", "vagrantfile", "--why"]) == 2
    folder = own_directories / "config/stacklab"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("deploy: {variants: [nope]}\n")
    assert run(["render", "local.conf"]) == 43
    assert "has no variant 'nope'" in capsys.readouterr().err
