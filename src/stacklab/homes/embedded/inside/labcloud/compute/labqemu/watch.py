"""Telling Nova at once when a guest goes down by itself, instead of at its next look around."""

import contextlib
import os
import select
import threading

from nova.virt import event
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


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
