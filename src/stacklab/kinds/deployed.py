"""The machine that the cloud was deployed on: whether it fits, what it was deployed with, and how that ended."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from stacklab.cloud.horizon import login_url
from stacklab.conditions.services import units
from stacklab.deploy.profile.load import load_profile
from stacklab.deploy.stack.detached import STACK_USER, state
from stacklab.durations import seconds as duration
from stacklab.kinds.component import horizon_answers
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import NoParams, Params
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command
from stacklab.machines.site import Site

SHARE = 0.9
"""What the kernel and the file system leave of what the machine was given."""
NO_MACHINE = "the cloud of this home is made of processes of yours; no machine was deployed for it"

P = TypeVar("P", bound=Params)


class Looking(Kind[P]):
    """Something about the deployed machine that is looked at, and nothing made."""

    leaves = False
    settle_seconds = 0  # it will not become another machine
    menus = "(not in Horizon: on the machine)"
    tells = "{words}"

    @abstractmethod
    def facts(self, site: Site, p: P) -> Thing:
        """What is there; `words` is how it is told."""

    def commands(self, context: Context, p: P) -> list[Command]:
        return [Command(("status",), program="lab")]

    def find_all(self, context: Context, p: P) -> Iterable[Thing]:
        return [self.facts(context.site(), p)]

    def applicable(self, context: Context, p: P) -> str | None:
        return None if context.site().profile else NO_MACHINE


class MachineParams(Params):
    """What the course asks of a machine, and the least with which a cloud comes up: the learner's own may have less."""

    cpus: Annotated[int, Field(ge=1)]
    """Processors, at the least."""
    memory: Annotated[int, Field(ge=1)]
    """Memory in GiB."""
    least_memory: Annotated[int, Field(ge=1)]
    """Memory in GiB without which no cloud comes up."""
    disk: Annotated[int, Field(ge=1)]
    """Disk in GiB."""
    least_disk: Annotated[int, Field(ge=1)]
    """Disk in GiB without which no cloud comes up."""
    networks: Annotated[int, Field(ge=1)]
    """How many of its interfaces have an IPv4 address."""
    least_networks: Annotated[int, Field(ge=1)]
    """How many of them it takes."""


_SIZE = r"""
nproc
awk '/^MemTotal/ {print $2}' /proc/meminfo
df -Pk / | awk 'NR==2 {print $2}'
ip -4 -o address show scope global | awk '{print $2, $4}'
"""


class MachineSize(Looking[MachineParams]):
    """Processors, memory, disk and networks of the machine, beside what the course asks for."""

    name = "machine"
    params = MachineParams
    words = "a machine with {cpus} processors, {memory} GiB of memory, {disk} GiB of disk"
    expects = (
        "the machine is {title}, on {networks} networks; at the least {least_memory} GiB of memory, "
        "{least_disk} GiB of disk, {least_networks} network"
    )

    def facts(self, site: Site, p: MachineParams) -> Thing:
        cpus, memory, disk, *addresses = site.machine.script(_SIZE).lines
        networks = sorted({line.split()[0] for line in addresses if not line.startswith("br-")})
        thing = {"cpus": int(cpus), "memory": int(memory) / 1024**2, "disk": int(disk) / 1024**2, "networks": networks}
        words = (
            f"{site.machine.name}: {thing['cpus']} processors, {thing['memory']:.1f} GiB of memory, a file system of "
            f"{thing['disk']:.0f} GiB; addresses on {', '.join(networks) or 'nothing'}"
        )
        return {"name": "machine", **thing, "words": words}

    def compare(self, context: Context, p: MachineParams, thing: Thing) -> list[Difference]:
        differences = []
        if thing["cpus"] < p.cpus:
            differences.append(Difference("processors", f"at least {p.cpus}", str(thing["cpus"])))
        if len(thing["networks"]) < p.least_networks:
            expected = f"{p.networks} with an address, {p.least_networks} at the least"
            differences.append(Difference("networks", expected, ", ".join(thing["networks"]) or "none"))
        for name, asked, least in (("memory", p.memory, p.least_memory), ("disk", p.disk, p.least_disk)):
            if thing[name] < least * SHARE:
                expected = f"{asked} GiB, {least} at the least"
                differences.append(Difference(name, expected, f"{thing[name]:.1f} GiB"))
        return differences


