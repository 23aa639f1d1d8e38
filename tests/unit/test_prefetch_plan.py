"""What a profile's DevStack fetches, and which file pip on the machine would take."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from stacklab.deploy.profile.load import load_profile, profile_names
from stacklab.prefetch.choosing import Chooser
from stacklab.prefetch.index import Link, parse
from stacklab.prefetch.plan import Guest, evaluated, guest_of, package_sources, repositories

MODERN, OLD = Guest("3.11", "2.36"), Guest("2.7", "2.5", "cp27mu")

pytestmark = pytest.mark.usefixtures("own_directories")


def chosen(guest: Guest, versions: str, *files: str, needs: str = "") -> str | None:
    best = Chooser(guest).best([Link(file, "", "", needs) for file in files], SpecifierSet(versions))
    return best.link.file if best else None


def test_stackrc_is_read_as_devstack_would() -> None:
    text = (
        "GIT_BASE=${GIT_BASE:-https://opendev.org}\n"
        "TARGET_BRANCH=stable/x\n"
        "NOVA_REPO=${NOVA_REPO:-${GIT_BASE}/openstack/nova.git}\n"
        "NOVA_BRANCH=${NOVA_BRANCH:-$TARGET_BRANCH}\n"
        "ODD_REPO=$(curl evil)\n"
        "LOST_REPO=$NOBODY/x.git\n"
    )
    values = evaluated(text, {"NOVA_BRANCH": "pike-eol"})
    assert values["NOVA_REPO"] == "https://opendev.org/openstack/nova.git"
    assert values["NOVA_BRANCH"] == "pike-eol"
    assert "ODD_REPO" not in values
    assert "LOST_REPO" not in values
    assert evaluated(text, {"GIT_BASE": "https://m.example"})["NOVA_REPO"] == "https://m.example/openstack/nova.git"


def test_a_service_brings_its_plugin_and_what_it_needs() -> None:
    profile = load_profile("centos7-pike")
    found = {one.name: one for one in repositories(profile, ("heat",), "")}
    assert found["heat"].url == "https://opendev.org/openstack/heat.git"
    assert found["heat"].ref == profile.services["heat"].ref


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_can_be_prefetched(name: str) -> None:
    profile = load_profile(name)
    assert guest_of(profile).python
    assert all(one.endswith("/") for one in package_sources(profile))


def test_the_wheel_that_pip_would_take() -> None:
    wide = "x-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    assert chosen(MODERN, "==1.0", "x-1.0.tar.gz", wide, "x-1.0-cp311-cp311-manylinux_2_39_x86_64.whl") == wide
    assert chosen(MODERN, "==1.0", "x-1.0.tar.gz", "x-1.0-cp311-cp311-win_amd64.whl") == "x-1.0.tar.gz"
    abi3 = "x-1.0-cp38-abi3-manylinux_2_34_x86_64.whl"
    assert chosen(MODERN, "", abi3, "x-2.0rc1.tar.gz") == abi3


def test_pip_9_on_python_27_knows_manylinux1_only() -> None:
    old, new = "x-1.0-cp27-cp27mu-manylinux1_x86_64.whl", "x-1.0-cp27-cp27mu-manylinux2010_x86_64.whl"
    assert chosen(OLD, "===1.0", new, old, "x-1.0.tar.gz") == old
    assert chosen(OLD, "===1.0", new, "x-1.0.tar.gz") == "x-1.0.tar.gz"
    assert chosen(OLD, "===1.0", "x-1.0-cp27-cp27m-manylinux1_x86_64.whl") is None
    assert chosen(OLD, "", "x-1.0-py3-none-any.whl") is None
    assert chosen(OLD, "", "x-2.0.tar.gz", needs=">=3.6") is None


def test_versions_are_compared_and_not_their_text() -> None:
    assert chosen(MODERN, "===2.0.0", "x-2.0.tar.gz") == "x-2.0.tar.gz"
    assert chosen(OLD, "===3.2.3.post2", "functools32-3.2.3-2.tar.gz") == "functools32-3.2.3-2.tar.gz"
    assert chosen(OLD, "===4.2.0", "python-3parclient-4.2.0.tar.gz") == "python-3parclient-4.2.0.tar.gz"


def test_markers_are_those_of_the_machine() -> None:
    marker = Requirement("x; python_version < '3' and sys_platform == 'linux2'").marker
    assert Chooser(OLD).wants(marker)
    assert not Chooser(MODERN).wants(marker)


def test_an_index_page_cannot_name_files_outside_its_directory() -> None:
    page = '<a href="../../x-1.0.tar.gz#sha256=AB">x</a><a href="..%2f..%2fetc%2fpasswd">y</a><a href="/.hidden">z</a>'
    assert [(one.file, one.sha256) for one in parse(page, "http://a.example/simple/x/")] == [
        ("x-1.0.tar.gz", "ab"),
        ("passwd", ""),
    ]
