"""local.conf and profiles against DevStack's own source: its parser reads what we write, and everything we name is there.

LAB_DEVSTACK_GIT is a clone of openstack/devstack (bare or not) with its tags. Where clones of the plugins and services lie
beside it in the same manner (the path with `devstack` replaced by their name), they are looked into as well.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stacklab.deploy.localconf.render import SECRETS, render
from stacklab.deploy.profile.load import load_profile, profile_names
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from tests.unit.localconf_reader import Reading, read

HOST = "192.0.2.7"
# What DevStack itself lets through everywhere. Whatever else a shell can hold is in HOSTILE.
PLAIN = {name: f"Secret{number}" for number, name in enumerate(SECRETS)}
HOSTILE = """it's "so" $HOME `id` $(id) \\ #; [x]|y && *"""
NAMES = ["centos7-pike", "debian12-2026.1", "rocky9-2026.1"]
# os-release's words → what DevStack's GetDistro makes of them.
DISTRO = {"centos 7": "rhel7", "debian 12": "bookworm", "rocky 9": "rhel9"}

pytestmark = pytest.mark.usefixtures("own_directories")


def location(name: str) -> Path | None:
    """Where the clone of openstack/NAME is, if it is there."""
    devstack = os.environ["LAB_DEVSTACK_GIT"]
    base, _, rest = devstack.rpartition("devstack")
    path = Path(f"{base}{name}{rest}")
    return path if path.is_dir() else None


def git(name: str, *arguments: str) -> str:
    where = location(name)
    assert where is not None, f"no clone of openstack/{name}"
    return subprocess.run(["git", "-C", str(where), *arguments], check=True, capture_output=True, text=True).stdout


@cache
def resolved(name: str, ref: str) -> str | None:
    """The commit of a tag or a branch, None if there is neither."""
    for full in (f"refs/tags/{ref}", f"refs/heads/{ref}", f"refs/remotes/origin/{ref}"):
        try:
            return git(name, "rev-parse", "--verify", "--quiet", f"{full}^{{commit}}").strip()
        except subprocess.CalledProcessError:
            continue
    return None


def at(name: str, ref: str) -> str:
    commit = resolved(name, ref)
    assert commit, f"openstack/{name} has no {ref}"
    return commit


def mentions(name: str, ref: str, word: str, *below: str) -> bool:
    """Whether a word stands in the scripts at that ref (documentation does not count)."""
    places = below or (".", ":!doc", ":!releasenotes", ":!playbooks", ":!roles", ":!.zuul.yaml", ":!HACKING.rst")
    arguments = ["grep", "--quiet", "--word-regexp", "--fixed-strings", "-e", word, at(name, ref), "--", *places]
    where = location(name)
    return subprocess.run(["git", "-C", str(where), *arguments], check=False).returncode == 0


@cache
def tree(ref: str) -> Path:
    """DevStack's files at a ref."""
    directory = Path(tempfile.mkdtemp(prefix="devstack-"))
    archive = subprocess.run(
        ["git", "-C", str(location("devstack")), "archive", at("devstack", ref)], check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive.stdout, check=True)
    return directory


@pytest.fixture(scope="module", autouse=True)
def trees_go() -> Iterator[None]:
    yield
    for name in NAMES:
        shutil.rmtree(tree(load_profile(name).devstack.ref), ignore_errors=True)
    tree.cache_clear()


# stack.sh's own beginning: its functions, the extraction of localrc, and stackrc, which sources it among its defaults.
_STACK = r"""
exec 3>&1 1>/dev/null
TOP_DIR=$1
source $TOP_DIR/functions
declare -F extract_localrc_section >/dev/null || source $TOP_DIR/inc/meta-config
GetDistro
rm -f $TOP_DIR/.localrc.auto
extract_localrc_section $TOP_DIR/local.conf $TOP_DIR/localrc $TOP_DIR/.localrc.auto
source $TOP_DIR/stackrc
for name in "${@:2}"; do printf '%s\0%s\0' "$name" "${!name}" >&3; done
for name in ${DEVSTACK_PLUGINS//,/ }; do printf 'plugin %s\0%s %s\0' "$name" "${GITREPO[$name]}" "${GITBRANCH[$name]}" >&3; done
"""


