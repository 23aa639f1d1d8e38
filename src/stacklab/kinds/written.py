"""Files that a learner writes for a deployment: rendered as lab would, explained line by line, graded as they are."""

from __future__ import annotations

import secrets as random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import StringConstraints

from stacklab.deploy.explained import Explanations, of_answer_file, of_local_conf
from stacklab.deploy.grading import Complaint
from stacklab.deploy.localconf import check as localconf_check
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.packstack import answers, check
from stacklab.deploy.profile.load import load_profile, load_settings
from stacklab.deploy.profile.model import Profile
from stacklab.errors import StepFailed
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Name, Params
from stacklab.kinds.features import make_scratch
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command
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


class WrittenFile(Kind[WrittenParams]):
    """A file in the lab's scratch directory, or the one that the machine was really deployed with."""

    params = WrittenParams
    words = "{file}"
    menus = "(not in Horizon: a file on the machine)"
    expects = "{file} is there, and would do what it is for"
    tells = "{path}: {lines} lines, nothing wrong"
    deployer: ClassVar[str]
    """Who takes such a file."""
    explanations: ClassVar[Callable[[], Explanations]]
    """What each line is for."""
    passwords: ClassVar[tuple[str, ...]]
    """Those that are in it."""

    @abstractmethod
    def render(self, profile: Profile, services: Sequence[str], address: str, secrets: dict[str, str] | None) -> str:
        """The file as lab would write it, with these passwords, or with asterisks for them."""

    @abstractmethod
    def complaints(self, text: str, site: Site, addresses: Sequence[str]) -> list[Complaint]:
        """What is wrong with a learner's file."""

    def deployed(self, site: Site) -> str | None:
        """The path of the file that the machine was deployed with, None if it was not deployed with such a file."""
        return None

    def path(self, site: Site, p: WrittenParams) -> str:
        """Where the file is, or is to be."""
        return self.deployed(site) or f"{site.scratch}/{p.file}"

    def commands(self, context: Context, p: WrittenParams) -> list[Command]:
        site = _site(context)
        path = self.path(site, p) if site else f"SCRATCH-DIRECTORY/{p.file}"
        return [Command(("-p", str(PurePosixPath(path).parent)), program="mkdir"), Command((path,), program="vi")]

    def more(self, context: Context, p: WrittenParams) -> list[str]:
        lines = [""]
        explained = type(self).explanations().tell(self._text(_site(context), p, shown=True))
        for number, (line, why) in enumerate(explained, 1):
            lines.append(f"{number:>3}  {line}".rstrip())
            lines += [f"       ↳ {why}"] if why else []
        return lines

    def _text(self, site: Site | None, p: WrittenParams, *, shown: bool) -> str:
        """The file for this machine, if it is one of the deployer's; else for the one of the exercise.

        `shown`: with asterisks for passwords; else with new ones: nothing is deployed with it, so the lab's own have no
        business in it.
        """
        own = site if site and site.made_by == self.deployer else None
        profile = load_profile(own.profile if own else p.profile)
        address = site.address if site and site.address else p.address
        new = None if shown else {name: random.token_hex(12) for name in self.passwords}
        return self.render(profile, own.services if own else p.services, address, new)

    def run(self, context: Context, p: WrittenParams) -> None:
        site = context.site()
        if path := self.deployed(site):
            raise StepFailed(f"{path} is gone from {site.machine.name}", advice="lab up writes it again")
        make_scratch(site)
        site.machine.put(self.path(site, p), self._text(site, p, shown=False), mode=0o600)

    def find_all(self, context: Context, p: WrittenParams) -> Iterable[Thing]:
        site = context.site()
        path = self.path(site, p)
        content = site.machine.read(path, limit=MAX_BYTES)
        if content is None:
            return []
        text = content.decode(errors="replace")
        differences = [
            Difference(f"{p.file}, line {each.line}" if each.line else p.file, None, each.text)
            for each in self.complaints(text, site, self._addresses(site, p))
        ]
        return [{"name": p.file, "path": path, "lines": len(text.splitlines()), "differences": differences}]

    def _addresses(self, site: Site, p: WrittenParams) -> list[str]:
        """Those of the machine that the file is for: its own, or, where no machine was deployed, the one of the exercise."""
        if not site.profile:
            return [p.address]
        # https://man7.org/linux/man-pages/man8/ip-address.8.html, -o: one line for each address
        lines = site.machine.run("ip", "-4", "-o", "address", "show", "scope", "global").lines
        own = [words[3].partition("/")[0] for words in map(str.split, lines) if len(words) > 3]
        return list(dict.fromkeys([site.address, *own]))

    def undo_data(self, context: Context, p: WrittenParams, thing: Thing) -> Thing:
        return {"name": thing["name"], "path": thing["path"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        site = context.site()
        there = site.machine.read(thing["path"], limit=1) is not None
        site.machine.run("rm", "-f", "--", thing["path"], user=None if site.why_not_root else "root")
        return there

    def runs(self, p: WrittenParams) -> str:
        return f"writes and reads {p.file} in the lab's scratch directory"

    def show_command(self, context: Context, p: WrittenParams) -> Command:
        return Command(("render", self.name.replace("local-", "local."), "--profile", p.profile), program="lab")


def _site(context: Context) -> Site | None:
    """The machine that the cloud runs on; None on paper."""
    try:
        return context.site()
    except Absent:
        return None


class LocalConf(WrittenFile):
    """A local.conf that stack.sh could run with. On a machine that DevStack made it is the real one."""

    name = "local-conf"
    deployer = "devstack"
    explanations = staticmethod(of_local_conf)
    passwords = localconf.SECRETS

    def render(self, profile: Profile, services: Sequence[str], address: str, secrets: dict[str, str] | None) -> str:
        text = localconf.render(profile, load_settings(), services=services, secrets=secrets, host_ip=address)
        # Without the line that says that lab up writes it again: it does not.
        return text.partition("\n\n")[2] if secrets else text

    def deployed(self, site: Site) -> str | None:
        if site.made_by != "devstack":
            return None
        return f"{load_profile(site.profile).devstack.directory}/local.conf"

    def complaints(self, text: str, site: Site, addresses: Sequence[str]) -> list[Complaint]:
        complaints = localconf_check.check(text, addresses=addresses)
        if any("quote" in each.text for each in complaints):
            return complaints  # bash would say the same, of the line where it gave up
        # What bash cannot read, bash tells best: -n reads and runs nothing.
        read = site.machine.run("bash", "-n", given=localconf_check.shell_part(text), check=False)
        return complaints if read.ok else sorted([*complaints, *localconf_check.misread(text, read.err)])

    def runs(self, p: WrittenParams) -> str:
        return f"{super().runs(p)}; bash -n reads it without running it"


class AnswerFile(WrittenFile):
    """An answer file that PackStack could deploy the lab's machine with. The one that it was deployed with is not touched."""

    name = "answer-file"
    deployer = "packstack"
    explanations = staticmethod(of_answer_file)
    passwords = answers.SECRETS

    def render(self, profile: Profile, services: Sequence[str], address: str, secrets: dict[str, str] | None) -> str:
        return answers.render(profile, services=services, secrets=secrets, host_ip=address)

    def complaints(self, text: str, site: Site, addresses: Sequence[str]) -> list[Complaint]:
        return check.check(text, addresses=addresses)


KINDS: list[Kind[Any]] = [LocalConf(), AnswerFile()]
