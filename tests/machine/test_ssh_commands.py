"""Running programs: what is given arrives, what comes back is what was said, and nothing outlives its time.

The same is promised of a machine at the other end of SSH and of this one, so it is tested on both.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stacklab.errors import CommandFailed, SudoRefused
from stacklab.machines import base
from stacklab.machines.base import Machine
from stacklab.machines.local import LocalMachine
from stacklab.machines.ssh import SshMachine
from tests.machine.conftest import running_sshd
from tests.machine.sshd import Sshd, kill


@pytest.fixture(scope="module")
def over_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshMachine]:
    """One account on one sshd for all tests of this module: none of them breaks anything."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        here = server.machine()
        yield here
        here.close()


@pytest.fixture(params=["ssh", "local"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """The current user's account, by both ways."""
    if request.param == "local":
        return LocalMachine()
    there: Machine = request.getfixturevalue("over_ssh")
    return there


HOSTILE = [
    "", " ", "it's", '"double"', "$(touch /tmp/owned)", "`id`", "${HOME}", "a\nb\n", "\ttab", "--", "-rf", "-c", "~root", "*",
    "a;b|c&d", "!history", "\\", "\\n", "é ü 漢字 🐧", "%s%n", "x=y", "\x01\x7f",
]  # fmt: skip
PRINT = ("python3", "-c", "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))")


_numbers = itertools.count()


def long_time() -> str:
    """Seconds to sleep that no other process on this machine sleeps, so that it can be looked for by them."""
    return f"7{os.getpid()}.{next(_numbers)}1"


def gone(marker: str) -> bool:
    """Whether no process has this word in its command line any more."""
    return not running(marker)


def running(marker: str) -> list[str]:
    processes = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if marker.encode() in words:
            processes.append(entry.name)
    return processes


def end(marker: str) -> None:
    """Kill what has this word in its command line."""
    for pid in running(marker):
        kill(int(pid))


def eventually(happens: object, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happens():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_hostile_arguments_and_variables_arrive_as_they_are(machine: Machine) -> None:
    assert machine.run(*PRINT, *HOSTILE).out == "\0".join(HOSTILE)
    environment = {f"LAB_{number}": word for number, word in enumerate(HOSTILE)}
    show = "import os, sys; sys.stdout.write('\\0'.join(os.environ['LAB_%d' % n] for n in range(int(sys.argv[1]))))"
    assert machine.run("python3", "-c", show, str(len(HOSTILE)), environment=environment).out == "\0".join(HOSTILE)
    no_utf8 = machine.run("sh", "-c", 'printf %s "$1" | od -An -tx1', "sh", os.fsdecode(b"a\xff"))
    assert no_utf8.out.split() == ["61", "ff"]


def test_standard_input_arrives_whole_and_ends(machine: Machine) -> None:
    data = os.urandom(5_000_000)
    assert int(machine.run("wc", "-c", given=data).out) == len(data)
    assert machine.run("cat", given="ünï\n").out == "ünï\n"
    assert machine.run("cat", seconds=20).out == ""


def test_a_program_that_does_not_read_its_input_ends_all_the_same(machine: Machine) -> None:
    assert machine.run("true", given=b"x" * 8_000_000, seconds=30).ok


@pytest.mark.parametrize("status", [0, 1, 124, 255])
def test_the_exit_status_is_told(machine: Machine, status: int) -> None:
    done = machine.run("sh", "-c", f"exit {status}", check=False)
    assert (done.status, done.out, done.err) == (status, "", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_death_by_a_signal_is_128_and_the_signal(machine: Machine, number: signal.Signals) -> None:
    done = machine.run("sh", "-c", f"kill -{number.value} $$", check=False)
    assert (done.status, done.err) == (128 + number, "")


def test_a_failure_tells_the_last_line_and_keeps_all(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match=r"status 3: the reason$") as failed:
        machine.run("sh", "-c", "echo first >&2; echo the reason >&2; exit 3")
    assert (failed.value.status, failed.value.said) == (3, "first\nthe reason\n")
    with pytest.raises(CommandFailed, match="no-such-program") as failed:
        machine.run("no-such-program")
    assert failed.value.status == 127


def test_a_script_gets_arguments_and_stops_at_the_first_failure(machine: Machine) -> None:
    assert machine.script('printf "%s|" "$@"', "a b", "-c", "$(id)").out == "a b|-c|$(id)|"
    done = machine.script("echo one; false; echo two", check=False)
    assert (done.status, done.out) == (1, "one\n")
    assert machine.script("# " + "x" * 300_000 + "\necho long").out == "long\n"
    with pytest.raises(CommandFailed, match="the script that begins with: exit 7"):
        machine.script("# why\nexit 7")


def test_what_a_script_runs_does_not_eat_the_script(machine: Machine) -> None:
    assert machine.script("cat\nwhile read -r line; do echo $line; done\necho end\n").out == "end\n"


def test_half_a_script_is_not_run(over_ssh: SshMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_bytes", lambda text: text.encode()[:10])
    done = over_ssh.script("echo one\necho two", check=False)
    assert (done.status, done.out) == (1, "")
    assert "whole" in done.err


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root: run the tests as root")
def test_as_another_user_home_directory_and_names_are_that_users(over_ssh: SshMachine) -> None:
    done = over_ssh.script('id -un; echo "$HOME $USER"; pwd', user="games")
    assert done.lines == ["games", "/usr/games games", "/usr/games"]
    assert over_ssh.run("id", "-un", user="root").lines == ["root"]


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root: run the tests as root")
def test_a_user_who_is_not_there_is_an_error_of_its_own(machine: Machine) -> None:
    with pytest.raises(SudoRefused, match="lab-nobody-here"):
        machine.run("true", user="lab-nobody-here")


def test_a_huge_output_keeps_its_ends_and_says_what_is_missing(machine: Machine) -> None:
    out = machine.script("printf begin; head -c 40000000 /dev/zero | tr '\\0' x; printf end", seconds=100).out
    assert out.startswith("begin")
    assert out.endswith("end")
    assert "bytes left out" in out
    assert base.LIMIT <= len(out) < base.LIMIT * 1.2


def test_a_daemon_that_keeps_the_output_open_holds_nobody_up(machine: Machine) -> None:
    nap = long_time()
    done = machine.run("sh", "-c", f"echo started; sleep {nap} & exit 5", seconds=25, check=False)
    end(nap)
    assert (done.status, done.out) == (5, "started\n")
    assert done.seconds < 20


def test_a_command_that_is_too_slow_is_ended_on_the_machine(machine: Machine) -> None:
    nap = long_time()
    with pytest.raises(CommandFailed, match="did not end within 3 s") as failed:
        machine.run("sh", "-c", f"echo so far; sleep {nap}", seconds=3, check=False)
    assert failed.value.status is None
    assert failed.value.said == "so far\n"
    assert eventually(lambda: gone(nap))


def test_children_that_ignore_the_end_are_ended_too(machine: Machine) -> None:
    nap = long_time()
    with pytest.raises(CommandFailed, match="did not end"):
        machine.run("sh", "-c", f"(trap '' TERM; exec sleep {nap}) & wait", seconds=0.5)
    assert eventually(lambda: gone(nap))


def test_an_interrupt_reaches_the_program_on_the_machine(machine: Machine) -> None:
    nap = long_time()
    machine.run("true")  # connects

    def interrupt() -> None:
        assert eventually(lambda: running(nap))
        time.sleep(2)  # what does not know yet that its command has begun has nothing to end
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        machine.run("sh", "-c", f"exec sleep {nap}", seconds=60)
    thread.join()
    assert eventually(lambda: gone(nap))
    assert machine.run("echo", "still here").out == "still here\n"


def test_several_threads_share_a_machine(machine: Machine) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = machine.run("sh", "-c", f"sleep 0.3; echo {number}").out

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n" for number in range(12)}


def test_the_system_ssh_client_gets_in_the_same_way(over_ssh: SshMachine) -> None:
    over_ssh.connect()  # pins the host key
    words = ["printf", "%s|", *[word for word in HOSTILE if word]]
    done = subprocess.run(over_ssh.ssh_argv(*words), capture_output=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.decode() == "|".join(words[2:]) + "|"


def test_the_system_ssh_client_refuses_a_key_that_is_not_pinned(sshd: Sshd) -> None:
    done = subprocess.run(sshd.machine().ssh_argv("true"), capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr
