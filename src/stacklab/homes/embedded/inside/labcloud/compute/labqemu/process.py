"""One guest as a process: start it detached, know it again, end it; never mistake another process for it."""

import collections
import contextlib
import itertools
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path

from labcloud import namespace
from nova import exception
from nova.virt import event
from nova.virt.labqemu import qmp
from oslo_log import log as logging

LOG = logging.getLogger(__name__)
# Starting one and tidying up after an earlier one that has just ended must not meet.
_locks = collections.defaultdict(threading.RLock)
CONSOLE_KEPT = 256 * 1024  # of earlier boots


class GuestProcess:
    """The QEMU process of the instance `uuid`, whose files lie in `directory`."""

    def __init__(self, uuid, directory):
        self.uuid = uuid
        self.directory = Path(directory)

    # --- knowing it ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def handle(self):
        """A pidfd of the living process, or None. Only the process that was started with this uuid counts.

        The handle is opened before the command line is read: from then on the number cannot mean another process.
        """
        try:
            pid = int((self.directory / "pid").read_text())
            descriptor = os.pidfd_open(pid)
        except (OSError, ValueError):
            yield None
            return
        try:
            yield descriptor if self._is_ours(pid) else None
        finally:
            os.close(descriptor)

    def _is_ours(self, pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        # A dead process that nobody has waited for yet has no command line.
        return (b"-uuid", self.uuid.encode()) in itertools.pairwise(words)

    def runs(self):
        with self.handle() as handle:
            return handle is not None and not _ended(handle, 0)

    def status(self):
        """None if it does not run, else what QEMU says: running, paused, shutdown, …"""
        if not self.runs():
            return None
        try:
            return qmp.ask(self.directory, "query-status")["status"]
        except qmp.QmpError:
            if self.runs():
                raise
            return None  # it ended while we asked

    # --- starting it --------------------------------------------------------------------------------------------------

    def start(self, command):
        """Run QEMU detached. Raises InternalError with what QEMU said when it does not come up."""
        with _locks[self.uuid]:
            self._start(command)

    def _start(self, command):
        self._keep_console_small()
        for name in ("pid", "qmp"):
            (self.directory / name).unlink(missing_ok=True)
        detached = ["-uuid", self.uuid, "-daemonize", "-pidfile", str(self.directory / "pid")]
        log = self.directory / "qemu.log"
        with log.open("wb") as output:
            # -daemonize: the command ends when the machine stands; QEMU goes on in a session of its own.
            done = subprocess.run(
                [*namespace.entering(), *command, *detached],
                cwd=self.directory,  # for the short name of the socket
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                timeout=120,
            )
        if done.returncode != 0:
            output = log.read_text(errors="replace").strip()[-1000:]
            raise exception.InternalError(f"QEMU did not start (status {done.returncode}): {output}")
        answer = qmp.ask(self.directory, "query-uuid")["UUID"]
        if answer != self.uuid:
            raise exception.InternalError(f"QEMU of instance {answer} answers in the place of {self.uuid}")

    def _keep_console_small(self):
        """The console log goes on over restarts, as a real one does, but not for ever."""
        log = self.directory / "console.log"
        if log.exists() and log.stat().st_size > 4 * CONSOLE_KEPT:
            log.write_bytes(tail(log, CONSOLE_KEPT))

    # --- ending it ----------------------------------------------------------------------------------------------------

    def press_power_button(self, timeout, interval=5):
        """Ask the guest to shut down; whether it did within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self.handle() as handle:
            while handle is not None and time.monotonic() < deadline:
                # A guest that is still booting does not hear the first press.
                with contextlib.suppress(qmp.QmpError):
                    qmp.ask(self.directory, "system_powerdown")
                if _ended(handle, min(interval, max(0, deadline - time.monotonic()))):
                    break
            gone = handle is None or _ended(handle, 0)
        if gone:
            self.tidy()
        return gone

    def end(self):
        """End it now: QEMU writes out its disks on SIGTERM, and is killed if it does not end within a few seconds."""
        with self.handle() as handle:
            if handle is not None:
                self._signal(handle, signal.SIGTERM)
                if not _ended(handle, 5):
                    LOG.warning("QEMU of instance %s does not end, killing it", self.uuid)
                    self._signal(handle, signal.SIGKILL)
                    if not _ended(handle, 10):
                        raise exception.InstancePowerOffFailure(reason=f"QEMU of instance {self.uuid} cannot be killed")
        self.tidy()

    @staticmethod
    def _signal(handle, number):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)

    def tidy(self):
        """Remove what only a running guest has; whether it is really gone."""
        with _locks[self.uuid]:
            if self.runs():
                return False
            self._sweep()
            return True

    def _sweep(self):
        for name in ("pid", "qmp", "way.json"):
            (self.directory / name).unlink(missing_ok=True)


def _ended(handle, seconds):
    """Whether the process behind a pidfd ends within `seconds`; also true of one that nobody has waited for."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def tail(path, length):
    """The last `length` bytes of a file."""
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - length))
        return file.read()


def end_many(processes):
    """End guests all at once, without their consent; the ones that were there to end."""
    ended = []
    with contextlib.ExitStack() as stack:
        handles = [(process, stack.enter_context(process.handle())) for process in processes]
        for process, handle in handles:
            if handle is not None:
                process._signal(handle, signal.SIGTERM)
        for process, handle in handles:
            if handle is None:
                continue
            if not _ended(handle, 3):
                process._signal(handle, signal.SIGKILL)
                _ended(handle, 5)
            ended.append(process)
    for process in processes:
        process.tidy()
    return ended


class Watch:
    """One thread waiting for all guests to end."""

    def __init__(self, emit):
        self.emit = emit
        self.poll = select.poll()
        self.guests = {}  # pidfd → uuid
        self.lock = threading.Lock()
        self.bell, self.ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.poll.register(self.bell, select.POLLIN)
        threading.Thread(target=self._loop, name="guests", daemon=True).start()

    def add(self, process):
        with process.handle() as handle:
            if handle is None:
                return
            own = os.dup(handle)
        with self.lock:
            self.guests[own] = process
            self.poll.register(own, select.POLLIN)
        os.write(self.ring, b"!")  # a poll under way does not see what is registered meanwhile

    def forget(self):
        with self.lock:
            for descriptor in self.guests:
                self.poll.unregister(descriptor)
                os.close(descriptor)
            self.guests.clear()

    def _loop(self):
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.bell:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.bell, 4096)
                    continue
                with self.lock:
                    process = self.guests.pop(descriptor, None)
                    if process is None:
                        continue
                    self.poll.unregister(descriptor)
                    os.close(descriptor)
                if process.tidy():  # else it has been started again meanwhile
                    LOG.info("Guest of instance %s has ended", process.uuid)
                    self.emit(event.LifecycleEvent(process.uuid, event.EVENT_LIFECYCLE_STOPPED))
