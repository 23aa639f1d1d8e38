"""DevStack's local.conf, written by the learner."""

from __future__ import annotations

import secrets as random
from collections.abc import Sequence
from typing import Any

from stacklab.deploy import explained
from stacklab.deploy.complaint import Complaint
from stacklab.deploy.explained import Explanations
from stacklab.deploy.localconf import check as localconf_check
from stacklab.deploy.localconf import render as localconf
from stacklab.deploy.profile.load import load_profile, load_settings
from stacklab.kinds.context import Context
from stacklab.kinds.kind import Kind
from stacklab.kinds.narration import Command
from stacklab.kinds.written import WrittenFile, WrittenParams
from stacklab.machines.site import Site


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


KINDS: list[Kind[Any]] = [LocalConf()]
