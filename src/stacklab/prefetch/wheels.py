"""Python packages: what the mirrored projects need under the release's upper constraints, for the machine's Python.

The constraints pin nearly everything, so there is nothing to search: from the projects' requirements on, every name is
fetched in its pinned version, and its own metadata (in the file, which is needed anyway) names the next ones. This is the
same for Python 2.7, which uv's resolver does not know, and for today's. What is not pinned (what builds a source, pip itself)
is taken in the newest version that fits. What this does not see, e.g. extras that DevStack adds while it runs, is fetched
through us while stacking.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from stacklab import cache
from stacklab.cache import Outcome
from stacklab.download import Unreachable
from stacklab.errors import DownloadFailed, LabError, NotEnoughSpace
from stacklab.prefetch import mirrors, simple
from stacklab.prefetch.choosing import Candidate, Chooser
from stacklab.prefetch.index import Index, Link
from stacklab.prefetch.metadata import build_requirements, needs_of, parsed
from stacklab.prefetch.plan import Guest, Repository, facts
from stacklab.stages import Progress

AT_ONCE = 6
"""Downloads at a time: an index answers one question slowly and six as slowly."""


@dataclass(frozen=True)
class Wanted:
    """`by`: who needs it, for messages. `pinned`: the constraints hold for it (pip does not apply them to what only builds)."""

    requirement: Requirement
    by: str
    pinned: bool = True


def roots(projects: list[Repository], guest: Guest) -> list[Wanted]:
    """What is known to be needed before anything is fetched: from mirrored repositories, and DevStack's own list."""
    found = []
    for project in projects:
        told = mirrors.show(project, "requirements.txt")
        if told is None:
            continue
        found += [Wanted(one, project.name) for one in parsed(told.splitlines())]
        pyproject = mirrors.show(project, "pyproject.toml")
        found += [Wanted(one, project.name, pinned=False) for one in build_requirements(pyproject)]
    known = facts()["python"]
    for text in [*known["every"], *known[guest.python.partition(".")[0]]]:
        requirement = Requirement(text)
        # In its pinned version, and (for an environment that the constraints do not reach) in the newest.
        found.append(Wanted(requirement, "DevStack"))
        if requirement.name in ("pip", "setuptools", "wheel", "pbr"):
            found.append(Wanted(requirement, "DevStack", pinned=False))
    return found


def constraints(text: str, chooser: Chooser) -> dict[str, SpecifierSet]:
    """upper-constraints.txt as this guest reads it: by name, the one version."""
    found: dict[str, SpecifierSet] = {}
    for line in text.splitlines():
        try:
            one = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue
        if chooser.wants(one.marker):
            found[canonicalize_name(one.name)] = one.specifier
    return found


