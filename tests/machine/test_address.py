"""What a machine's address may look like, and what is said of one that is none."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacklab.errors import HomeUnavailable
from stacklab.machines.address import Address

ME = getpass.getuser()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An ssh_config with an alias, a jump, a chain of jumps, and the settings of a whole domain."""
    path = tmp_path / "config"
    path.write_text(
        "Host lab\n  HostName 192.0.2.7\n  Port 2222\n  User stack\n  IdentityFile /keys/lab\n"
        "Host inner\n  HostName 10.0.0.5\n  ProxyJump lab\n"
        "Host deep\n  ProxyJump lab,root@hop:23\n"
        "Host *.example.org\n  User learner\n"
        "Host proxied\n  ProxyCommand nc %h %p\n"
        "Host circle\n  ProxyJump circle2\nHost circle2\n  ProxyJump circle\n"
    )
    return path


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("ssh://stack@192.0.2.7", "stack", "192.0.2.7", 22),
        ("ssh://stack@192.0.2.7:2222", "stack", "192.0.2.7", 2222),
        ("ssh://192.0.2.7/", ME, "192.0.2.7", 22),
        ("SSH://stack@Node-1.Example.com", "stack", "node-1.example.com", 22),
        ("ssh://stack@[2001:db8::7]:2222", "stack", "2001:db8::7", 2222),
        ("ssh://[::1]", ME, "::1", 22),
        ("stack@[::1]:23", "stack", "::1", 23),
        ("stack@2001:db8::7", "stack", "2001:db8::7", 22),
        ("stack@node", "stack", "node", 22),
        ("node", ME, "node", 22),
    ],
)
def test_every_form_is_understood(config: Path, text: str, user: str, host: str, port: int) -> None:
    assert Address.parse(text, config=config) == Address(host, user, port)


def test_ssh_config_completes_and_what_is_typed_wins(config: Path) -> None:
    keys = (Path("/keys/lab"),)
    assert Address.parse("lab", config=config) == Address("192.0.2.7", "stack", 2222, keys)
    assert Address.parse("ssh://root@lab:22", config=config) == Address("192.0.2.7", "root", 22, keys)
    assert Address.parse("a.example.org", config=config).user == "learner"


def test_included_files_are_read_and_end_with_themselves(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "one").write_text("Host one\n  HostName 192.0.2.1\n")
    (tmp_path / "conf.d" / "two").write_text("Host two\n  HostName 192.0.2.2\n")
    config = tmp_path / "config"
    config.write_text("Include conf.d/*\nInclude absent\nPort 2222\nHost three\n  Include config\n  User third\n")
    assert Address.parse("one", config=config) == Address("192.0.2.1", ME, 2222)
    assert Address.parse("two", config=config) == Address("192.0.2.2", ME, 2222)
    assert Address.parse("three", config=config) == Address("three", "third", 2222)


def test_jumps_are_followed(config: Path) -> None:
    lab = Address("192.0.2.7", "stack", 2222, (Path("/keys/lab"),))
    assert Address.parse("inner", config=config).jump == lab
    assert Address.parse("deep", config=config).jump == Address("hop", "root", 23, (), lab)


def test_a_config_file_that_is_not_there_is_an_empty_one(tmp_path: Path) -> None:
    assert Address.parse("stack@node", config=tmp_path / "absent") == Address("node", "stack")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no host"),
        ("ssh://", "names no host"),
        ("stack@", "names no host"),
        ("@node", "user's name"),
        ("ssh://node:", "no port"),
        ("ssh://node:0", "no port"),
        ("ssh://node:70000", "no port"),
        ("ssh://node:²", "no port"),
        ("node:22", "ssh://node:22"),
        ("http://node", "only ssh://"),
        ("-oProxyCommand=id", "neither a host name"),
        ("stack@-v", "neither a host name"),
        ("-l@node", "user's name"),
        ("a b@node", "user's name"),
        ("node; id", "neither a host name"),
        ("ssh://node/path", "neither a host name"),
        ("ssh://[::1", "neither a host name"),
        ("proxied", "ProxyCommand"),
        ("circle", "circle"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(config: Path, text: str, why: str) -> None:
    with pytest.raises(HomeUnavailable) as refused:
        Address.parse(text, config=config)
    assert why in refused.value.message
    assert refused.value.advice


def test_a_password_in_an_address_is_refused_and_not_repeated(config: Path) -> None:
    with pytest.raises(HomeUnavailable, match="password") as refused:
        Address.parse("ssh://stack:hunter2@node", config=config)
    assert "hunter2" not in str(refused.value) + refused.value.advice


def test_a_config_file_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("this is no setting\0\nHost\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HomeUnavailable, match="binary"):
        Address.parse("node", config=tmp_path / "binary")


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Address.parse(text, config=Path("/nonexistent"))
    except HomeUnavailable:
        return
    assert not address.host.startswith("-")
    assert not address.user.startswith("-")
    assert Address.parse(f"ssh://{address.name}", config=Path("/nonexistent")) == address


def test_names_are_what_people_and_known_hosts_files_write() -> None:
    assert Address("192.0.2.7", "stack").name == "stack@192.0.2.7"
    assert Address("192.0.2.7", "stack", 2222).name == "stack@192.0.2.7:2222"
    assert Address("::1", "stack", 2222).name == "stack@[::1]:2222"
    assert Address("::1", "stack").known_as == "::1"
    assert Address("::1", "stack", 2222).known_as == "[::1]:2222"
