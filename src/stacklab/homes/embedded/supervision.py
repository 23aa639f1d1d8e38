"""Our side of the supervisor: start it, ask how the services are, give it orders, end all that runs of a cloud."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from stacklab.cloud.access import ServiceState
from stacklab.errors import NotRunning, ServiceFailed, StageFailed
from stacklab.files import read_derivable
from stacklab.homes.embedded import config
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import running_services
from stacklab.stages import Progress
from stacklab.waiting import NotYet, looks, until


def is_running(layout: Layout) -> bool:
    """Whether the supervisor lives: it does exactly while it holds its lock."""
    try:
        with (layout.run / "supervisor.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def start(layout: Layout, environment: Path) -> None:
    """Start the supervisor, detached from this terminal; returns when it holds its lock."""
    for stale in (layout.state_file, layout.run / "supervisor.sock"):
        stale.unlink(missing_ok=True)
    log = layout.logs / "supervisor.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [environment / "bin" / "python", "-m", "labcloud.supervisor"],
            env=config.process_environment(layout, environment), cwd=layout.home, stdin=subprocess.DEVNULL,
            stdout=descriptor, stderr=descriptor, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + 60
    while not layout.state_file.exists():
        if process.poll() is not None:
            raise StageFailed(
                f"the supervisor ended with status {process.returncode}: {last_line(log)}", advice=f"see {log}"
            )
        if time.monotonic() > deadline:
            raise StageFailed("the supervisor did not begin within 60 s", advice=f"see {log}")
        time.sleep(0.05)
    process.returncode = 0  # it is a daemon now: not ours to wait for


def services(layout: Layout, *, memory: bool = False) -> list[ServiceState]:
    """How each service is, from what the supervisor last wrote; all stopped when there is no supervisor."""
    known = {state["name"]: state for state in _states(layout)}
    states = []
    for service in running_services(read_derivable(layout.cloud_file).get("network", "user")):
        state = known.get(service.name, {})
        log = layout.logs / f"{service.name}.log"
        states.append(
            ServiceState(
                name=service.name, state=state.get("state", "stopped"), pid=state.get("pid"), since=state.get("since"),
                restarts=state.get("restarts", 0), reason=state.get("reason", ""), log=log if log.exists() else None,
                memory=proportional_memory(state.get("pid")) if memory else None,
            )
        )  # fmt: skip
    return states


def _states(layout: Layout) -> list[dict[str, Any]]:
    if not is_running(layout):
        return []
    if written := read_derivable(layout.state_file).get("services"):
        return list(written)
    try:
        return list(order(layout, "status")["services"])  # the file is broken, and written again when something changes
    except (NotRunning, ServiceFailed):
        return []


def supervisor_pid(layout: Layout) -> int | None:
    pid = read_derivable(layout.state_file).get("pid")
    return int(pid) if pid and is_running(layout) else None


def proportional_memory(pid: int | None) -> int | None:
    """The process's share of memory (PSS): pages shared with its siblings count in part."""
    if pid is None:
        return None
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), None)
    return int(line.split()[1]) * 1024 if line else None


def order(layout: Layout, what: str, *, to: str = "supervisor", patience: float = 60, **more: object) -> dict[str, Any]:
    """Give an order to the supervisor or to a service. Raises NotRunning, ServiceFailed."""
    try:
        reply = json.loads(_ask(layout.run, f"{to}.sock", json.dumps({"do": what, **more}).encode() + b"\n", patience))
    except (ConnectionError, FileNotFoundError) as error:
        raise NotRunning(f"the cloud's {to} is not running", advice="lab up starts it") from error
    except (OSError, ValueError) as error:
        raise ServiceFailed(f"{to} did not answer within {patience:.0f} s", advice=f"lab logs {to}") from error
    if not reply.pop("ok"):
        raise ServiceFailed(f"{to} could not {what.replace('_', ' ')}: {reply['error']}", advice=f"lab logs {to}")
    return dict(reply)


