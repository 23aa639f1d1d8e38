"""Configuration files: whole, private, loopback only."""

from __future__ import annotations

import configparser
import json
import re
import stat
from pathlib import Path

import pytest

from stacklab.homes.embedded import config
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import PORT_NAMES, USERS, urls

PORTS = {name: 20100 + number for number, name in enumerate(PORT_NAMES)}
PASSWORDS = {name: f"secret-{name}" for name in ("admin", "learner", "swift_hash", "dashboard", *USERS)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    environment = tmp_path / "environment"
    (environment / "etc" / "nova").mkdir(parents=True)
    (environment / "etc" / "nova" / "api-paste.ini").write_text("[composite:osapi_compute]\n")
    layout = Layout(tmp_path / "home")
    config.write_configuration(layout, environment, PORTS, PASSWORDS)
    return layout


def files(layout: Layout) -> list[Path]:
    return [path for path in layout.conf.rglob("*") if path.is_file() and path.name != "api-paste.ini"]


def test_every_file_is_private(layout: Layout) -> None:
    assert len(files(layout)) >= 12
    for path in [*files(layout), layout.cloud_file]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(layout.home.stat().st_mode) == 0o700


def test_every_ini_file_can_be_read(layout: Layout) -> None:
    for path in files(layout):
        if path.suffix == ".conf":
            parser = configparser.RawConfigParser(strict=True)
            parser.read_string(path.read_text())
            assert parser.sections(), path


def test_nothing_listens_or_calls_beyond_loopback(layout: Layout) -> None:
    for path in files(layout):
        text = path.read_text()
        assert "0.0.0.0" not in text  # noqa: S104 - that is the point
        assert set(re.findall(r"https?://([^:/\s\"]+)", text)) <= {"127.0.0.1"}, path


def test_each_service_has_a_user_and_a_password_of_its_own(layout: Layout) -> None:
    text = "\n".join(path.read_text() for path in files(layout))
    for user in USERS:
        assert f"username = {user}\npassword = secret-{user}\n" in text


def test_the_admins_and_the_learners_passwords_are_in_no_service(layout: Layout) -> None:
    text = "\n".join(path.read_text() for path in files(layout))
    assert "secret-admin" not in text
    assert "secret-learner" not in text


def test_databases_wait_and_lie_in_the_clouds_directory(layout: Layout) -> None:
    text = (layout.conf / "keystone.conf").read_text()
    assert f"connection = sqlite:///{layout.home}/db/keystone.db?plugin=labcloud" in text


def test_the_clouds_file_has_both_entries_and_is_private(layout: Layout) -> None:
    clouds = json.loads(layout.clouds_file.read_text())["clouds"]  # JSON is YAML
    assert stat.S_IMODE(layout.clouds_file.stat().st_mode) == 0o600
    assert clouds["lab-admin"]["auth"]["username"] == "admin"
    learner = clouds["lab-learner"]
    assert (learner["auth"]["username"], learner["auth"]["project_name"]) == ("learner", "lab-project")
    assert learner["auth"]["auth_url"] == urls(PORTS)["keystone"]
    assert learner["region_name"] == "RegionOne"


def test_the_clouds_processes_inherit_no_proxy_and_no_other_clouds_settings(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "OS_PASSWORD", "OS_CLOUD", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "x")
    environment = config.process_environment(layout, Path("/environment"))
    assert not {"http_proxy", "HTTPS_PROXY", "OS_PASSWORD", "OS_CLOUD", "PYTHONDONTWRITEBYTECODE"} & set(environment)
    assert environment["PATH"].startswith("/environment/bin")


def test_no_secret_is_in_the_environment_of_the_clouds_processes(layout: Layout) -> None:
    environment = config.process_environment(layout, Path("/environment"))
    assert not [value for value in environment.values() if "secret-" in value]
