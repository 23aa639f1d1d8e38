"""What a machine is options of where packages and files come from, as far as this host decides it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from stacklab.cache import cache_path
from stacklab.deploy.deployment import Deployment
from stacklab.deploy.localconf.render import SECRETS, render
from stacklab.deploy.prepare.files import content, mirrored
from stacklab.deploy.prepare.forms import MachineFile
from stacklab.deploy.prepare.internet import accounts, pip_settings, proxies, without_account
from stacklab.deploy.prepare.packages import PackageManager
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import PlacedFile
from stacklab.deploy.profile.settings import Settings
from stacklab.download import WrongContent
from stacklab.errors import ProfileInvalid


def test_machines_pip_uses_the_index_that_this_host_uses(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://other.example/simple file:///srv/wheels",
        "PIP_FIND_LINKS": "/srv/wheels",
    }
    assert pip_settings(Settings(), environment, "") == {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://other.example/simple",
        "timeout": "60",
    }


@pytest.mark.parametrize(
    "index", ["http://127.0.0.1:3141/root/pypi", "http://me:pw@localhost/simple", "file:///srv/simple"]
)
def test_an_index_that_only_this_host_reaches_is_not_passed_on(tmp_path: Path, index: str) -> None:
    environment = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index}
    assert pip_settings(Settings(), environment, "") == {}


def test_the_users_own_index_counts_more_and_own_certificates_are_named(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "https://mirror.example/simple",
    }
    settings = Settings(pip_index="https://mine.example/simple", ca_file=tmp_path / "ca.pem")
    assert pip_settings(settings, environment, "/etc/ssl/certs/ca-certificates.crt") == {
        "index-url": "https://mine.example/simple",
        "cert": "/etc/ssl/certs/ca-certificates.crt",
        "timeout": "60",
    }


def test_the_machine_itself_is_never_behind_the_proxy() -> None:
    options = proxies(Settings(proxy="http://proxy.example:3128", no_proxy=["10.0.0.0/8"]))
    assert options["no_proxy"] == "localhost,127.0.0.1,10.0.0.0/8"
    assert proxies(Settings()) == {}


def test_addresses_inside_a_repository_file_go_through_the_mirrors() -> None:
    settings = Settings(mirrors={"http://vault.centos.org/": "https://mirror.example/vault/"})
    text = "[base]\nbaseurl=http://vault.centos.org/7.9.2009/os/$basearch/\ngpgkey=file:///etc/pki/key\n"
    assert mirrored(text, settings) == text.replace("http://vault.centos.org/", "https://mirror.example/vault/")


def test_a_fetched_file_is_kept_and_a_changed_one_is_refused(own_directories: Path, tmp_path: Path) -> None:
    served = tmp_path / "served.img"
    served.write_bytes(b"whole")
    right = hashlib.sha256(b"whole").hexdigest()
    placed = PlacedFile(path="files/served.img", url=served.as_uri(), sha256=right, why="a test")
    assert content(placed, Settings(), lambda _: None) == b"whole"
    served.unlink()
    assert content(placed, Settings(), lambda _: None) == b"whole"  # from the cache

    cache_path(str(placed.url)).write_bytes(b"damaged")
    served.write_bytes(b"changed")
    with pytest.raises(WrongContent):
        content(placed, Settings(), lambda _: None)


ACCOUNT = "https://me:hu%40sh@mirror.example"


def test_accounts_of_mirrors_are_lines_of_netrc_and_addresses_go_without_them() -> None:
    lines = accounts([f"{ACCOUNT}/git/", f"{ACCOUNT}/pypi", "https://open.example/", "git://mirror.example/", "/srv/x"])
    assert lines == "machine mirror.example login me password hu@sh\n"
    assert without_account(f"url={ACCOUNT}/a ssh://git@host/b") == "url=https://mirror.example/a ssh://git@host/b"
    assert Settings(proxy="http://me:p%40w@p:1", mirrors={"a": ACCOUNT}).passwords == [
        "hu%40sh",
        "hu@sh",
        "p%40w",
        "p@w",
    ]


@pytest.mark.parametrize("urls", [["https://token@h/"], ["https://a:b%20c@h/"], ["https://a:b@h/", "https://a:c@h/x"]])
def test_an_account_that_netrc_cannot_hold_is_refused_and_not_shown(urls: list[str]) -> None:
    with pytest.raises(ProfileInvalid) as caught:
        accounts(urls)
    assert "b c" not in caught.value.message
    assert "token" not in caught.value.message


def test_no_account_is_in_local_confs_mirrors() -> None:
    settings = Settings(
        mirrors={"https://opendev.org/": "https://me:hush@mirror/", "https://github.com/": ACCOUNT + "/"}
    )
    secrets = dict.fromkeys(SECRETS, "x")
    text = render(load_profile("centos7-pike"), settings, secrets=secrets, host_ip="192.0.2.7")
    assert "GIT_BASE=https://mirror\n" in text
    assert "hush" not in text
    assert "hu%40sh" not in text


def test_what_was_prefetched_is_asked_first_and_the_users_own_index_for_the_rest() -> None:
    settings = Settings(pip_first="http://127.0.0.1:20000/python/3.11-2.36/")
    options = pip_settings(
        settings, {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "https://mirror.example/simple"}, ""
    )
    assert options["index-url"] == settings.pip_first
    assert options["extra-index-url"] == "https://mirror.example/simple"
    assert "trusted-host" not in options  # pip lets loopback pass, and nothing else is to be trusted without TLS


@pytest.mark.parametrize("path", ["/etc/yum.conf", "/etc/dnf/dnf.conf"])
def test_a_proxy_for_packages_comes_into_yums_file_and_goes_again(path: str) -> None:
    def written(content: bytes, proxy: str | None) -> list[MachineFile]:
        machine = SimpleNamespace(read={path: content}.get)
        profile, settings = load_profile("centos7-pike"), Settings(packages_proxy=proxy)
        deployment = SimpleNamespace(machine=machine, profile=profile, settings=settings)
        return PackageManager(cast(Deployment, deployment)).proxy_files()

    before = b"[main]\ngpgcheck=1\n"
    assert written(before, None) == []
    (file,) = written(before, "http://me:hush@cache:3142")
    assert (file.path, file.content) == (
        path,
        b"[main]\n# stacklab: packages_proxy\nproxy=http://cache:3142\ngpgcheck=1\n",
    )
    assert written(file.content or b"", "http://cache:3142") == [file]
    assert written(file.content or b"", None)[0].content == before