class Walk:
    """Fetches what is wanted, and what that needs, until nothing new comes."""

    def __init__(self, index: Index, guest: Guest, pins: dict[str, SpecifierSet], progress: Progress) -> None:
        self.index, self.pins, self.progress = index, pins, progress
        self.chooser = Chooser(guest)
        self._pages: dict[str, list[Link]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._done: dict[str, Outcome] = {}
        self._told = 0.0

    def run(self, wanted: list[Wanted]) -> Iterator[Outcome]:
        """What came of each file, as it comes; failures are told, and the rest goes on."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while wanted:
                # Specifiers of one wave that name the same package count together, as pip would have it.
                batch = [one for one in self._merged(wanted) if self._new(one)]
                wanted = []
                for outcome, following in pool.map(self._one, batch):
                    if outcome.name not in self._done:
                        self._done[outcome.name] = outcome
                        self._tell(outcome)
                        yield outcome
                    wanted += following

    def _tell(self, outcome: Outcome) -> None:
        """Now and then: they come by the hundred."""
        if time.monotonic() - self._told > 2:
            self._told = time.monotonic()
            self.progress(f"{len(self._done)} packages; {outcome.name}")

    def _new(self, one: Wanted) -> bool:
        extras = sorted(one.requirement.extras)
        key = (canonicalize_name(one.requirement.name), f"{self._versions(one)}{extras}{one.pinned}")
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _merged(self, wanted: list[Wanted]) -> list[Wanted]:
        found: dict[tuple[str, bool, frozenset[str]], Wanted] = {}
        for one in wanted:
            if not self.chooser.wants(one.requirement.marker):
                continue
            key = (canonicalize_name(one.requirement.name), one.pinned, frozenset(one.requirement.extras))
            if key in found:
                found[key].requirement.specifier &= one.requirement.specifier
            else:
                found[key] = Wanted(Requirement(_plain(one.requirement)), one.by, one.pinned)
        return list(found.values())

    def _versions(self, one: Wanted) -> SpecifierSet:
        pin = self.pins.get(canonicalize_name(one.requirement.name)) if one.pinned else None
        return pin if pin is not None else one.requirement.specifier

    def _one(self, wanted: Wanted) -> tuple[Outcome, list[Wanted]]:
        name, label = wanted.requirement.name, f"{wanted.requirement.name}{self._versions(wanted)}"
        try:
            chosen, record = self._chosen(wanted)
        except NotEnoughSpace:
            raise
        except LabError as error:
            return Outcome("wheels", label, "failed", 0, f"{error.message} (needed by {wanted.by})", error), []
        path = simple.folder(name) / chosen.link.file
        outcome = Outcome("wheels", chosen.link.file, "fetched" if record else "already", path.stat().st_size)
        return outcome, self._following(wanted, chosen)

    def _following(self, wanted: Wanted, chosen: Candidate) -> list[Wanted]:
        needs = needs_of(simple.folder(wanted.requirement.name) / chosen.link.file)
        extras = wanted.requirement.extras
        by = f"{wanted.requirement.name} {chosen.version}"
        run = [one for one in needs.run if self.chooser.wants(one.marker, extras)]
        found = [Wanted(Requirement(_plain(one)), by, wanted.pinned) for one in run]
        return found + [Wanted(one, by, pinned=False) for one in needs.build]

    def _chosen(self, wanted: Wanted) -> tuple[Candidate, bool]:
        """The file, which is kept when this returns, and whether it was fetched just now."""
        name, versions = canonicalize_name(wanted.requirement.name), self._versions(wanted)
        have = self._have(name, versions)
        if have is not None and name in self.pins and wanted.pinned:
            return have, False  # a pinned version that is here and whole: nobody needs to be asked
        try:
            offered = self._page(name)
        except Unreachable:
            if have is not None:
                return have, False
            raise
        chosen = self.chooser.best(offered, versions)
        if chosen is None:
            raise DownloadFailed(
                f"the index has no file of {name}{versions} for Python {self.chooser.guest.python}",
                advice="pip on the machine would not find it either; see: pip config list",
            )
        path = simple.folder(name) / chosen.link.file
        if cache.intact(path):
            return chosen, False
        cache.keep(
            chosen.link.url, path, self.progress, sha256=chosen.link.sha256 or None,
            needs_python=chosen.link.needs_python, session=self.index.session,
        )  # fmt: skip
        return chosen, True

    def _have(self, name: str, versions: SpecifierSet) -> Candidate | None:
        """The best kept file; a damaged one does not count."""
        links = [Link(file, "", record.sha256, record.needs_python) for file, record in simple.kept(name).items()]
        while links:
            best = self.chooser.best(links, versions)
            if best is None or cache.intact(simple.folder(name) / best.link.file):
                return best
            links.remove(best.link)
        return None

    def _page(self, name: str) -> list[Link]:
        if name not in self._pages:
            self._pages[name] = self.index.links(name)
        return self._pages[name]


def _plain(requirement: Requirement) -> str:
    """Without its marker, which has been looked at."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
