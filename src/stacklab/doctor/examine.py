"""All probes of a home, at once; their findings in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

from stacklab.conditions.condition import Finding
from stacklab.conditions.remedy import Remedy
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.profile.model import Profile, Size
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import clock, embedded, host, libvirt, registries, vagrant, virtualization
from stacklab.doctor.probe import Probe, unknown
from stacklab.doctor.remote import Remote
from stacklab.errors import HomeUnavailable, MissingProgram
from stacklab.homes.libvirt.home import DEFAULT_PROFILE
from stacklab.homes.libvirt.hypervisor import chosen_uri
from stacklab.homes.libvirt.site import SiteFile
from stacklab.homes.plan import Plan
from stacklab.lab import Lab

QUIET_SECONDS = 2.0
"""After so long it is said what is waited for."""
Progress = Callable[[str], None]


@dataclass
class Subject:
    """What is examined: a home, as this plan would have it. Use with `with`: its end gives up a machine's connection."""

    home: str
    lab: Lab
    plan: Plan
    settings: Settings
    _open: list[Remote] = field(default_factory=list)

    @cached_property
    def profile(self) -> Profile:
        """For a VM. Raises UnknownName, ProfileInvalid."""
        return load_profile(self.plan.profile or DEFAULT_PROFILE)

    @cached_property
    def probes(self) -> list[Probe]:
        """All that the home needs."""
        return list({"embedded": self._embedded, "libvirt": self._libvirt, "ssh": self._ssh}[self.home]())

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        for remote in self._open:
            remote.close()

    def _embedded(self) -> Iterator[Probe]:
        yield Probe("python", "Python", host.python)
        yield Probe("memory", "memory", embedded.memory)
        yield Probe("disk", "disk", embedded.disk)
        yield Probe("software", "software", embedded.installer)
        yield Probe("qemu", "QEMU", embedded.qemu)
        yield Probe("loopback", "ports", embedded.loopback)
        yield self._clock

    def _libvirt(self) -> Iterator[Probe]:
        site = SiteFile(self.lab).read()
        where = libvirt.Where(
            site.uri if site else chosen_uri(self.settings),
            site.pool if site else self.settings.libvirt_pool,
            self._size(),
            site,
        )
        yield Probe("python", "Python", host.python)
        yield Probe("virtualization", "virtualization", virtualization.here)
        yield Probe("libvirt-python", "libvirt for Python", libvirt.binding)
        yield Probe("libvirt", "libvirt", _behind(partial(libvirt.daemon, where)))
        yield Probe("groups", "groups", partial(host.groups, libvirt.lets_in(where)))
        yield Probe("guests", "guests", _behind(partial(libvirt.guests, where)))
        yield Probe("pool", "storage pool", _behind(partial(libvirt.pool, where)))
        yield Probe("network", "networks", _behind(partial(libvirt.network, where)))
        yield Probe("memory", "memory", _behind(partial(libvirt.memory, where)))
        yield Probe("disk", "disk", _behind(partial(libvirt.disk, where)))
        yield Probe("vagrant", "Vagrant", partial(vagrant.program, self.lab), vagrant.SECONDS + 20)
        yield Probe("box", "box", partial(vagrant.box, self.lab, self.profile.box, self.settings, self.plan.box))
        yield Probe("packages", "packages", registries.distribution)
        yield Probe("python-index", "Python index", partial(registries.python_index, self.settings))
        yield Probe("devstack", "DevStack's source", partial(registries.source, self.profile.devstack, self.settings))
        yield self._clock

    def _ssh(self) -> Iterator[Probe]:
        remote = Remote(self.lab, str(self.plan.address), self.plan.profile, self.settings)
        self._open.append(remote)
        yield Probe("python", "Python", host.python)
        yield from remote.probes()
        yield self._clock

    @property
    def _clock(self) -> Probe:
        return Probe("clock", "clock", partial(clock.clock, self.settings))

    def _size(self) -> Size:
        """The profile's, with the plan's own wishes; a size that cannot work is the findings' to tell."""
        size, plan = self.profile.size, self.plan
        return Size(
            cpus=plan.cpus or size.cpus, memory=plan.memory or size.memory, least_memory=size.least_memory,
            disk=plan.disk or size.disk,
        )  # fmt: skip


def _behind(look: Callable[[], Finding]) -> Callable[[], Finding]:
    """What only libvirt can tell is not told without it; libvirt's own line has said why, and what repairs it."""

    def looked() -> Finding:
        try:
            return look()
        except HomeUnavailable:
            return unknown("libvirt does not answer")
        except MissingProgram:
            return unknown("Python's libvirt module is not there to ask with")

    return looked


@dataclass(frozen=True)
class DoctorReport:
    """One line of `lab doctor`: a probe, and what it saw."""

    probe: Probe
    finding: Finding

    @property
    def id(self) -> str:
        """The probe's."""
        return self.probe.id

    @property
    def safe(self) -> bool:
        """Whether lab may repair it by itself."""
        return self.finding.state != "good" and any(isinstance(remedy, Remedy) for remedy in self.finding.remedies)

    def document(self) -> dict[str, object]:
        """For --json."""
        lines = [str(remedy) for remedy in self.finding.remedies]
        return {
            "id": self.id, "title": self.probe.title, "state": self.finding.state, "evidence": self.finding.evidence,
            "repair": lines, "safe": self.safe,
        }  # fmt: skip


def examine(subject: Subject, progress: Progress = lambda _: None) -> Iterator[DoctorReport]:
    """Run all probes at once; answers come in the probes' order. `progress` hears after two seconds what is waited for."""
    findings: dict[str, Finding] = {}
    news = threading.Condition()
    probes, began, heard = subject.probes, time.monotonic(), ""

    def run(probe: Probe) -> None:
        finding = probe.run()
        with news:
            findings.setdefault(probe.id, finding)
            news.notify()

    for probe in probes:
        # Daemons: one that hangs in a library must not keep lab from ending.
        threading.Thread(target=run, args=(probe,), name=f"doctor-{probe.id}", daemon=True).start()
    for probe in probes:
        while True:
            with news:
                left = began + probe.seconds - time.monotonic()
                if left <= 0:
                    findings.setdefault(probe.id, unknown(f"nothing came of looking within {probe.seconds:.0f} s"))
                if probe.id in findings:
                    break
                news.wait(min(0.5, left))
                waiting = ", ".join(other.title for other in probes if other.id not in findings)
            if waiting and waiting != heard and time.monotonic() - began >= QUIET_SECONDS:
                heard = waiting
                progress(waiting)
        yield DoctorReport(probe, findings[probe.id])
