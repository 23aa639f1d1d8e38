"""What a profile's DevStack fetches."""

from __future__ import annotations

import pytest

from stacklab.deploy.profile.load import load_profile, profile_names
from stacklab.prefetch.plan import evaluated, repositories, target_of

pytestmark = pytest.mark.usefixtures("own_directories")


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
    cloned = {repository.name: repository for repository in repositories(profile, ("heat",), "")}
    assert cloned["heat"].url == "https://opendev.org/openstack/heat.git"
    assert cloned["heat"].ref == profile.services["heat"].ref


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_can_be_prefetched(name: str) -> None:
    profile = load_profile(name)
    assert target_of(profile).python
