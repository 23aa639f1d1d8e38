"""`lab doctor` on this machine, whole and damaged. Nothing is asked of the internet: where a registry is needed, it is here."""

from __future__ import annotations

import grp
import http.server
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.deploy.profile.model import Box, DevStack, Size
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import embedded, examine, here, libvirt, registries
from stacklab.doctor.libvirt import LibvirtHost, virtualization
from stacklab.doctor.probe import Probe, bad, good
from stacklab.errors import DownloadFailed
from stacklab.homes.libvirt import accelerator
from stacklab.homes.libvirt.accelerator import find_accelerator
from stacklab.homes.plan import Plan
from stacklab.lab import Lab
from stacklab.machines.local import LocalMachine
from stacklab.prefetch import mirrors

GIB = 2**30
needs_libvirt = pytest.mark.skipif(
    not shutil.which("libvirtd", path="/usr/sbin:/usr/bin")
    or subprocess.run([sys.executable, "-c", "import libvirt"], capture_output=True, check=False).returncode != 0,
    reason="no libvirt here: scripts/system-packages vm, then pip install -e '.[libvirt]'",
)


class Registry:
    """An HTTP server on loopback; `off`: how many seconds its Date is ahead; `status`: what it answers."""

    def __init__(self) -> None:
        self.off, self.status, self.age = 0.0, 200, ""
        self.asked: list[str] = []
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                self.send_response_only(registry.status)
                self.send_header("Date", formatdate(time.time() + registry.off, usegmt=True))
                if registry.age:
                    self.send_header("Age", registry.age)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The only index that pip is configured with."""
    registry = Registry()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple")
    yield registry
    registry.close()


@pytest.fixture
def nobody(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> str:
    """The index is a port on which nobody listens."""
    from tests.machine.sshd import free_port

    url = f"http://127.0.0.1:{free_port()}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", url)
    return url


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    find_accelerator.cache_clear()
    yield
    find_accelerator.cache_clear()


# --- a probe ---------------------------------------------------------------------------------------------------------


def test_a_probe_that_raises_is_cannot_tell_with_the_reason() -> None:
    def broken() -> Finding:
        raise KeyError("MemTotal")

    found = Probe("memory", "memory", broken).run()
    assert (found.state, found.fine) == ("unknown", False)
    assert "KeyError: 'MemTotal'" in found.evidence


def subject_of(*probes: Probe) -> examine.Subject:
    subject = examine.Subject(Lab("intro"), Plan(home="embedded"), Settings())
    subject.__dict__["probes"] = list(probes)
    return subject


def test_a_probe_that_hangs_is_cannot_tell_and_keeps_nobody() -> None:
    release = threading.Event()

    def hangs() -> Finding:
        release.wait(60)
        return good("too late")

    heard: list[str] = []
    probes = (Probe("a", "first", hangs, seconds=10), Probe("b", "second", lambda: good("there")))
    first, second = [answer.finding for answer in examine.examine(subject_of(*probes), heard.append)]
    release.set()
    assert first.state == "unknown"
    assert "within 10 s" in first.evidence
    assert second.state == "good"
    assert heard == ["first"]  # after two seconds it is said what is waited for


def program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def findings(capsys: pytest.CaptureFixture[str], home: str) -> dict[str, dict[str, object]]:
    """What `lab doctor` says of a home that is not usable, by the probes' ids."""
    assert run(["doctor", "--json", "--on", home]) == 1
    value = json.loads(capsys.readouterr().out)
    assert {"home", "usable", "findings"} == set(value)
    assert value["usable"] is False
    return {finding["id"]: finding for finding in value["findings"]}


