"""What the home `embedded` needs: software from an index, disk, memory, ports; and QEMU, without which guests are records."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess

from stacklab import indexes, places
from stacklab.conditions.condition import Finding
from stacklab.doctor import here, packages
from stacklab.doctor.probe import Probe, bad, gib, good, warning
from stacklab.download import without_password
from stacklab.homes.embedded import config, services, software
from stacklab.homes.embedded.ovn import why_none_possible
from stacklab.homes.libvirt.accelerator import try_guest

WANTED_MEMORY, LEAST_MEMORY = 2 * 10**9, 10**9
"""Bytes. Measured: 0.9 GiB for the services, the rest for guests."""
LAB_SPACE = 500_000_000
"""Bytes for a lab's own files: databases, images, guests' disks, a checkpoint."""
INDEX_SECONDS = 40.0


def probes() -> list[Probe]:
    """All of them."""
    return [
        Probe("memory", "memory", memory),
        Probe("disk", "disk", disk),
        Probe("software", "software", installer),
        Probe("qemu", "QEMU", qemu),
        Probe("loopback", "ports", loopback),
        Probe("network", "network", network),
    ]


def installer() -> Finding:
    """uv runs, and finds what would be installed where it is configured to look."""
    import uv

    if software.installed():
        return good(f"OpenStack {software.RELEASE} is installed already, in {software.path()}: nothing is fetched")
    program = uv.find_uv_bin()
    lines = software.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    first = next(line.split()[0] for line in lines if re.match(r"^keystone==", line))
    environment = {**indexes.for_uv(os.environ), "UV_HTTP_TIMEOUT": "8", "UV_HTTP_RETRIES": "1"}
    # dependencies are left out, and nothing is kept: it is only asked for
    command = [program, "pip", "compile", "-", "--quiet", "--no-deps", "--no-cache", "--no-header", "--no-annotate",
               "--index-strategy", "unsafe-best-match"]  # fmt: skip
    try:
        done = subprocess.run(
            command, input=f"{first}\n", env=environment, capture_output=True, text=True, timeout=INDEX_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return bad(f"uv found no {first} within {INDEX_SECONDS:.0f} s", indexes.ADVICE)
    if done.returncode or first not in done.stdout:
        why = " ".join(done.stderr.split()) or f"uv ended with status {done.returncode}"
        return bad(f"uv cannot get {first}: {without_password(why)[:400]}", indexes.ADVICE)
    return good(f"uv finds {first} in the configured index")


def disk() -> Finding:
    """Where the software and the lab's files go."""
    needed = (0 if software.installed() else software.SPACE) + LAB_SPACE
    wanted = {"XDG_DATA_HOME": (places.data_home(), needed), "XDG_STATE_HOME": (places.state_home(), LAB_SPACE)}
    free = {name: here.space(place)[1] for name, (place, _) in wanted.items()}
    tight = [name for name, (_, least) in wanted.items() if free[name] < least]
    have = "; ".join(f"{gib(free[name])} free at {wanted[name][0]}" for name in tight or ["XDG_DATA_HOME"])
    evidence = f"{have}, {gib(needed)} are needed"
    return (
        bad(evidence, *(f"export {name}=DIRECTORY (on a larger disk)" for name in tight)) if tight else good(evidence)
    )


def memory() -> Finding:
    """For the services, and some for guests."""
    total, free = here.memory_here()
    return here.judged_memory(total, free, LEAST_MEMORY, WANTED_MEMORY, "instances may not start")


def qemu() -> Finding:
    """Whether instances really run: QEMU is there, and runs a guest. Without it the home is usable all the same."""
    hypervisor = config.find_hypervisor()
    if not hypervisor.there:
        return warning(
            f"{hypervisor.why_not}; steps that look into an instance are not applicable", *packages.install("guests")
        )
    why_not = try_guest("tcg", "max")
    if why_not:
        return bad(f"{hypervisor.system} does not run a guest: {why_not}", f"{hypervisor.system} --version")
    done = subprocess.run([hypervisor.image, "--version"], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        return bad(
            f"{hypervisor.image} ended with status {done.returncode}: {done.stderr.strip()[:200]}",
            f"{hypervisor.image} --version",
        )
    lacks = "" if shutil.which("ssh") else "; there is no ssh, so lab ssh cannot log in"
    evidence = f"{hypervisor.system} ran a guest; {done.stdout.splitlines()[0]}{lacks}"
    return warning(evidence, *packages.install("guests")) if lacks else good(evidence)


def network() -> Finding:
    """Whether a cloud's network can carry traffic; it is not needed."""
    why = why_none_possible()
    return good(f"only QEMU's user mode: {why}" if why else "LAB_NETWORK=ovn lab up can give the cloud one of its own")


def loopback() -> Finding:
    """Ports for the services: free ones, on which a server can be reached."""
    try:
        chosen, _ = services.choose_ports(services.PORT_NAMES, {})
        with socket.create_server(("127.0.0.1", min(chosen.values()))) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return bad(
            f"127.0.0.1 serves no port between {services.LOWEST} and {services.HIGHEST}: {error}", "ip address show lo"
        )
    return good(f"{len(chosen)} free ports of 127.0.0.1, and one of them was reached")