def _ask(directory: Path, name: str, request: bytes, patience: float) -> bytes:
    """A socket's path must be shorter than 108 bytes, which a home directory's may not be: go through /proc/self/fd."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(patience)
            client.connect(f"/proc/self/fd/{handle}/{name}")
            client.sendall(request)
            data = b""
            while piece := client.recv(65536):
                data += piece
            return data
    finally:
        os.close(handle)


def stop(layout: Layout, progress: Progress, *, patience: int = 0) -> None:
    """Give the guests `patience` seconds, end them and the services, and make sure that nothing of ours is left."""
    if is_running(layout):
        progress(f"instances shut down (at most {patience} s)" if patience else "ending instances")
        try:
            order(layout, "end_guests", to="nova", grace=patience)
        except (NotRunning, ServiceFailed):
            progress("nova does not answer; its instances are ended without it")
        progress("stopping the services")
        try:
            order(layout, "stop")
        except (NotRunning, ServiceFailed):
            progress("the supervisor does not answer; it is ended")
            _end_supervisors(layout)
        until(lambda: NotYet("") if is_running(layout) else None, "the supervisor's end", seconds=30, every=0.05)
    _end_supervisors(layout)  # one whose lock file was removed
    end_guests(layout, progress)


def _end_supervisors(layout: Layout) -> None:
    home = os.fsencode(layout.home)
    end_processes(
        lambda: [pid for pid, arguments, at in own_processes() if b"labcloud.supervisor" in arguments and at == home],
        "the supervisor",
    )


def end_guests(layout: Layout, progress: Progress) -> None:
    """End every instance: they outlive a killed supervisor.

    They are known by their open directory or command line below this cloud's home, never by a remembered process id.
    """
    if pids := guests(layout):
        progress(f"ending {len(pids)} instances")
        end_processes(lambda: guests(layout), "instances")


def guests(layout: Layout) -> list[int]:
    """Processes of ours whose command line names this cloud's instances or volumes, or that work in its directory."""
    below = os.fsencode(f"{layout.home}{os.sep}")
    return [
        pid
        for pid, arguments, at in own_processes()
        if arguments[0].rpartition(b"/")[2].startswith(b"qemu-system-")
        and (any(below in argument for argument in arguments) or (at + b"/").startswith(below))
    ]


def own_processes() -> Iterator[tuple[int, list[bytes], bytes]]:
    """Those that we may end (all, for root), and that live: process id, arguments, working directory."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if os.getuid() in (0, entry.stat().st_uid) and not dead:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                yield int(entry.name), arguments, os.fsencode((entry / "cwd").readlink())
        except OSError:
            continue  # it ended while we looked


def end_processes(find: Callable[[], list[int]], what: str, seconds: float = 10) -> None:
    """Ask the processes to end, wait, and kill those that are still found. Raises ServiceFailed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in find():
            send(pid, number)
        if not all(looks(find, seconds, every=0.05)):
            return
    raise ServiceFailed(f"{what} cannot be ended: processes {', '.join(map(str, find()))}")


def end_service(layout: Layout, name: str) -> None:
    """End one service and wait until it is gone; it stays away until an order to restart it."""
    order(layout, "end", service=name)

    def look() -> NotYet | None:
        state = next(state for state in services(layout) if state.name == name)
        return None if state.pid is None else NotYet(f"process {state.pid} is {state.state}")

    until(look, f"{name}'s end", seconds=30, every=0.05, advice=f"lab logs {name}")


def wait_until_running(
    layout: Layout, progress: Progress, deadline: float, *, names: tuple[str, ...] | None = None
) -> None:
    """Until every service (or those named) accepts connections. Raises ServiceFailed naming the first that did not make it."""
    last = ""
    while True:
        states = [service for service in services(layout) if names is None or service.name in names]
        waiting = [state.name for state in states if state.state != "running"]
        if not waiting:
            return
        if not is_running(layout):
            raise ServiceFailed(
                f"the supervisor died: {last_line(layout.logs / 'supervisor.log')}", advice="lab logs supervisor"
            )
        for state in states:
            if state.state == "failed":
                raise ServiceFailed(
                    f"{state.name} {state.reason}", advice=f"lab logs {state.name}; lab restart {state.name}"
                )
        if time.monotonic() > deadline:
            last = last_line(layout.logs / f"{waiting[0]}.log")
            raise ServiceFailed(
                f"{waiting[0]} did not start in time; it last said: {last}", advice=f"lab logs {waiting[0]}"
            )
        now = f"waiting for {', '.join(waiting)}"
        if now != last:
            progress(now)
            last = now
        time.sleep(0.1)


def send(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def last_line(log: Path) -> str:
    """The last line that names an exception, else an error, else the last one (as inside/labcloud/logfile.py)."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace")[-65536:].splitlines() if line.strip()][-60:]
    except OSError:
        return "nothing"
    exceptions = [line for line in lines if re.search(r"(?:^|[ .])\w*(?:Error|Exception|Exit)\w*[:)] \S", line)]
    telling = [line for line in lines if re.search(r"\b(ERROR|CRITICAL)\b.*\S", line)]
    return (exceptions or telling or lines or ["nothing"])[-1][:300]
