"""`lab prefetch`: fill the cache with what a profile's deployment will ask for; the same call goes on where one was left."""

from __future__ import annotations

from collections.abc import Iterator

from stacklab.cache import Outcome
from stacklab.deploy.profile.model import Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import DownloadFailed, LabError
from stacklab.prefetch import files, mirrors, plan, simple, wheels
from stacklab.prefetch.choosing import Chooser
from stacklab.prefetch.index import Index
from stacklab.prefetch.plan import Repository
from stacklab.stages import Progress

PARTS = ("git", "wheels", "files", "box")


def fill(
    profile: Profile, services: tuple[str, ...], parts: tuple[str, ...], settings: Settings, progress: Progress
) -> Iterator[Outcome]:
    """What came of each thing, as it comes. A failure is one of the outcomes, and the rest goes on.

    `services`: what `--with` asks for. Raises NotServed for one that the profile does not have, NotEnoughSpace.
    """
    plan.asked_for(profile, services)
    # The box and the files first: they are few, and without them there is no machine to stack on.
    if "files" in parts:
        for one in files.placed_files(profile):
            yield files.fetch("files", str(one.url), one.sha256, settings, progress)
    if "box" in parts:
        box = profile.box
        if box.url and not box.url.endswith(".json"):
            yield files.fetch("box", box.url, box.sha256, settings, progress)
        else:
            yield Outcome("box", box.name, "skipped", 0, f"Vagrant finds it by name: vagrant box add {box.name}")
    if profile.deployed_by == "packstack":
        for part in ("git", "wheels"):
            if part in parts:
                yield Outcome(
                    part, "DevStack's sources", "skipped", 0, "PackStack installs packages of the distribution"
                )
        return
    if "git" in parts:
        yield from _git(profile, services, settings, progress)
    if "wheels" in parts:
        yield from _wheels(profile, services, settings, progress)


def wanted_repositories(profile: Profile, services: tuple[str, ...]) -> list[Repository]:
    """DevStack and what it clones; DevStack alone while its mirror is not there to tell."""
    devstack = plan.devstack_of(profile)
    stackrc = mirrors.show(devstack, "stackrc")
    return [devstack] if stackrc is None else [devstack, *plan.repositories(profile, services, stackrc)]


def _git(profile: Profile, services: tuple[str, ...], settings: Settings, progress: Progress) -> Iterator[Outcome]:
    yield mirrors.fetch(plan.devstack_of(profile), settings, progress)
    wanted = wanted_repositories(profile, services)[1:]
    if not wanted:
        why = "what else DevStack clones is not known without its stackrc"
        yield Outcome("git", "its projects", "failed", 0, why, DownloadFailed(why, advice=mirrors.ADVICE))
    for repository in wanted:
        yield mirrors.fetch(repository, settings, progress)


def _wheels(profile: Profile, services: tuple[str, ...], settings: Settings, progress: Progress) -> Iterator[Outcome]:
    try:
        guest = plan.guest_of(profile)
        projects = wanted_repositories(profile, services)
        source = next((one for one in projects if one.name == plan.facts()["constraints"].lower()), None)
        text = mirrors.show(source, "upper-constraints.txt") if source else None
        if text is None:
            raise DownloadFailed(
                "which versions are needed is not known: the mirror of the requirements repository is not there",
                advice=f"first: lab prefetch {profile.name} --only git",
            )
    except LabError as error:
        yield Outcome("wheels", "Python packages", "failed", 0, error.message, error)
        return
    pins = wheels.constraints(text, Chooser(guest))
    yield from wheels.Walk(Index.of_host(settings), guest, pins, progress).run(wheels.roots(projects, guest))
    simple.write_pages()
