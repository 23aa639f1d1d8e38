"""Files that a learner writes for a deployment: rendered as lab would, explained line by line, graded as they are."""

from __future__ import annotations

import secrets as random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import StringConstraints

from stacklab.deploy import explained
from stacklab.deploy.complaint import Complaint
from stacklab.deploy.explained import Explanations
from stacklab.deploy.localconf import check as localconf_check
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.packstack import answers, check
from stacklab.deploy.profile.load import load_profile, load_settings
from stacklab.errors import StepFailed
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Name, Params
from stacklab.kinds.features import make_scratch
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request
from stacklab.machines.site import Site

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)]
MAX_BYTES = 1 << 18
"""Such a file has a few kilobytes; a larger one is none."""


class WrittenParams(Params):
    """A file, and what it is for where the cloud's own machine does not say it."""

    file: FileName
    """Its name in the lab's scratch directory."""
    profile: Name
    """The profile of the machine that it is for."""
    address: str
    """The address of that machine."""
    services: list[Name] = []
    """Optional services that it asks for."""


P = TypeVar("P", bound=WrittenParams)


class WrittenFile(Kind[P]):
    """A file in the lab's scratch directory, or the one that the machine was really deployed with."""

    @abstractmethod
    def explanations(self) -> Explanations:
        """What each line is for."""

    @abstractmethod
    def text(self, p: P, site: Site | None, *, shown: bool) -> str:
        """The file as lab would write it for this machine. `shown`: with asterisks for passwords."""

    @abstractmethod
    def complaints(self, text: str, site: Site, addresses: Sequence[str], p: P) -> list[Complaint]:
        """What is wrong with a learner's file."""

    def deployed(self, site: Site) -> str | None:
        """The path of the file that the machine was deployed with, None if it was not deployed with such a file."""
        return None

    def title(self, p: P) -> str:
        return p.file

    def horizon(self, p: P) -> str:
        return "(not in Horizon: a file on the machine)"

    def path(self, context: Context, p: P) -> str:
        """Where the file is, or is to be. Raises Absent on paper."""
        site = context.site()
        return self.deployed(site) or f"{site.scratch}/{p.file}"

    def commands(self, context: Context, p: P) -> list[Command]:
        try:
            path = self.path(context, p)
        except Absent:
            path = f"SCRATCH-DIRECTORY/{p.file}"
        return [Command(("-p", str(PurePosixPath(path).parent)), program="mkdir"), Command((path,), program="vi")]

    def requests(self, context: Context, p: P) -> list[Request]:
        return []

    def more(self, context: Context, p: P) -> list[str]:
        try:
            site: Site | None = context.site()
        except Absent:
            site = None
        lines = [""]
        for told in self.explanations().tell(self.text(p, site, shown=True)):
            lines.append(f"{told.number:>3}  {told.line}".rstrip())
            lines += [f"       ↳ {told.why}"] if told.why else []
        return lines

    def run(self, context: Context, p: P) -> None:
        site = context.site()
        if path := self.deployed(site):
            raise StepFailed(f"{path} is gone from {site.machine.name}", advice="lab up writes it again")
        make_scratch(site)
        site.machine.put(self.path(context, p), self.text(p, site, shown=False), mode=0o600)

    def find_all(self, context: Context, p: P) -> Iterable[Thing]:
        site, path = context.site(), self.path(context, p)
        held = site.machine.read(path, limit=MAX_BYTES)
        if held is None:
            return []
        text = held.decode(errors="replace")
        found = self.complaints(text, site, self._addresses(site, p), p)
        lines = len(text.splitlines())
        return [{"name": p.file, "path": path, "lines": lines, "complaints": [(one.line, one.text) for one in found]}]

    def _addresses(self, site: Site, p: P) -> list[str]:
        """Those of the machine that the file is for: its own, or, where no machine was deployed, the one of the exercise."""
        if not site.profile:
            return [p.address]
        # https://man7.org/linux/man-pages/man8/ip-address.8.html, -o: one line for each address
        told = site.machine.run("ip", "-4", "-o", "address", "show", "scope", "global").lines
        own = [words[3].partition("/")[0] for words in map(str.split, told) if len(words) > 3]
        return [site.address, *(one for one in own if one != site.address)]

    def compare(self, context: Context, p: P, thing: Thing) -> list[Difference]:
        return [
            Difference(f"{p.file}, line {line}" if line else p.file, None, text) for line, text in thing["complaints"]
        ]

    def undo_data(self, context: Context, p: P, thing: Thing) -> Thing:
        return {"name": thing["name"], "path": thing["path"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        site = context.site()
        there = site.machine.read(thing["path"], limit=1) is not None
        site.machine.run("rm", "-f", "--", thing["path"], user=None if site.why_not_root else "root")
        return there

    def runs(self, p: P) -> str:
        return f"writes and reads {p.file} in the lab's scratch directory"

    def shown(self, thing: Thing) -> str:
        return f"{thing['path']}: {thing['lines']} lines, nothing wrong"

    def show_command(self, context: Context, p: P) -> Command:
        return self.commands(context, p)[-1]

    def expected(self, p: P) -> str:
        return f"{p.file} is there, and would do what it is for"


class LocalConf(WrittenFile[WrittenParams]):
    """A local.conf that stack.sh could run with. On a machine that DevStack made it is the real one."""

    name = "local-conf"
    params = WrittenParams

    def explanations(self) -> Explanations:
        return explained.of_local_conf()

    def text(self, p: WrittenParams, site: Site | None, *, shown: bool) -> str:
        profile = load_profile(site.profile if site and site.made_by == "devstack" else p.profile)
        services = list(site.services) if site and site.profile else p.services
        address = site.address if site and site.address else p.address
        if shown:
            return localconf.masked(profile, load_settings(), services=services, host_ip=address)
        # Nothing is deployed with it, so the lab's own passwords have no business in it.
        made_up = {name: random.token_hex(12) for name in localconf.SECRETS}
        text = localconf.render(profile, load_settings(), services=services, secrets=made_up, host_ip=address)
        return text.partition("\n\n")[2]  # without the line that says that lab up writes it again: it does not

    def deployed(self, site: Site) -> str | None:
        if site.made_by != "devstack":
            return None
        return f"{load_profile(site.profile).devstack.directory}/local.conf"

    def complaints(self, text: str, site: Site, addresses: Sequence[str], p: WrittenParams) -> list[Complaint]:
        told = self.explanations()
        found = localconf_check.check(text, addresses=addresses, known=told.names, values=told.values)
        if any("quote" in one.text for one in found):
            return found  # bash would say the same, of the line where it gave up
        # What bash cannot read, bash tells best: -n reads and runs nothing.
        read = site.machine.run("bash", "-n", given=localconf_check.shell_part(text), check=False)
        return found if read.ok else sorted([*found, *localconf_check.misread(text, read.err)])

    def show_command(self, context: Context, p: WrittenParams) -> Command:
        return Command(("render", "local.conf", "--profile", p.profile), program="lab")

    def runs(self, p: WrittenParams) -> str:
        return f"{super().runs(p)}; bash -n reads it without running it"


class AnswerFile(WrittenFile[WrittenParams]):
    """An answer file that PackStack could deploy the lab's machine with. The one that it was deployed with is not touched."""

    name = "answer-file"
    params = WrittenParams

    def explanations(self) -> Explanations:
        return answers.explanations()

    def text(self, p: WrittenParams, site: Site | None, *, shown: bool) -> str:
        profile = load_profile(site.profile if site and site.made_by == "packstack" else p.profile)
        services = list(site.services) if site and site.made_by == "packstack" else p.services
        address = site.address if site and site.address else p.address
        if shown:
            return answers.masked(profile, services=services, host_ip=address)
        # Nothing is deployed with it, so the lab's own passwords have no business in it.
        made_up = {name: random.token_hex(12) for name in answers.SECRETS}
        return answers.render(profile, services=services, secrets=made_up, host_ip=address)

    def complaints(self, text: str, site: Site, addresses: Sequence[str], p: WrittenParams) -> list[Complaint]:
        return check.check(text, addresses=addresses, known=self.explanations().names)

    def show_command(self, context: Context, p: WrittenParams) -> Command:
        return Command(("render", "answer-file", "--profile", p.profile), program="lab")


KINDS: list[Kind[Any]] = [LocalConf(), AnswerFile()]
