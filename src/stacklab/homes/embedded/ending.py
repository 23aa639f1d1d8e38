"""Stopping a cloud, and removing it: guests first, then services, then files; also what a kill left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from stacklab.errors import NotRunning, ServiceFailed
from stacklab.homes.embedded import mirror, software, supervision, template
from stacklab.homes.embedded.cloud import Cloud
from stacklab.homes.embedded.https import end_apache
from stacklab.homes.embedded.layout import Layout
from stacklab.machines import scratch
from stacklab.machines.local import LocalMachine
from stacklab.stages import Progress


def stop(layout: Layout, progress: Progress, *, patience: int) -> None:
    """Give the guests `patience` seconds, end them and the services, and make sure that nothing of ours is left."""
    if supervision.is_running(layout):
        progress(f"instances shut down (at most {patience} s)" if patience else "ending instances")
        try:
            supervision.order(layout, "end_guests", to="nova", grace=patience)
        except (NotRunning, ServiceFailed):
            progress("nova does not answer; its instances are ended without it")
        supervision.stop(layout, progress)
    end_apache(layout)
    end_leftovers(layout, progress)


def destroy(cloud: Cloud, progress: Progress) -> Iterator[str]:
    """Remove all of this lab's cloud, yielding what went; software and template serve other labs and stay."""
    layout = cloud.layout
    if not layout.home.exists():
        return
    running = supervision.is_running(layout)
    stop(layout, progress, patience=0)
    if running:
        yield "the running services and instances"
    scratch.clear(LocalMachine(), str(layout.scratch))
    # first what says that there is a cloud: an interrupted destroy must not look like a whole one
    for path in (layout.made_file, layout.clouds_file, layout.ports_file):
        if path.exists():
            mirror.remove(path)
    mirror.remove(layout.home)
    yield str(layout.home)
    for kept, remove in (
        (software.environments(), "the installed OpenStack"),
        (template.templates(), "the first initialisation"),
    ):
        if kept.exists():
            progress(f"{kept} stays: {remove} is shared by all labs")


def end_leftovers(layout: Layout, progress: Progress) -> None:
    """Guests outlive a killed supervisor: end every process that works in this cloud's instances.

    They are known by their open directory or command line below `nova/instances`, never by a remembered process id.
    """
    found = guests(layout)
    if found:
        progress(f"ending {len(found)} instances that outlived their services")
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in found:
            supervision.send(pid, number)
        deadline = time.monotonic() + 3
        while found and time.monotonic() < deadline:
            found = [pid for pid in found if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)]
            time.sleep(0.05)
    if found:
        raise ServiceFailed(f"processes {', '.join(map(str, found))} of this lab's instances cannot be ended")


def guests(layout: Layout) -> list[int]:
    """Processes of ours whose command line names this cloud's instances or volumes, or that work in its directory."""
    mine = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if entry.stat().st_uid != os.getuid():
                continue
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            works_in = str((entry / "cwd").readlink())
        except OSError:
            continue  # it ended while we looked
        if not arguments[0].rpartition(b"/")[2].startswith(b"qemu-system-"):
            continue
        below = os.fsencode(f"{layout.home}{os.sep}")
        if any(below in argument for argument in arguments) or f"{works_in}{os.sep}".startswith(
            f"{layout.home}{os.sep}"
        ):
            mine.append(int(entry.name))
    return mine


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
