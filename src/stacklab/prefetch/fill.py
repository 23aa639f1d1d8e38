"""`lab prefetch`: fetch what a profile's deployment will ask for; the same call goes on where one was left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from stacklab.cache import cache_path, cached_file, fetched_file
from stacklab.deploy.profile.model import PlacedFile, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import DownloadFailed, LabError, NotEnoughSpace
from stacklab.prefetch import mirrors, plan, wheels
from stacklab.prefetch.plan import FetchOutcome, Outcome, Repository
from stacklab.stages import Progress

PARTS = ("git", "wheels", "files", "box")


def fill(
    profile: Profile, services: tuple[str, ...], parts: tuple[str, ...], settings: Settings, progress: Progress
) -> Iterator[FetchOutcome]:
    """What came of each thing, as it comes. A failure is one of the outcomes, and the rest goes on.

    `services`: what `--with` asks for. Raises UnknownName, NotServed for one that the profile does not have, NotEnoughSpace.
    """
    profile.chosen(services)
    # The box and the files first: they are few, and without them there is no machine to stack on.
    if "files" in parts:
        for placed in _placed_files(profile):
            yield from _file("files", str(placed.url), placed.sha256, settings, progress)
    if "box" in parts:
        box = profile.box
        if box.url and not box.url.endswith(".json"):
            yield from _file("box", box.url, box.sha256, settings, progress)
        else:
            yield FetchOutcome("box", box.name, "skipped", 0, f"Vagrant finds it by name: vagrant box add {box.name}")
    for part in ("git", "wheels"):
        if part not in parts:
            continue
        if profile.deployed_by == "packstack":
            yield FetchOutcome(part, profile.name, "skipped", 0, "PackStack installs packages of the distribution")
        elif part == "git":
            yield from _git(profile, services, settings, progress)
        else:
            yield from _tried(part, "Python packages", lambda: _wheels(profile, services, settings, progress))


def _tried(part: str, name: str, work: Callable[[], Iterable[FetchOutcome]]) -> Iterator[FetchOutcome]:
    """What comes of `work`; that it failed is an outcome, too. Raises NotEnoughSpace: nothing that follows would fit either."""
    try:
        yield from work()
    except NotEnoughSpace:
        raise
    except LabError as error:
        yield FetchOutcome(part, name, "failed", 0, error.message, error)


def repositories(profile: Profile, services: tuple[str, ...]) -> list[Repository]:
    """DevStack and what it clones; DevStack alone while its mirror is not there to say."""
    devstack = plan.devstack_of(profile)
    stackrc = mirrors.show(devstack, "stackrc")
    return [devstack] if stackrc is None else [devstack, *plan.repositories(profile, services, stackrc)]


def _placed_files(profile: Profile) -> list[PlacedFile]:
    """Those that have an address, of the profile and of its variants, each once."""
    variants = [file for variant in profile.variants.values() for file in variant.files]
    placed = [file for file in [*profile.repositories, *profile.files, *variants] if file.url]
    return list({str(file.url): file for file in placed}.values())


def _file(part: str, url: str, sha256: str | None, settings: Settings, progress: Progress) -> Iterator[FetchOutcome]:
    name = cache_path(url).name

    def fetch() -> Iterator[FetchOutcome]:
        there, whole = cache_path(url).exists(), cached_file(url, sha256) is not None
        progress(name)
        path = fetched_file(url, progress, source=settings.at(url), sha256=sha256, ca_file=settings.ca_file)
        detail = "" if sha256 else "no checksum is known for it"
        if there and not whole:
            detail = "the one that was there was damaged, or another one"
        outcome: Outcome = "already" if whole else "updated" if there else "fetched"
        yield FetchOutcome(part, name, outcome, path.stat().st_size, detail)

    return _tried(part, name, fetch)


def _git(profile: Profile, services: tuple[str, ...], settings: Settings, progress: Progress) -> Iterator[FetchOutcome]:
    def fetched(repository: Repository) -> Iterator[FetchOutcome]:
        name = f"{repository.name} {repository.ref}"
        return _tried("git", name, lambda: [mirrors.fetch(repository, settings, progress)])

    yield from fetched(plan.devstack_of(profile))
    others = repositories(profile, services)[1:]
    if not others:
        why = "what else DevStack clones is not known without its stackrc"
        yield FetchOutcome("git", "its projects", "failed", 0, why, DownloadFailed(why, advice=mirrors.ADVICE))
    for repository in others:
        yield from fetched(repository)


def _wheels(
    profile: Profile, services: tuple[str, ...], settings: Settings, progress: Progress
) -> Iterator[FetchOutcome]:
    projects, named = repositories(profile, services), plan.facts()["constraints"].lower()
    source = next((repository for repository in projects if repository.name == named), None)
    constraints = mirrors.show(source, "upper-constraints.txt") if source else None
    if constraints is None:
        raise DownloadFailed(
            "which versions are needed is not known: the mirror of the requirements repository is not there",
            advice=f"first: lab prefetch {profile.name} --only git",
        )
    yield from wheels.fetch(projects, constraints, plan.target_of(profile), settings, progress)
