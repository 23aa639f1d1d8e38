"""The real `openstack` client, and other programs a step narrates, run with their arguments apart and secrets on stdin."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stacklab.errors import MissingProgram
from stacklab.kinds.narration import Command, Saved
from stacklab.kinds.stream import piped

TIMEOUT = 900
"""Seconds for one command; `server create --wait` on an emulated guest is the longest."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    output: str
    complaint: str


def openstack_program() -> str:
    """The client that was installed with us. Raises MissingProgram."""
    beside = Path(sys.executable).parent / "openstack"
    if not beside.exists():
        raise MissingProgram(
            "the openstack client is not installed beside lab", advice="pip install python-openstackclient"
        )
    return str(beside)


def environment(clouds_file: Path, entry: str) -> dict[str, str]:
    """The learner's environment with any OS_* login replaced by one entry of the lab's clouds.yaml.

    The programs that came with lab are found first: its client, and a Python that has openstacksdk.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    return clean | {"OS_CLIENT_CONFIG_FILE": str(clouds_file), "OS_CLOUD": entry, "PATH": path}


def run(command: Command, saved: Saved, clouds_file: Path, entry: str) -> Result:
    """Run one narrated command as somebody. Raises MissingProgram, DownloadFailed (of what is fed to it)."""
    program = openstack_program() if command.program == "openstack" else command.program
    argv = [program, *command.argv(saved)]
    env = environment(clouds_file, entry)
    if command.typed:
        return _typing(argv, env, command.typed.value)
    if command.feed:
        with piped(command.feed) as source:
            done = subprocess.run(
                argv, stdin=source, capture_output=True, env=env, timeout=TIMEOUT, start_new_session=True
            )
    else:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=TIMEOUT, start_new_session=True
        )
    return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def _typing(argv: list[str], env: dict[str, str], secret: str) -> Result:
    """Run a command that asks for a password. The client insists on a terminal, so it gets one; what it echoes is dropped."""
    import pexpect

    child = pexpect.spawn(
        argv[0], argv[1:], env=env, timeout=TIMEOUT, encoding="utf-8", codec_errors="replace", echo=False
    )
    try:
        while child.expect(["(?i)password[^:]*: *$", pexpect.EOF]) == 0:
            child.sendline(secret)
        output = (child.before or "").replace("\r\n", "\n")
    except pexpect.TIMEOUT:
        return Result(124, "", f"no answer within {TIMEOUT} s")
    finally:
        child.close()
    status = child.exitstatus if child.exitstatus is not None else 128 + (child.signalstatus or 0)
    return Result(status, output, output)
