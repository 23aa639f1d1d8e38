"""One service as the supervisor sees it: its process, how often it died and why, when it may start again."""

import ctypes
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import traceback

from labcloud import logfile, namespace, settings

TRIES = 5  # deaths in a row before we give up
HEALTHY = 60  # seconds alive after which earlier deaths are forgotten
PATIENCE = 8  # seconds between SIGTERM and SIGKILL
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # linux/prctl.h


class Child:
    """`state` is what status shows: starting, running, failed, stopped. `wanted`: whether it should be alive."""

    def __init__(self, name, forked, ports):
        self.name, self.forked, self.ports = name, forked, ports
        self.log = settings.HOME / "logs" / f"{name}.log"
        self.pid = None
        self.state = "stopped"
        self.wanted = True
        self.since = None
        self.restarts = 0
        self.deaths = 0
        self.reason = ""
        self.not_before = 0.0
        self.kill_at = None
        self.ending = False
        self._process = None
        self._log_start = 0

    def describe(self):
        return {
            "name": self.name, "state": self.state, "pid": self.pid, "since": self.since, "restarts": self.restarts,
            "reason": self.reason,
        }  # fmt: skip

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self, close_in_child=()):
        """Returns what to say of it. A machine without room for a file or a process is no reason to end the others."""
        self.state, self.since, self.ending, self.kill_at = "starting", time.time(), False, None
        logfile.keep_bounded(self.log)
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._log_start = os.fstat(descriptor).st_size
                self.pid = self._fork(descriptor, close_in_child) if self.forked else self._spawn(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, subprocess.SubprocessError) as error:
            self.reason = f"could not be started at {time.strftime('%H:%M:%S')}: {error}"
            return self._again()
        return f"process {self.pid}"

    def _fork(self, descriptor, close_in_child):
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            become_service(self.name, parent, descriptor, close_in_child)
            run_service(self.name)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            if not isinstance(end.code, int):
                sys.stderr.write(f"SystemExit: {end.code}\n")
        except BaseException:  # noqa: BLE001 - the last stop of this process: say why, then end
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _spawn(self, descriptor):
        parent = os.getpid()
        self._process = subprocess.Popen(
            [*self._place(), sys.executable, "-m", f"labcloud.services.{self.name}"],
            stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, cwd=settings.HOME,
            preexec_fn=lambda: die_with(parent), start_new_session=True,
        )  # fmt: skip
        return self._process.pid

    def _place(self):
        return namespace.entering() if self.name == "ovn" else []

    def answers(self):
        """Whether every port of the service accepts a connection; of OVN, which has none: whether it says so."""
        if self.name == "ovn" and not (settings.HOME / "run" / "ovn" / "ready").exists():
            return False
        for port in self.ports:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
        return True

    def end(self):
        """Ask it to end; `tick` insists later."""
        if self.pid and not self.ending:
            self.ending, self.kill_at = True, time.monotonic() + PATIENCE
            send(self.pid, signal.SIGTERM)

    def died(self, status):
        """It is gone: note why, and when it may start again."""
        lived = time.time() - (self.since or 0)
        pid, self.pid, self._process = self.pid, None, None
        if self.ending:
            self.state, self.reason = ("starting" if self.wanted else "stopped"), ""
            self.ending, self.kill_at = False, None
            return f"process {pid} ended as asked"
        line = logfile.last_meaningful_line(self.log, self._log_start)
        self.reason = f"{how_it_ended(status)} at {time.strftime('%H:%M:%S')}" + (
            f"; last said: {line}" if line else ""
        )
        if lived > HEALTHY:
            self.deaths = 0
        self.restarts += 1
        return f"process {pid} {self._again()}"

    def _again(self):
        """It starts later and later, and then not any more."""
        self.deaths += 1
        if self.deaths >= TRIES:
            self.state, self.wanted = "failed", False
            return f"{self.reason}; gave up after {self.deaths} deaths"
        self.state = "starting"
        self.not_before = time.monotonic() + (0.2 if self.deaths == 1 else min(30, 2 ** (self.deaths - 1)))
        return f"{self.reason}; starting it again"


def how_it_ended(status):
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.WEXITSTATUS(status)}"


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # gone already; waitpid tells


def die_with(parent):
    """Be killed when the supervisor is, so that a dead supervisor leaves no half of a cloud behind."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become_service(name, parent, descriptor, close_in_child):
    """In the forked child: drop what belongs to the supervisor, and take a name that `ps` and `top` show."""
    die_with(parent)
    ctypes.CDLL(None).prctl(PR_SET_NAME, f"lab-{name}".encode())
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for other in close_in_child:
        os.close(other)


def run_service(name):
    sys.argv = [name]
    importlib.import_module(f"labcloud.services.{name}").main()
