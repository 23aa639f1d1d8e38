"""PackStack's answer file, written by the learner."""

from __future__ import annotations

import secrets as random
from collections.abc import Sequence
from typing import Any

from stacklab.deploy.complaint import Complaint
from stacklab.deploy.explained import Explanations
from stacklab.deploy.packstack import answers, check
from stacklab.deploy.profile.load import load_profile
from stacklab.kinds.context import Context
from stacklab.kinds.kind import Kind
from stacklab.kinds.narration import Command
from stacklab.kinds.written import WrittenFile, WrittenParams
from stacklab.machines.site import Site


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


KINDS: list[Kind[Any]] = [AnswerFile()]