@pytest.mark.usefixtures("own_directories", "registry")
def test_a_broken_probe_fails_the_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Finding:
        raise OSError("no such file")

    monkeypatch.setattr(embedded, "memory", broken)
    memory = findings(capsys, "embedded")["memory"]
    assert memory["state"] == "unknown"
    assert memory["evidence"] == "the probe itself failed: OSError: no such file"
    assert run(["doctor", "--on", "embedded"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^\? memory +the probe itself failed", out, re.MULTILINE)
    assert "cannot be told: memory" in out


@pytest.mark.usefixtures("own_directories")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--on", "moon"], 22, "no home 'moon'"),
        (["--on", "ssh"], 22, "which machine"),
        (["--on", "embedded", "--profile", "debian12-2026.1"], 22, "--profile means nothing"),
        (["--on", "libvirt", "--profile", "debian"], 41, "no profile 'debian'"),
    ],
)
def test_what_cannot_be_examined_is_an_error_of_its_own(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", *arguments]) == code
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("own_directories", "registry")
@pytest.mark.parametrize("home", [None, "embedded", "libvirt"])
def test_without_a_home_each_gets_a_verdict_and_the_one_that_would_be_taken_decides(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_LIBVIRT_URI", f"qemu+unix:///system?socket={tmp_path}/nobody")
    if home:
        Lab("intro").update(home=home, plan={})
    assert run(["doctor", "--json"]) == 1  # the registry here has no Keystone
    value = json.loads(capsys.readouterr().out)
    assert [home["home"] for home in value["homes"]] == ["embedded", "libvirt", "ssh"]
    assert value["chosen"]["home"] == (home or "embedded")
    assert value["chosen"]["why"]
    verdicts = {home["home"]: home["usable"] for home in value["homes"]}
    assert verdicts == {"embedded": False, "libvirt": False, "ssh": None}
    assert any(lack.startswith("software: uv cannot get keystone") for lack in value["homes"][0]["lacks"])
    assert value["usable"] is False


@pytest.mark.usefixtures("own_directories", "registry")
def test_fix_says_what_it_could_not_mend(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_SYSTEM", "1")  # a test installs nothing
    monkeypatch.setattr(embedded, "memory", lambda: bad("too little", Remedy(("true",))))
    assert run(["doctor", "--on", "embedded", "--fix"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"memory: too little\n  → true\n  ✗ not repaired: too little", out)
    assert " repaired:" not in out.replace("not repaired:", "")


# --- virtualization ---------------------------------------------------------------------------------------------------


def test_kvm_is_called_good_only_where_a_guest_ran_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = find_accelerator(), virtualization()
    assert (told.state == "good") == (found.driver == "kvm" and found.really)
    if found.driver == "qemu":
        assert told.state == "warning"
        assert "10 to 20 times as long" in told.evidence  # what it costs
    monkeypatch.setenv("LAB_LIBVIRT_DRIVER", "kvm")
    assert virtualization().state == "unknown"  # what the user overruled was not tried


@pytest.mark.parametrize(
    ("flag", "path", "state", "says"),
    [
        ("ssse3", os.environ["PATH"], "warning", r"no kernel starts with the \S*kvm that is there"),
        ("vmx", "/nowhere", "unknown", "qemu-system-x86_64 to try it with"),
    ],
)
def test_neither_a_device_node_nor_a_processor_that_could_is_evidence(
    flag: str, path: str, state: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flag}\n")
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(accelerator, "NODE", tmp_path / "kvm")
    monkeypatch.setenv("PATH", path)
    told = virtualization()
    assert told.state == state
    assert re.search(says, told.evidence)


# --- programs that are missing ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("registry")
def test_without_vagrant_and_qemu_it_says_what_installs_them(
    own_directories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "bin" / "apt-get", "exit 100")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("LAB_LIBVIRT_URI", f"qemu+unix:///system?socket={tmp_path}/nobody")
    found = findings(capsys, "libvirt")
    assert found["vagrant"]["state"] == "bad"
    assert "vagrant-libvirt" in str(found["vagrant"]["repair"])
    assert found["vagrant"]["safe"] is True
    assert found["libvirt"]["state"] in ("bad", "unknown")
    assert found["packages"]["state"] == "bad"  # that apt-get answers with 100
    assert found["devstack"]["state"] == "unknown"  # nothing to ask with
    assert not (own_directories / "state").exists()  # looking leaves nothing behind


@pytest.mark.usefixtures("own_directories", "registry")
def test_an_embedded_home_without_qemu_is_usable_and_says_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = findings(capsys, "embedded")
    assert found["qemu"]["state"] == "warning"
    assert "qemu-img not found" in str(found["qemu"]["evidence"])
    assert found["software"]["state"] == "bad"  # the registry here has no Keystone


def test_a_qemu_that_does_not_run_is_not_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qemu-system-x86_64", "qemu-img"):
        program(tmp_path / name, "echo cannot load library >&2; exit 127")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    told = embedded.qemu()
    assert told.state == "bad"
    assert "cannot load library" in told.evidence


def test_ports_of_loopback_are_really_listened_on() -> None:
    assert embedded.loopback().state == "good"


# --- groups ---------------------------------------------------------------------------------------------------------------


def libvirt_host(uri: str | None = None, pool: str = "default", plan: Plan | None = None) -> LibvirtHost:
    return LibvirtHost(Lab("intro"), plan or Plan(home="libvirt"), Settings(libvirt_uri=uri, libvirt_pool=pool))


def refused() -> str:
    raise PermissionError("no polkit agent")


@pytest.mark.parametrize(
    ("gid", "members", "lets_in", "state", "says"),
    [
        (os.getegid(), [], refused, "good", "is in libvirt"),
        (999999, [], refused, "bad", "no polkit agent"),
        (999999, [], lambda: "libvirt 9", "good", "libvirt lets it in"),
        (999999, ["daemon"], refused, "bad", "this login is older"),
        (999999, ["daemon"], lambda: "libvirt 9", "good", "a new one is needed"),
    ],
)
def test_a_group_counts_by_whether_libvirt_lets_one_in(
    gid: int, members: list[str], lets_in: Callable[[], str], state: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("daemon").pw_uid)
    monkeypatch.setattr(grp, "getgrnam", lambda _: grp.struct_group(("libvirt", "x", gid, members)))
    host = libvirt_host()
    monkeypatch.setattr(host, "_version", lets_in)
    told = host.groups()
    assert told.state == state
    assert says in told.evidence
    assert ("usermod -aG libvirt daemon" in " ".join(map(str, told.remedies))) == (state == "bad" and not members)


# --- libvirt ------------------------------------------------------------------------------------------------------------


@needs_libvirt
@pytest.mark.usefixtures("own_directories")
def test_where_nobody_listens_libvirt_is_bad_and_what_hangs_on_it_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_LIBVIRT_URI", f"qemu+unix:///system?socket={tmp_path}/nobody")
    with examine.Subject(Lab("intro"), Plan(home="libvirt"), Settings()) as subject:
        probes = {probe.id: probe for probe in subject.probes}
        found = {name: probes[name].run() for name in ("libvirt", "pool", "network", "guests")}
    assert found["libvirt"].state == "bad"
    assert "does not answer" in found["libvirt"].evidence
    assert str(tmp_path) in str(found["libvirt"].remedies[0])
    assert isinstance(found["libvirt"].remedies[0], str)  # another URI's daemon is not lab's to start
    assert {found[name].state for name in ("pool", "network", "guests")} == {"unknown"}


@needs_libvirt
@pytest.mark.usefixtures("own_directories")
def test_a_pool_is_looked_at_and_not_started() -> None:
    """libvirt's own test driver: pools that live in this process."""
    host = libvirt_host("test:///default", "default-pool")
    assert host.pool().state == "good"
    missing = libvirt_host("test:///default", "nosuch").pool()
    assert missing.state == "warning"
    orders = [str(remedy).split()[3] for remedy in missing.remedies]
    assert orders == ["pool-define-as", "pool-build", "pool-start", "pool-autostart"]
    with host.asked() as hypervisor:
        pool = hypervisor._connection.storagePoolLookupByName("default-pool")
        pool.destroy()
        found = hypervisor.pool("default-pool")
        assert found is not None
        assert not found.active
        assert not pool.isActive()
        pool.create()


@pytest.mark.parametrize(
    ("free", "size", "state"),
    [
        (90, Size(disk=200), "bad"),  # the file system never held it
        (50, Size(disk=60), "warning"),
        (19, Size(disk=10), "bad"),  # two checkpoints with memory
        (90, Size(disk=60), "good"),
    ],
)
def test_room_for_the_vms_disk_of_100_gib(free: int, size: Size, state: str) -> None:
    told = libvirt.judged_disk(Path("/var/lib"), 100 * GIB, free * GIB, size)
    assert told.state == state
    assert ("--disk 50" in " ".join(map(str, told.remedies))) == (state == "warning")


def test_a_profile_that_wants_more_than_there_is_is_told(own_directories: Path) -> None:
    config = own_directories / "config" / "stacklab" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(
        "profiles:\n  centos7-pike:\n    size: {disk: 1000000, memory: 99000000, least_memory: 98000000}\n"
    )
    host = libvirt_host()
    disk, memory = host.disk(), host.memory()
    assert disk.state == "bad"
    assert memory.state == "bad"
    assert "at least" in memory.evidence


@pytest.mark.parametrize(
    ("total", "free", "state"), [(16, 8, "good"), (16, 5, "warning"), (16, 3, "bad"), (2, 2, "bad")]
)
def test_memory_below_what_is_wanted_works_at_a_cost_and_below_the_least_not_at_all(
    total: int, free: int, state: str
) -> None:
    assert here.judged_memory(total * GIB, free * GIB, 4 * GIB, 6 * GIB, "it swaps").state == state


# --- the box ----------------------------------------------------------------------------------------------------------


def box_of(box: Box, path: Path | None = None) -> Finding:
    host = libvirt_host(plan=Plan(home="libvirt", box=str(path) if path else None))
    host.profile = host.profile.model_copy(update={"box": box})
    return Probe("box", "box", host.box, wrong=DownloadFailed).run()


@pytest.mark.usefixtures("own_directories")
def test_a_box_is_at_hand_or_its_place_answers_or_it_is_bad(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant"))
    monkeypatch.setenv("VAGRANT_SERVER_URL", registry.url)
    box = Box(name="some/box", version="1.0", url=f"{registry.url}/some.box")
    told = box_of(box)
    assert told.state == "good"
    assert "not in Vagrant's store yet" in told.evidence
    assert box_of(Box(name="by/name")).state == "good"
    assert registry.asked == ["/some.box", "/by/name"]  # by name alone: Vagrant's catalogue
    registry.status = 404
    told = box_of(box)
    assert told.state == "bad"
    assert "404" in told.evidence
    store = tmp_path / "vagrant" / "boxes" / "some-VAGRANTSLASH-box" / "1.0" / "libvirt"
    store.mkdir(parents=True)
    (store / "metadata.json").write_text("{}")
    assert str(store) in box_of(box).evidence
    assert box_of(box, tmp_path / "nosuch.box").state == "bad"


# --- registries and the clock -----------------------------------------------------------------------------------------


def test_the_index_that_pip_is_configured_with_is_asked(registry: Registry) -> None:
    assert registries.python_index(Settings()).state == "good"
    assert registry.asked == ["/simple/pip/"]
    registry.status = 503
    told = registries.python_index(Settings())
    assert told.state == "bad"
    assert "503" in told.evidence


def test_a_silent_index_is_bad_and_a_missing_directory_of_files_is_told(
    nobody: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", nobody.replace("://", "://me:hunter2@"))
    told = registries.python_index(Settings())
    assert told.state == "bad"
    assert "hunter2" not in told.evidence
    monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file://{tmp_path}/nosuch")
    told = registries.python_index(Settings())
    assert told.state == "warning"
    assert "nosuch" in told.evidence


@pytest.mark.parametrize(
    ("status", "said", "state"),
    [
        (0, "Hit:1 http://a bookworm InRelease\nReading package lists...", "good"),
        (0, "Err:1 http://a bookworm InRelease\n  Could not resolve 'a'\nW: Failed to fetch http://a", "bad"),
        (100, "E: The repository 'http://a' is not signed.", "bad"),
        (0, "Reading package lists...", "bad"),
    ],
)
def test_what_apt_says_counts_more_than_its_status(status: int, said: str, state: str) -> None:
    assert registries.judged_answer("apt-get", status, said).state == state


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt-get here")
def test_apt_is_asked_for_real_and_its_lists_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = Path("/var/lib/apt/lists")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in lists.iterdir()) if lists.is_dir() else []
    sources = tmp_path / "apt.conf"
    sources.write_text(f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\n')
    (tmp_path / "sources.list").write_text("deb [trusted=yes] http://127.0.0.1:9/debian bookworm main\n")
    monkeypatch.setenv("APT_CONFIG", str(sources))
    assert registries.distribution(LocalMachine(), "apt-get").state == "bad"
    after = sorted((path.name, path.stat().st_mtime_ns) for path in lists.iterdir()) if lists.is_dir() else []
    assert after == before


@pytest.mark.usefixtures("own_directories")
def test_devstacks_repository_is_asked_for_its_ref(tmp_path: Path) -> None:
    repo = tmp_path / "devstack"
    git = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "stable/x", str(repo)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)

    def asked(ref: str, at: Path = repo) -> Finding:
        return registries.source_here(DevStack(repo=at.as_uri(), ref=ref), Settings())

    assert asked("stable/x").state == "good"
    assert "has no stable/y" in asked("stable/y").evidence
    missing = asked("stable/x", tmp_path / "nosuch")
    assert missing.state == "bad"
    assert "does not appear to be a git repository" in missing.evidence
    assert "exists" not in missing.evidence  # git's advice ends with: and the repository exists.


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "fatal: '/nope/' does not appear to be a git repository\nfatal: Could not read from remote repository.\n\n"
            "Please make sure you have the correct access rights\nand the repository exists.\n",
            "fatal: '/nope/' does not appear to be a git repository",
        ),
        (
            "Warning: Permanently added 'h'\nssh: Could not resolve hostname h\n"
            "fatal: Could not read from remote repository.\n\nPlease make sure\nand the repository exists.\n",
            "ssh: Could not resolve hostname h",
        ),
        (
            "fatal: Could not read from remote repository.\n\nPlease …\n",
            "fatal: Could not read from remote repository.",
        ),
        ("remote: Not found\nfatal: repository 'u' not found\n", "remote: Not found; fatal: repository 'u' not found"),
        ("git: 'ls-remot' is not a git command.\n", "git: 'ls-remot' is not a git command."),
        ("", ""),
    ],
)
def test_gits_complaint_is_told_and_not_the_end_of_its_advice(said: str, told: str) -> None:
    assert mirrors.complaint(said) == told


def test_the_clock_is_compared_with_the_registrys_date(registry: Registry) -> None:
    assert here.clock(Settings()).state == "good"
    registry.off = 600
    told = here.clock(Settings())
    assert told.state == "bad"
    seconds = re.match(r"(\d+) s behind", told.evidence)
    assert seconds
    assert 590 <= int(seconds[1]) <= 601  # less by as long as the answer took
    registry.off = -600
    assert "ahead of" in here.clock(Settings()).evidence
    registry.age = "600"  # a cache on the way: its answer is as old as it says
    assert here.clock(Settings()).state == "good"
    registry.status, registry.age, registry.off = 500, "", 0  # an error has a date, too
    assert here.clock(Settings()).state == "good"


def test_without_a_registry_the_clock_cannot_be_told(nobody: str) -> None:
    told = here.clock(Settings())
    assert told.state == "unknown"
    assert "nobody to compare it with" in told.evidence


# --- repairing ----------------------------------------------------------------------------------------------------------

FAILS = Remedy((sys.executable, "-c", "import sys; sys.exit('no such unit')"))
TOUCH = Remedy(("touch", "file"))


@pytest.mark.parametrize(
    ("remedies", "statuses", "state"),
    [
        ((TOUCH,), [0], "good"),
        ((Remedy(("true",)),), [0], "bad"),  # it ends well, repairs nothing, and is not run again
        ((FAILS, TOUCH), [1], "bad"),  # nothing is run after one that fails
        ((Remedy(("false",), optional=True), TOUCH), [1, 0], "good"),
        (("touch file",), [], "bad"),  # needs a decision
    ],
)
def test_repaired_is_said_only_when_the_new_look_says_so(
    remedies: tuple[Remedy | str, ...], statuses: list[int], state: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    here = [Remedy(("touch", str(file))) if remedy is TOUCH else remedy for remedy in remedies]
    subject = subject_of(Probe("file", "file", lambda: good("there") if file.exists() else bad("absent", *here)))
    *events, answers = examine.repair(subject, list(examine.examine(subject)))
    assert isinstance(answers, list)
    assert [answer.finding.state for answer in answers] == [state]
    log = [event for event in events if isinstance(event, examine.Repaired)]
    assert [attempt.status for done in log for attempt in done.attempts] == statuses
    assert [done.better for done in log] == [state == "good" for _ in log]
    assert all(attempt.output == "no such unit" for done in log for attempt in done.attempts if remedies[0] is FAILS)


@pytest.mark.parametrize(("permission", "says"), [("installs", "NO_SYSTEM"), ("root", "sudo wants a password")])
def test_what_may_not_be_run_is_not_run(
    permission: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    monkeypatch.setenv("NO_SYSTEM", "1")
    monkeypatch.setenv("PATH", str(tmp_path))  # without sudo
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = Remedy(("touch", str(file)), root=permission == "root", installs=permission == "installs").run()
    assert ran.status is None
    assert says in ran.output
    assert ran.line.startswith("sudo touch") == (permission == "root")
    assert not file.exists()
