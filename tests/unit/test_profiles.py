"""Profiles as files: what is in them is marked, what is wrong with them is told with file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stacklab.deploy.profile.load import (
    chosen_variants,
    load_profile,
    load_settings,
    profile_for,
    profile_names,
)
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import NotServed, ProfileInvalid, UnknownName
from stacklab.machines.base import Finished

SHIPPED = ["centos7-pike", "centos7-pike-packstack", "debian12-2026.1", "rocky9-2026.1"]

pytestmark = pytest.mark.usefixtures("own_directories")


@pytest.fixture
def home(own_directories: Path) -> Path:
    directory = own_directories / "config/stacklab"
    (directory / "profiles").mkdir(parents=True)
    return directory


def test_the_profiles_there_are() -> None:
    assert profile_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_profile_says_in_one_line_what_has_been_run_of_it(name: str) -> None:
    assert 10 < len(load_profile(name).tested) < 120
    assert load_profile(name).tested.startswith("nothing") == (name != "debian12-2026.1")


# --- the user's own ------------------------------------------------------------------------------------------------


def test_the_configuration_is_laid_over_a_profile(home: Path) -> None:
    (home / "config.yaml").write_text(
        "deploy:\n  proxy: http://p:1\n"
        "profiles:\n"
        "  centos7-pike:\n"
        "    size: {memory: 8192}\n"
        "    box:\n"
        "      url: http://mirror/box\n"
        "      version: null\n"
        "    repositories: []\n"
    )
    profile = load_profile("centos7-pike")
    assert (profile.size.memory, profile.size.disk) == (8192, 60)
    assert (profile.box.name, profile.box.url, profile.box.version) == ("centos/7", "http://mirror/box", None)
    assert profile.repositories == []
    assert load_settings().proxy == "http://p:1"
    assert load_profile("debian12-2026.1").box.url is None


def test_a_profile_is_derived_with_few_lines(home: Path) -> None:
    (home / "profiles/mine.yaml").write_text(
        "based_on: debian12-2026.1\n"
        "summary: a small one\n"
        "devstack: {repo: /srv/standin, ref: main}\n"
        "packages: {install: [git]}\n"
        "files: []\n"
    )
    profile = load_profile("mine")
    assert profile_names() == [*SHIPPED[:3], "mine", SHIPPED[3]]
    assert (profile.name, profile.summary) == ("mine", "a small one")
    assert (profile.devstack.repo, profile.devstack.directory) == ("/srv/standin", "/opt/stack/devstack")
    assert profile.packages.install == ["git"]
    assert profile.units == load_profile("debian12-2026.1").units
    assert profile.tested.startswith("stacked twice")
    assert profile.tested.endswith("mine.yaml changed it)")


def test_what_is_derived_from_a_profile_sees_what_the_configuration_says_of_that(home: Path) -> None:
    (home / "profiles/mine.yaml").write_text("based_on: debian12-2026.1\nusual_minutes: 5\n")
    (home / "config.yaml").write_text("profiles: {debian12-2026.1: {size: {cpus: 9}}, mine: {size: {disk: 7}}}\n")
    assert (load_profile("mine").size.cpus, load_profile("mine").size.disk) == (9, 7)


WRONG = yaml.safe_load(Path(__file__).with_name("wrong_profiles.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", WRONG["profile"], ids=lambda case: case["says"])
def test_a_mistake_in_a_profile_is_told_with_file_line_and_key(case: dict[str, Any], home: Path) -> None:
    based_on = "" if "alone" in case else "based_on: debian12-2026.1\n"
    (home / "profiles/mine.yaml").write_text(f"{based_on}{case['text']}\n")
    with pytest.raises(ProfileInvalid, match=case["says"]) as caught:
        load_profile("mine")
    assert case.get("advice", "") in caught.value.advice


@pytest.mark.parametrize("case", WRONG["configuration"], ids=lambda case: case["says"])
def test_a_mistake_in_the_configuration_is_told_with_file_line_and_key(case: dict[str, Any], home: Path) -> None:
    (home / "config.yaml").write_text(f"{case['text']}\n")
    with pytest.raises(ProfileInvalid, match=case["says"]) as caught:
        load_profile("centos7-pike")
    assert case.get("advice", "") in caught.value.advice


def test_an_empty_configuration_says_nothing(home: Path) -> None:
    (home / "config.yaml").write_text("# nothing yet\n")
    assert load_settings() == Settings()
    assert load_profile("centos7-pike").size.memory == 6144


def test_an_unknown_profile_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownName, match="no profile 'centos7'") as caught:
        load_profile("centos7")
    assert caught.value.advice == "did you mean 'centos7-pike'?"


# --- variants ------------------------------------------------------------------------------------------------------


def test_a_variant_adds_and_takes_nothing_away() -> None:
    profile = load_profile("debian12-2026.1")
    changed = profile.with_variants(["container"])
    assert changed.values["datapath_type"] == "netdev"
    assert changed.values["api_workers"] == profile.values["api_workers"]
    assert changed.fragments == [*profile.fragments, "container"]
    assert changed.packages.install == [*profile.packages.install, "openvswitch-switch"]
    assert changed.external_ids == {"ovn-bridge-datapath-type": "netdev"}
    assert any("iscsid" in file.path for file in changed.files)
    assert changed.with_variants(["container"]).fragments == changed.fragments


def test_a_variant_that_the_profile_has_not() -> None:
    with pytest.raises(NotServed, match="has no variant 'container'"):
        load_profile("centos7-pike").with_variants(["container"])


class FakeMachine:
    """Answers one command as systemd-detect-virt would, because only one kind of machine is at hand at a time."""

    name = "stack@192.0.2.7"

    def __init__(self, says: str) -> None:
        self.says = says

    def run(self, *argv: str, **_: object) -> Finished:
        assert argv == ("systemd-detect-virt", "--container")
        return Finished("systemd-detect-virt --container", 0 if self.says != "none" else 1, f"{self.says}\n", "")


def chosen(says: str, profile: Profile, settings: Settings | None = None) -> Profile:
    return profile_for(FakeMachine(says), profile, settings or Settings())  # type: ignore[arg-type]


def test_a_container_gets_its_variant_by_itself_and_a_machine_does_not() -> None:
    profile = load_profile("debian12-2026.1")
    assert "container" in chosen("systemd-nspawn", profile).fragments
    assert chosen("none", profile) == profile


def test_a_container_is_refused_by_a_profile_that_cannot_live_in_one() -> None:
    with pytest.raises(NotServed, match=r"is a container \(lxc\), and profile centos7-pike needs a machine"):
        chosen("lxc", load_profile("centos7-pike"))


def test_the_configuration_names_variants() -> None:
    settings = Settings(variants=["vsctl"])
    assert "vsctl" in chosen("none", load_profile("centos7-pike"), settings).fragments
    assert chosen("none", load_profile("debian12-2026.1"), settings) == load_profile("debian12-2026.1")


# --- what people get wrong -----------------------------------------------------------------------------------------


def test_two_profiles_that_are_based_on_each_other_are_told(home: Path) -> None:
    (home / "profiles/one.yaml").write_text("based_on: two\n")
    (home / "profiles/two.yaml").write_text("based_on: one\n")
    with pytest.raises(
        ProfileInvalid, match=r"two.yaml:1: based_on: a profile cannot be based on itself: one → two → one"
    ):
        load_profile("one")


def test_a_profile_of_the_name_of_one_of_labs_own_is_refused(home: Path) -> None:
    (home / "profiles/centos7-pike.yaml").write_text("based_on: debian12-2026.1\n")
    with pytest.raises(ProfileInvalid, match=r"centos7-pike.yaml:1: lab has a profile 'centos7-pike' of its own"):
        load_profile("centos7-pike")


def test_a_value_that_a_fragment_of_ones_own_uses_is_fine(home: Path) -> None:
    (home / "local.conf.d").mkdir()
    (home / "local.conf.d/own.j2").write_text("MINE={{ v.my_value | sh }}\nOTHER={{ v['other_value'] | sh }}\n")
    (home / "profiles/mine.yaml").write_text(
        "based_on: debian12-2026.1\nvalues: {my_value: 1, other_value: x, volume_size: 30, disable: etcd3}\n"
    )
    assert load_profile("mine").values["my_value"] == 1


def test_a_variant_of_the_configuration_that_no_profile_has_is_refused(home: Path) -> None:
    pike = load_profile("centos7-pike")
    assert chosen_variants(load_profile("debian12-2026.1"), Settings(variants=["container"])) == ["container"]
    assert chosen_variants(pike, Settings(variants=["container"])) == []  # of another profile
    with pytest.raises(NotServed, match="has no variant 'nope'"):
        chosen_variants(pike, Settings(variants=["container", "nope"]))
