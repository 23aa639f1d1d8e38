"""What a machine's address may look like, what ssh makes of it, and what is said of one that is none."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path

import pytest

from stacklab.errors import HomeUnavailable, MissingProgram
from stacklab.machines.address import Address

ME = getpass.getuser()
KURS = "Host kurs\n  HostName 192.0.2.20\n"
FILES = {
    # An alias, a jump, a chain of jumps, and a circle.
    "config": "Host lab\n  HostName 192.0.2.7\n  Port 2222\n  User stack\n"
    "Host inner\n  HostName 10.0.0.5\n  ProxyJump lab\nHost deep\n  ProxyJump lab,root@hop:23\n"
    "Host circle\n  ProxyJump circle2\nHost circle2\n  ProxyJump circle\n"
    f"{KURS}  ProxyJump bastion\nHost *\n  ProxyCommand nc -X connect -x proxy:3128 %h %p\n",
    "more": f"{KURS}  User stack\n",
    "inside": "Host kurs\n  HostName 192.0.2.66\n  Port 99\n",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path / "config"


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("ssh://stack@192.0.2.7", "stack", "192.0.2.7", 22),
        ("ssh://stack@192.0.2.7:2222", "stack", "192.0.2.7", 2222),
        ("ssh://192.0.2.7/", ME, "192.0.2.7", 22),
        ("ssh://stack@Node-1.Example.com", "stack", "node-1.example.com", 22),
        ("ssh://stack@[2001:db8::7]:2222", "stack", "2001:db8::7", 2222),
        ("ssh://[::1]", ME, "::1", 22),
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
    address = Address.parse(text, config=config)
    assert (address.user, address.host, address.port) == (user, host, port)


@pytest.mark.parametrize(
    ("text", "alias", "means"),
    [
        pytest.param(f"CanonicalizeHostname yes\n{KURS}  User stack\n", "kurs", "stack@192.0.2.20", id="canonical"),
        pytest.param(KURS.replace("kurs", "DevStack"), "DevStack", f"{ME}@192.0.2.20", id="capitals"),
        pytest.param(f"{KURS}  User stack   # your own\n", "kurs", "stack@192.0.2.20", id="comment"),
        pytest.param(f"{KURS}Match final all\n  ForwardAgent no\n", "kurs", f"{ME}@192.0.2.20", id="final"),
        pytest.param(f"Match host 192.0.2.20\n  User notme\n{KURS}", "kurs", f"{ME}@192.0.2.20", id="match"),
        pytest.param(f"Match !host kurs\n  User notme\n{KURS}", "kurs", f"{ME}@192.0.2.20", id="negated"),
        pytest.param(f"{KURS}  ProxyCommand none\n", "kurs", f"{ME}@192.0.2.20", id="no-proxy"),
        pytest.param(f"# Rechner f\xfcr den Kurs\n{KURS}", "kurs", f"{ME}@192.0.2.20", id="latin-1"),
        pytest.param("Host work/kurs\n  HostName 192.0.2.20\n", "work/kurs", f"{ME}@192.0.2.20", id="slash"),
        pytest.param("Host kurs6\n  HostName fe80::1%%virbr0\n", "kurs6", f"{ME}@fe80::1%virbr0", id="percent"),
        pytest.param("Include\t{0}/more\n", "kurs", "stack@192.0.2.20", id="include-tab"),
        pytest.param("Host other\n  Include {0}/inside\nHost *\n  User me\n", "kurs", "me@kurs", id="include-in-host"),
    ],
)
def test_a_configuration_means_what_it_means_to_ssh(config: Path, text: str, alias: str, means: str) -> None:
    config.write_text(text.format(config.parent), encoding="latin-1")
    assert Address.parse(alias, config=config).name == means


@pytest.mark.parametrize(
    ("alias", "jumps"),
    [
        ("inner", ["stack@192.0.2.7:2222"]),
        ("deep", ["root@hop:23", "stack@192.0.2.7:2222"]),
        ("kurs", [f"{ME}@bastion"]),  # not the ProxyCommand, which comes later
    ],
)
def test_jumps_are_followed(config: Path, alias: str, jumps: list[str]) -> None:
    address, names = Address.parse(alias, config=config), []
    while address.jump:
        address = address.jump
        names.append(address.name)
    assert names == jumps


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no host"),
        ("stack@", "names no host"),
        ("@node", "ssh does not understand it"),
        ("ssh://node:0", "ssh does not understand it"),
        ("ssh://node/path", "ssh does not understand it"),
        ("node:22", "ssh://node:22"),
        ("http://node", "only ssh://"),
        ("-oProxyCommand=id", "invalid characters"),
        ("stack@-v", "invalid characters"),
        ("node;id", "no host is called like this"),
        ("circle", "circle"),
        ("ssh://stack:hunter2@node", "password"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(config: Path, text: str, why: str) -> None:
    with pytest.raises(HomeUnavailable) as refused:
        Address.parse(text, config=config)
    assert why in refused.value.message
    assert refused.value.advice
    assert "hunter2" not in str(refused.value) + refused.value.advice


def test_a_configuration_that_ssh_refuses_is_told_with_its_line(config: Path) -> None:
    config.write_text(f"{KURS}Match no-such-criterion yes\n  User x\n")
    with pytest.raises(HomeUnavailable, match=r"line 3") as refused:
        Address.parse("kurs", config=config)
    assert "ssh -G" in refused.value.advice


def test_without_ssh_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingProgram, match="ssh is not installed") as missing:
        Address.parse("node")
    assert "openssh-client" in missing.value.advice


def test_names_are_what_people_and_known_hosts_files_write() -> None:
    assert Address("192.0.2.7", "stack", 2222).name == "stack@192.0.2.7:2222"
    assert Address("::1", "stack", 2222).name == "stack@[::1]:2222"
    assert (Address("::1", "stack").known_as, Address("::1", "stack", 2222).known_as) == ("::1", "[::1]:2222")
