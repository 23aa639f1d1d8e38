"""What a machine's address may look like, what ssh makes of it, and what is said of one that is none."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacklab.errors import HomeUnavailable, MissingProgram
from stacklab.machines.address import Address

ME = getpass.getuser()
KURS = "Host kurs\n  HostName 192.0.2.20\n"


def parsed(text: str, config: Path | str = Path("/dev/null")) -> tuple[str, str, int]:
    """User, host and port."""
    address = Address.parse(text, config=Path(config))
    return address.user, address.host, address.port


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An ssh_config with an alias, a jump, a chain of jumps, and a circle."""
    path = tmp_path / "config"
    path.write_text(
        "Host lab\n  HostName 192.0.2.7\n  Port 2222\n  User stack\n"
        "Host inner\n  HostName 10.0.0.5\n  ProxyJump lab\n"
        "Host deep\n  ProxyJump lab,root@hop:23\n"
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
        ("lab", "stack", "192.0.2.7", 2222),
        ("ssh://root@lab:22", "root", "192.0.2.7", 22),
    ],
)
def test_every_form_is_understood_and_what_is_typed_wins(
    config: Path, text: str, user: str, host: str, port: int
) -> None:
    assert parsed(text, config) == (user, host, port)


@pytest.mark.parametrize(
    ("text", "alias", "user", "host", "port"),
    [
        pytest.param(
            f"CanonicalizeHostname yes\n{KURS}  User stack\n", "kurs", "stack", "192.0.2.20", 22, id="canonical"
        ),
        pytest.param(KURS.replace("kurs", "DevStack"), "DevStack", ME, "192.0.2.20", 22, id="capitals"),
        pytest.param(f"{KURS}  User stack   # your own\n", "kurs", "stack", "192.0.2.20", 22, id="comment"),
        pytest.param(f"{KURS}Match final all\n  ForwardAgent no\n", "kurs", ME, "192.0.2.20", 22, id="final"),
        pytest.param(
            f"{KURS}Match final all\n  ForwardAgent no\n", "ssh://root@192.0.2.7", "root", "192.0.2.7", 22, id="other"
        ),
        pytest.param(f"Match host 192.0.2.20\n  User notme\n{KURS}", "kurs", ME, "192.0.2.20", 22, id="match"),
        pytest.param(f"Match !host kurs\n  User notme\n{KURS}", "kurs", ME, "192.0.2.20", 22, id="negated"),
        pytest.param(f"{KURS}  ProxyCommand none\n", "kurs", ME, "192.0.2.20", 22, id="no-proxy"),
        pytest.param(f"{KURS}  ProxyCommand nc %h %p\n", "kurs", ME, "192.0.2.20", 22, id="proxy"),
        pytest.param(f"# Rechner f\xfcr den Kurs\n{KURS}", "kurs", ME, "192.0.2.20", 22, id="latin-1"),
        pytest.param("Host work/kurs kurs+1\n  HostName 192.0.2.20\n", "work/kurs", ME, "192.0.2.20", 22, id="slash"),
        pytest.param("Host work/kurs kurs+1\n  HostName 192.0.2.20\n", "kurs+1", ME, "192.0.2.20", 22, id="plus"),
        pytest.param("Host kurs6\n  HostName fe80::1%%virbr0\n", "kurs6", ME, "fe80::1%virbr0", 22, id="percent"),
        pytest.param("Include\tmore\n", "kurs", "stack", "192.0.2.20", 22, id="include-tab"),
        pytest.param(
            "Host other\n  Include inner\nHost *\n  User me\n", "kurs", "me", "kurs", 22, id="include-in-host"
        ),
    ],
)
def test_a_configuration_means_what_it_means_to_ssh(
    tmp_path: Path, text: str, alias: str, user: str, host: str, port: int
) -> None:
    (tmp_path / "config").write_text(
        text.replace("more", str(tmp_path / "more")).replace("inner", str(tmp_path / "inner")), encoding="latin-1"
    )
    (tmp_path / "more").write_text(f"{KURS}  User stack\n")
    (tmp_path / "inner").write_text("Host kurs\n  HostName 192.0.2.66\n  Port 99\n")
    assert parsed(alias, tmp_path / "config") == (user, host, port)


def test_jumps_are_followed_and_the_first_of_jump_and_proxy_counts(config: Path, tmp_path: Path) -> None:
    jump = Address.parse("inner", config=config).jump
    assert jump
    assert jump.name == "stack@192.0.2.7:2222"
    last = Address.parse("deep", config=config).jump
    assert last
    assert last.jump
    assert (last.name, last.jump.name) == ("root@hop:23", "stack@192.0.2.7:2222")
    both = tmp_path / "both"
    both.write_text(f"{KURS}  ProxyJump bastion\nHost *\n  ProxyCommand nc -X connect -x proxy:3128 %h %p\n")
    through = Address.parse("kurs", config=both).jump
    assert through
    assert through.host == "bastion"


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
        ("-oProxyCommand=id", "cannot be a host"),
        ("stack@-v", "cannot be a host"),
        ("-l@node", "user's name"),
        ("a b@node", "user's name"),
        ("node;id", "cannot be a host"),
        ("ssh://node/path", "cannot be a host"),
        ("ssh://[::1", "cannot be a host"),
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


def test_a_configuration_that_ssh_refuses_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"{KURS}Match no-such-criterion yes\n  User x\n")
    with pytest.raises(HomeUnavailable, match=r"line 3") as refused:
        Address.parse("kurs", config=tmp_path / "config")
    assert "ssh -G" in refused.value.advice


def test_without_ssh_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingProgram, match="ssh is not installed") as missing:
        Address.parse("node")
    assert "openssh-client" in missing.value.advice


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Address.parse(text, config=Path("/dev/null"))
    except HomeUnavailable:
        return
    assert not address.host.startswith("-")
    assert not address.user.startswith("-")
    assert not set(address.host) & set("'`\"$\\;&<>|(){} ")


def test_names_are_what_people_and_known_hosts_files_write() -> None:
    assert Address("192.0.2.7", "stack").name == "stack@192.0.2.7"
    assert Address("192.0.2.7", "stack", 2222).name == "stack@192.0.2.7:2222"
    assert Address("::1", "stack", 2222).name == "stack@[::1]:2222"
    assert Address("::1", "stack").known_as == "::1"
    assert Address("::1", "stack", 2222).known_as == "[::1]:2222"