def stackrc(ref: str, text: str, *names: str) -> dict[str, str]:
    """What these variables are once DevStack's own stackrc has read this local.conf."""
    top = tree(ref)
    (top / "local.conf").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", _STACK, "bash", str(top), *names],
        env={"PATH": os.environ["PATH"], "HOME": str(top), "USER": "stack", "TERM": "dumb"},
        cwd=top, capture_output=True, check=False,
    )  # fmt: skip
    words = done.stdout.decode().split("\0")[:-1]
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return dict(zip(words[::2], words[1::2], strict=True))


def meant(profile: Profile, directory: Path, secrets: dict[str, str], *services: str) -> tuple[str, Reading]:
    text = render(profile, Settings(), services=services, secrets=secrets, host_ip=HOST)
    directory.mkdir()
    return text, read(text, directory)


@pytest.mark.parametrize("name", NAMES)
def test_devstacks_own_stackrc_sees_the_values_meant_with_every_service(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    text, ours = meant(profile, tmp_path / "e", PLAIN, *profile.served)
    theirs = stackrc(profile.devstack.ref, text, *ours.variables, "ENABLED_SERVICES")
    assert {key: theirs[key] for key in ours.variables} == ours.variables
    for call in ours.calls:
        if call[0] == "enable_plugin":
            assert theirs[f"plugin {call[1]}"] == f"{call[2]} {call[3]}"
    enabled = theirs["ENABLED_SERVICES"].split(",")
    assert not {word for call in ours.calls if call[0] == "disable_service" for word in call[1:]} & set(enabled)
    assert {"s-proxy", "s-object", "s-container", "s-account"} <= set(enabled)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_passwords_arrive_as_they_are(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    text, _ = meant(profile, tmp_path / "e", dict.fromkeys(SECRETS, HOSTILE), "swift")
    names = ["ADMIN_PASSWORD", "DATABASE_PASSWORD", "RABBIT_PASSWORD", "SERVICE_PASSWORD", "SWIFT_HASH"]
    assert stackrc(profile.devstack.ref, text, *names) == dict.fromkeys(names, HOSTILE)


# inc/meta-config is not awk that mawk understands; DevStack installs gawk before it comes to these sections.
_MERGE = r"""
set -o errexit
CONFIG_AWK_CMD=gawk
TOP_DIR=$1
source $TOP_DIR/inc/ini-config
source $TOP_DIR/inc/meta-config
die() { echo "$@" >&2; exit 1; }
warn() { echo "$@" >&2; }
Q_PLUGIN_CONF_FILE=$2
merge_config_group $TOP_DIR/local.conf post-config
"""


def merged(top: Path, target: Path) -> configparser.ConfigParser:
    """`target` after DevStack merged the post-config sections of top/local.conf into it."""
    if shutil.which("gawk") is None:
        pytest.skip("DevStack's inc/meta-config needs gawk: apt-get install gawk")
    subprocess.run(["bash", "-c", _MERGE, "bash", str(top), str(target)], check=True)
    assert target.exists(), "DevStack's merge wrote nothing"
    written = configparser.ConfigParser(interpolation=None)
    written.read(target)
    return written


def test_devstacks_own_merge_writes_the_ini_values_meant(tmp_path: Path) -> None:
    profile = load_profile("centos7-pike").with_variants(["vsctl"])
    text, ours = meant(profile, tmp_path / "e", PLAIN)
    top, target = tree(profile.devstack.ref), tmp_path / "ml2_conf.ini"
    target.write_text("[ovs]\nlocal_ip = 10.0.0.1\novsdb_interface = native\n\n[agent]\ntunnel_types = vxlan\n")
    (top / "local.conf").write_text(text)
    theirs = merged(top, target)
    section = ours.files["post-config|/$Q_PLUGIN_CONF_FILE"]["ovs"]
    assert {key: theirs["ovs"][key] for key in section} == dict(section)
    assert theirs["ovs"]["local_ip"] == "10.0.0.1"


@pytest.mark.parametrize("ref", ["pike-eol", "stable/2026.1"])
def test_what_the_ini_filter_lets_through_devstack_does_not_change(
    ref: str, tmp_path: Path, own_directories: Path
) -> None:
    values = ["a b c", "http://h:1/p", "user@h", "10.0.0.0/8,1.2.3.4", "k=v", "50%", "a.b_c-d+e"]
    home = own_directories / "config/stacklab"
    (home / "local.conf.d").mkdir(parents=True)
    lines = "".join(f"v{number} = {{{{ v.list[{number}] | ini }}}}\n" for number in range(len(values)))
    (home / "local.conf.d/mine.j2").write_text(f"[[post-config|/$Q_PLUGIN_CONF_FILE]]\n[one]\n{lines}")
    profile = load_profile("debian12-2026.1")
    profile = profile.model_copy(
        update={"fragments": ["secrets", "mine"], "values": {**profile.values, "list": values}}
    )
    text = render(profile, Settings(), secrets=PLAIN, host_ip=HOST)
    top, target = tree(ref), tmp_path / "out.ini"
    (top / "local.conf").write_text(text)
    theirs = merged(top, target)
    assert [theirs["one"][f"v{number}"] for number in range(len(values))] == values


# --- everything we name is there -----------------------------------------------------------------------------------


def known(variable: str, devstack: str, plugins: dict[str, str]) -> bool:
    """Whether a variable is DevStack's, or that of one of the plugins (name → ref)."""
    if variable.startswith("MANILA_OPTGROUP_"):  # the plugin looks for the prefix; a backend and an option follow
        script = git("manila", "show", f"{at('manila', plugins['manila'])}:devstack/plugin.sh")
        return "prefix=MANILA_OPTGROUP_$be" in script
    if mentions("devstack", devstack, variable):
        return True
    return any(mentions(plugin, ref, variable, "devstack") for plugin, ref in plugins.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_we_set_exists(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    for variant in profile.variants:
        profile = profile.with_variants([variant])
    always = meant(profile, tmp_path / "always", PLAIN)[1].variables
    assert [variable for variable in always if not known(variable, profile.devstack.ref, {})] == []
    for service in profile.served:
        ours = meant(profile, tmp_path / service, PLAIN, service)[1]
        plugins = {call[1]: call[3] for call in ours.calls if call[0] == "enable_plugin"}
        if all(location(plugin) for plugin in plugins):  # else it is not at hand
            variables = ours.variables.keys() - always.keys()
            assert [word for word in variables if not known(word, profile.devstack.ref, plugins)] == [], service


@pytest.mark.parametrize("name", NAMES)
def test_every_service_we_enable_or_disable_exists(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    _, ours = meant(profile, tmp_path / "e", PLAIN, "swift")
    words = [word for call in ours.calls if call[0] in ("enable_service", "disable_service") for word in call[1:]]
    assert [word for word in words if not mentions("devstack", profile.devstack.ref, word)] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_ref_exists_where_a_clone_is_at_hand(name: str) -> None:
    profile = load_profile(name)
    assert at("devstack", profile.devstack.ref)
    for service in profile.services.values():
        if service.refused is None and service.plugin and location(plugin := service.plugin.rpartition("/")[2]):
            assert git(plugin, "show", f"{at(plugin, str(service.ref))}:devstack/plugin.sh")
    branches = profile.values["branches"]
    assert isinstance(branches, dict)
    for variable, ref in branches.items():
        repository = variable.removesuffix("_BRANCH").lower()
        assert location(repository) is None or resolved(repository, ref), repository


@pytest.mark.parametrize("name", NAMES)
def test_devstack_supports_the_distribution(name: str) -> None:
    profile = load_profile(name)
    text = (tree(profile.devstack.ref) / "stack.sh").read_text()
    supported = re.search(r"SUPPORTED_DISTROS=\"(.*)\"|DISTRO\} =~ \(([^)]*)\)", text)
    assert supported
    assert DISTRO[profile.distribution] in (supported[1] or supported[2]).split("|")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_we_place_is_where_the_scripts_look(name: str) -> None:
    profile = load_profile(name)
    ref = profile.devstack.ref
    text = render(profile, Settings(), secrets=PLAIN, host_ip=HOST)
    image = stackrc(ref, text, "DEFAULT_IMAGE_FILE_NAME", "IMAGE_URLS")
    upload = git("devstack", "show", f"{at('devstack', ref)}:functions")
    expected = set()
    if "-f $FILES/$image_fname" in upload or '-f "$FILES/$image_fname"' in upload:
        expected.add(f"files/{image['DEFAULT_IMAGE_FILE_NAME']}")
        assert image["IMAGE_URLS"].endswith(image["DEFAULT_IMAGE_FILE_NAME"])
    if ref == "pike-eol":
        expected |= pikes_files(ref, profile)
    assert {placed.path for placed in profile.files} == expected


def pikes_files(ref: str, profile: Profile) -> set[str]:
    """etcd's archive and get-pip, as lib/etcd3 and tools/install_pip.sh call them."""
    etcd = git("devstack", "show", f"{at('devstack', ref)}:lib/etcd3")
    version = re.search(r"ETCD_VERSION:-(\S+)\}", etcd)
    digest = re.search(r'ETCD_SHA256_AMD64="(\w+)"', etcd)
    assert version
    assert digest
    archive = f"files/etcd-{version[1]}-linux-amd64.tar.gz"
    assert '! -f "$FILES/$ETCD_DOWNLOAD_FILE"' in etcd
    placed = {file.path: file for file in profile.files}
    assert placed[archive].sha256 == digest[1]
    base = str(profile.values["etcd_download_url"])
    assert placed[archive].url == f"{base}/{version[1]}/{archive.removeprefix('files/')}"
    pip = git("devstack", "show", f"{at('devstack', ref)}:tools/install_pip.sh")
    url = re.search(r'PIP_GET_PIP_PY27_URL:-"(\S+)"', pip)
    assert url
    assert 'LOCAL_PIP="$FILES/$(basename $PIP_GET_PIP_URL)"' in pip
    assert 'LOCAL_PIP_PY27="${LOCAL_PIP}-py27"' in pip
    assert placed["files/get-pip.py-py27"].url == url[1]
    return {archive, "files/get-pip.py-py27"}


@pytest.mark.parametrize("name", NAMES)
def test_every_word_we_drop_is_in_its_list(name: str) -> None:
    profile = load_profile(name)
    for path, words in profile.devstack.drop.items():
        there = (tree(profile.devstack.ref) / path).read_text().split()
        assert set(words) <= set(there)


@pytest.mark.parametrize("name", NAMES)
def test_every_unit_is_started_by_the_scripts(name: str) -> None:
    profile = load_profile(name)
    sources = "".join(
        path.read_text(errors="replace")
        for place in ("lib", "lib/neutron_plugins", "lib/neutron_plugins/services")
        for path in (tree(profile.devstack.ref) / place).glob("*")
        if path.is_file()
    )
    started = set(re.findall(r"run_process \"?([\w-]+(?:\$\{?\w+\}?)?)\"?", sources))
    started |= {name for name in re.findall(r"neutron_process_name\S*|devstack@([\w-]+)\.service", sources) if name}
    started = {re.sub(r"\$\{?\w+\}?$", "", name) for name in started}
    for unit in profile.units.devstack:
        assert unit in started or re.sub(r"\d+$", "", unit) in started, unit
    agents = {"q-agt", "q-ovn-agent"}
    assert profile.units.network_agent in agents & set(profile.units.devstack)


def test_pikes_loops_are_those_of_its_volume_groups() -> None:
    profile = load_profile("centos7-pike")
    ref = profile.devstack.ref
    lvm = git("devstack", "show", f"{at('devstack', ref)}:lib/lvm")
    suffix = re.search(r"BACKING_FILE_SUFFIX=(\S+)", lvm)
    assert suffix
    assert "$DATA_DIR/$vg$BACKING_FILE_SUFFIX" in lvm
    for group, file in profile.recovery.loops.items():
        assert file == f"/opt/stack/data/{group}{suffix[1]}"
        assert group.startswith("stack-volumes-")
    assert mentions("devstack", ref, "lvmdriver-1", "lib/cinder")


def test_all_shipped_profiles_are_checked() -> None:
    assert [name for name in profile_names() if load_profile(name).deployed_by == "devstack"] == NAMES