class Clone(Looking[NoParams]):
    """DevStack on the machine: cloned, and at the branch or tag that the profile names."""

    name = "devstack-clone"
    params = NoParams
    words = "DevStack, cloned"
    expects = "DevStack is cloned, at the branch or tag of the profile"

    def facts(self, site: Site, p: NoParams) -> Thing:
        devstack = load_profile(site.profile).devstack

        def ask(*words: str) -> str:
            argv = ("git", "-C", devstack.directory, *words)
            return site.machine.run(*argv, user=STACK_USER, check=False).out.strip()

        def commit(name: str) -> str:
            return ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")

        names = (f"refs/tags/{devstack.ref}", f"refs/remotes/origin/{devstack.ref}", devstack.ref)
        here, meant = commit("HEAD"), next(filter(None, map(commit, names)), "")
        called = ask("describe", "--all", "--always", "HEAD") if here else ""
        words = f"{devstack.directory} is at {called} ({here[:10]})"
        return {"directory": devstack.directory, "ref": devstack.ref, "here": here, "meant": meant, "words": words}

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        if not thing["here"]:
            return [Difference(thing["directory"], "a clone of DevStack", "nothing that git knows")]
        if thing["here"] != thing["meant"]:
            return [Difference(thing["directory"], f"at {thing['ref']}", f"at {thing['here'][:10]}")]
        return []

    def applicable(self, context: Context, p: NoParams) -> str | None:
        return not_by(context.site(), "devstack")


class RunParams(Params):
    """Which deployment is looked at."""

    by: Literal["devstack", "packstack"]
    """What ran: DevStack's stack.sh, or PackStack."""


PROGRAMS = {"devstack": "stack.sh", "packstack": "packstack"}


class Run(Looking[RunParams]):
    """The run of stack.sh, or of PackStack, that made the cloud: it ended well, and what it made is there."""

    name = "deployment-run"
    params = RunParams

    def title(self, p: RunParams) -> str:
        return f"{PROGRAMS[p.by]} run to its end"

    def facts(self, site: Site, p: RunParams) -> Thing:
        run = state(site.machine, "stack" if p.by == "devstack" else "packstack")
        names = [name for name, unit in units(site.machine, load_profile(site.profile)).items() if unit.there]
        how = f"ended well after {duration(run.seconds)}" if run.state == "done" else run.state
        words = f"{PROGRAMS[p.by]}: {how}; its log: {run.log}; units: {', '.join(names) or 'none'}"
        return {"ended": run.state, "status": run.exit_status, "units": names, "words": words}

    def compare(self, context: Context, p: RunParams, thing: Thing) -> list[Difference]:
        why = f" with exit status {thing['status']}" if thing["status"] is not None else ""
        ended = "ended well" if thing["ended"] == "done" else f"{thing['ended']}{why}"
        made = "the services that it makes"
        return differing([(PROGRAMS[p.by], "ended well", ended), ("units", made, made if thing["units"] else "none")])

    def expected(self, p: RunParams) -> str:
        return f"{PROGRAMS[p.by]} has ended well and made its services"

    def applicable(self, context: Context, p: RunParams) -> str | None:
        return not_by(context.site(), p.by)


def not_by(site: Site, by: str) -> str | None:
    """Why a step about what one of the two deployers made is not for this cloud."""
    if not site.profile:
        return NO_MACHINE
    called = {"devstack": "DevStack", "packstack": "PackStack"}
    return None if site.made_by == by else f"{called.get(site.made_by, site.made_by)} made this cloud, not {called[by]}"


class Dashboard(Kind[NoParams]):
    """Horizon's login page, at the address of the machine."""

    name = "dashboard"
    params = NoParams
    words = "Horizon answers"
    expects = "Horizon's login page answers at the machine's address"
    tells = "{url} answers {words}"
    menus = "the login page; lab status names its address, lab password the login"
    leaves = False

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        return [Command(("status",), program="lab")]

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        words, form = horizon_answers(context)
        return [{"url": login_url(context.dashboard()), "words": words, "form": form}]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        differences = []
        if not thing["form"]:
            differences.append(Difference(thing["url"], "a page with a login form", thing["words"]))
        address = context.site().address
        if address and f"//{address}" not in thing["url"]:
            differences.append(Difference("address", f"the machine's own, {address}", thing["url"]))
        return differences


KINDS: list[Kind[Any]] = [MachineSize(), Clone(), Run(), Dashboard()]
