"""The one daemon of an embedded cloud: starts the services, notices when one dies, says why, starts it again.

It is alive exactly as long as it holds the flock on run/supervisor.lock, so a leftover file never looks like a cloud.
One thread, because it forks. State for readers lies in run/state.json; orders come in on run/supervisor.sock.
"""

import fcntl
import json
import os
import select
import signal
import sys
import time

from labcloud import control, logfile, namespace, settings
from labcloud.child import Child, send
from labcloud.preload import preload


def say(text):
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201 - its log


class Supervisor:
    """See the module."""

    def __init__(self, lock):
        self.children = {
            spec["name"]: Child(spec["name"], spec["forked"], spec["ports"]) for spec in settings.read()["services"]
        }
        if settings.read()["network"] == "ovn":
            namespace.make()
        self.stopping = False
        self.ready_to_fork = False
        self._told = None
        self._looked = 0.0
        self.listener = control.bind(settings.HOME / "run" / "supervisor.sock")
        self.wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_end)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *ignored: None)  # the wakeup pipe carries the number
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.own = (lock, self.wake, wake_end, self.listener.fileno())

    def run(self):
        for child in self.children.values():
            child.state = "starting"
            if not child.forked:
                say(f"{child.name}: {child.start()}")
        self.tell()
        missing = preload()
        for line in missing:
            say(f"not preloaded: {line}")
        self.ready_to_fork = True
        while not (self.stopping and not any(child.pid for child in self.children.values())):
            self.tick()
            self.wait()
        self.tell()
        say("stopped")

    def tick(self):
        """What time brings: starts that are due, ends that are overdue, services that answer by now."""
        now = time.monotonic()
        for child in self.children.values():
            if child.pid is None and child.wanted and not self.stopping and now >= child.not_before:
                say(f"{child.name}: {child.start(self.own)}")
            elif child.kill_at and now > child.kill_at and child.pid:
                send(child.pid, signal.SIGKILL)
                child.kill_at = None
            elif child.state == "starting" and child.pid and not child.ending and child.answers():
                child.state = "running"
        if now - self._looked > 20:
            self._looked = now
            for child in self.children.values():
                logfile.keep_bounded(child.log)
        self.tell()

    def wait(self):
        busy = any(child.state == "starting" or child.kill_at for child in self.children.values())
        readable, _, _ = select.select([self.wake, self.listener], [], [], 0.15 if busy else 5)
        if self.wake in readable:
            numbers = os.read(self.wake, 4096)
            if signal.SIGTERM in numbers:
                self.stop({})
        self.reap()
        if self.listener in readable:
            connection, _ = self.listener.accept()
            try:
                control.answer(connection, self.obey)
            except (OSError, ValueError) as error:
                say(f"a request came to nothing: {error}")

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in self.children.values():
                if child.pid == pid:
                    say(f"{child.name}: {child.died(status)}")

    # --- orders ----------------------------------------------------------------------------------------------------

    def obey(self, request):
        orders = {"status": self.status, "restart": self.restart, "end": self.end, "stop": self.stop}
        reply = orders[request["do"]](request)
        self.tell()  # whoever gave the order reads state.json next
        return reply

    def status(self, request):
        return {"services": [child.describe() for child in self.children.values()]}

    def restart(self, request):
        child = self.children[request["service"]]
        child.wanted, child.deaths, child.not_before, child.reason = True, 0, 0.0, ""
        say(f"{child.name}: restart was asked for")
        if child.pid:
            child.end()
        child.state = "starting"
        return {}

    def end(self, request):
        """End one service until a restart of it is asked for."""
        child = self.children[request["service"]]
        say(f"{child.name}: its end was asked for")
        child.wanted = False
        child.end()
        if not child.pid:
            child.state = "stopped"
        return {}

    def stop(self, request):
        say("stop was asked for")
        self.stopping = True
        for child in self.children.values():
            child.wanted = False
            child.end()
        return {}

    def tell(self):
        """Write run/state.json, whole, when something changed."""
        state = {"pid": os.getpid(), "inside": namespace.entering(), **self.status({})}
        if state == self._told:
            return
        draft = settings.HOME / "run" / ".state.json"
        try:
            draft.write_text(json.dumps(state))
            draft.replace(settings.HOME / "run" / "state.json")
            self._told = state
        except OSError as error:
            say(f"cannot write run/state.json: {error}")  # a full disk must not take the cloud down


def _hold(lock):
    """Hold the lock for good. Whoever looks whether we live holds it for a moment, too, so once is not enough."""
    until = time.monotonic() + 1
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise SystemExit("this cloud has a supervisor already") from None
            time.sleep(0.05)


def main():
    os.umask(0o077)
    lock = os.open(settings.HOME / "run" / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _hold(lock)
    say(f"supervisor is process {os.getpid()}")
    Supervisor(lock).run()


if __name__ == "__main__":
    main()
