"""Prefetching with real git, uv and pip, from an internet that is the test's own."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from stacklab.cache import cache_path, cache_root, cached_file
from stacklab.cli.main import run
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import DownloadFailed, UnknownName
from stacklab.prefetch import fill, mirrors, wheels
from stacklab.prefetch.fill import PARTS
from stacklab.prefetch.plan import FetchOutcome, PrefetchTarget, Repository
from tests.prefetch.conftest import BRANCH, World
from tests.prefetch.upstream import git, wheel

KEYSTONE = Repository("keystone", "https://git.example/openstack/keystone.git", BRANCH)


def quiet(line: str) -> None:
    pass


def everything(world: World, parts: tuple[str, ...] = PARTS) -> dict[str, FetchOutcome]:
    return {outcome.name: outcome for outcome in fill.fill(world.profile, (), parts, world.settings, quiet)}


def failures(outcomes: dict[str, FetchOutcome]) -> list[str]:
    return [f"{outcome.name}: {outcome.detail}" for outcome in outcomes.values() if outcome.outcome == "failed"]


def test_only_what_is_wanted_is_mirrored(world: World) -> None:
    everything(world, ("git",))
    heads = git(mirrors.mirror_path(KEYSTONE.url), "for-each-ref", "--format=%(refname)").split()
    assert heads == [f"refs/heads/{BRANCH}", "refs/tags/29.0.0"]
    assert git(mirrors.mirror_path(KEYSTONE.url), "count-objects", "-v").splitlines()[0] == "count: 0"  # packs only


def test_a_second_prefetch_fetches_nothing_and_a_moved_branch_is_followed(world: World) -> None:
    everything(world)
    world.web.asked.clear()
    again = everything(world)
    assert {report.outcome for report in again.values()} == {"already"}
    assert [path for path in world.web.paths() if path.endswith((".img", ".box"))] == []
    moved = world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "beta\n"})
    outcome = everything(world, ("git",))[f"keystone {BRANCH}"]
    assert outcome.outcome == "updated"
    assert mirrors.commit(mirrors.mirror_path(KEYSTONE.url), BRANCH) == moved


def test_a_repository_that_is_away_is_told_and_the_rest_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.repositories.root / "openstack/keystone.git").rename(world.repositories.root / "away")
    monkeypatch.setattr("stacklab.cli.deployment.load_profile", lambda name: world.profile)
    monkeypatch.setattr("stacklab.cli.deployment.load_settings", lambda: world.settings)
    status = run(["prefetch", "debian12-2026.1", "--only", "git,files", "--json"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    outcomes = {event["name"]: event for event in events if event["event"] == "prefetched"}
    assert status == 12
    assert outcomes[f"keystone {BRANCH}"]["outcome"] == "failed"
    assert "keystone.git could not be mirrored" in outcomes[f"keystone {BRANCH}"]["detail"]
    assert outcomes["novnc v1.3.0"]["outcome"] == "fetched"
    assert events[-1]["event"] == "error"
    assert events[-1]["message"].startswith("1 thing could not be fetched: keystone")
    assert [event["outcome"] for event in events if event["event"] == "stage-ended"] == ["failed"]
    (world.repositories.root / "away").rename(world.repositories.root / "openstack/keystone.git")
    assert run(["prefetch", "debian12-2026.1", "--only", "git,files"]) == 0


def test_a_ref_that_does_not_exist_is_named(world: World) -> None:
    with pytest.raises(DownloadFailed, match="no branch or tag 'stable/pike'"):
        mirrors.fetch(Repository("keystone", KEYSTONE.url, "stable/pike"), world.settings, quiet)


def test_an_unknown_service_is_refused_before_anything_is_fetched(world: World) -> None:
    with pytest.raises(UnknownName, match="knows no service 'teapot'"):
        list(fill.fill(world.profile, ("teapot",), PARTS, world.settings, quiet))
    assert world.web.asked == []


def test_git_that_is_killed_leaves_no_rubbish_and_is_taken_up(world: World) -> None:
    path = mirrors.mirror_path(KEYSTONE.url)
    everything(world, ("git",))
    (path / "objects/pack/tmp_pack_abc").write_bytes(b"half")
    (path / "shallow.lock").write_bytes(b"")
    assert failures(everything(world, ("git",))) == []
    assert not (path / "objects/pack/tmp_pack_abc").exists()
    assert not (path / "shallow.lock").exists()


def test_packages_follow_pins_extras_and_markers_and_what_builds_is_the_newest(world: World) -> None:
    got = {name for name, outcome in everything(world, ("git", "wheels")).items() if outcome.part == "wheels"}
    files = ("alpha-1.5", "beta-2.0", "delta-4.0", "setuptools-99.0", "setuptools-100.0")
    assert {f"{file}-py3-none-any.whl" for file in files} <= got
    assert not any(name.startswith(("alpha-1.6", "never", "old")) for name in got)


def test_what_has_no_wheel_is_named_and_the_rest_comes(world: World) -> None:
    world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "alpha\nepsilon\n"})
    world.index.offer(("epsilon-1.0.tar.gz", b"nothing here is ever unpacked"))
    outcomes = everything(world, ("git", "wheels"))
    assert outcomes["epsilon"].outcome == "skipped"
    assert "no wheel" in outcomes["epsilon"].detail
    assert outcomes["beta-2.0-py3-none-any.whl"].outcome == "fetched"


def test_what_is_nowhere_is_named(world: World) -> None:
    world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "alpha\nzeta>=2\n"})
    assert "zeta" in " ".join(failures(everything(world, ("git", "wheels"))))


def test_python_27_gets_every_pinned_version_that_has_a_wheel_for_it(world: World) -> None:
    narrow = "cp27-cp27mu-manylinux1_x86_64"
    for package in (wheel("old", "1.0", tag=narrow), wheel("wide", "2.0", tag="py2.py3-none-any")):
        world.index.offer(package, python="")
    for tag in ("cp27-cp27m-manylinux1_x86_64", "cp27-cp27mu-manylinux2014_x86_64"):
        world.index.offer(wheel("other", "1.0", tag=tag), python="")  # an interpreter, a glibc that it has not
    constraints = "old===1.0;python_version=='2.7'\nwide===2.0.0\nother===1.0\nnew===3;python_version>='3.0'\n"
    target = PrefetchTarget("2.7", "2.5", "cp27mu")
    outcomes = {it.name: it.outcome for it in wheels.fetch([], constraints, target, world.settings, quiet)}
    assert outcomes[f"old-1.0-{narrow}.whl"] == outcomes["wide-2.0-py2.py3-none-any.whl"] == "fetched"
    assert outcomes["other==1.0"] == "skipped"
    assert not any(name.startswith("new") for name in outcomes)


def test_a_package_with_another_hash_than_the_index_says_is_not_taken(world: World) -> None:
    world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "eta\n"})
    world.index.offer(wheel("eta", "1.0"), sha256="0" * 64)
    assert "eta" in " ".join(failures(everything(world, ("git", "wheels"))))
    assert not list((cache_root() / "python").rglob("eta*"))


def test_a_damaged_file_is_noticed_and_fetched_again(world: World) -> None:
    everything(world, ("files",))
    image = cache_path(world.profile.files[0].url or "")
    image.write_bytes(b"x" * image.stat().st_size)
    outcome = everything(world, ("files",))["cirros.img"]
    assert (outcome.outcome, "damaged" in outcome.detail) == ("updated", True)
    assert image.read_bytes() == b"an image"


def test_an_interrupted_box_is_gone_on_with(world: World) -> None:
    world.web.cut["/lab.box"] = 700_000
    first = everything(world, ("box",))["lab.box"]
    assert first.outcome == "failed"
    assert "it broke off 300000 bytes before its end" in first.detail
    world.web.asked.clear()
    second = everything(world, ("box",))["lab.box"]
    assert second.outcome == "fetched"
    begin = int(world.web.asked[0][1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin <= 700_000
    path = cached_file(world.profile.box.url or "")
    assert path is not None
    assert path.read_bytes() == b"a box" * 200_000


def test_two_prefetches_at_once_do_not_disturb_each_other(world: World) -> None:
    results: list[dict[str, FetchOutcome]] = []
    threads = [threading.Thread(target=lambda: results.append(everything(world))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [failures(result) for result in results] == [[], []]
    assert len([path for path in world.web.paths() if path == "/lab.box"]) == 1
    assert {report.outcome for report in everything(world).values()} == {"already"}
    assert [path for path in cache_root().rglob("*.part*")] == []  # noqa: C416


def test_without_a_mirror_of_devstack_nothing_is_guessed(world: World) -> None:
    world.repositories.take_away()
    missing = failures(everything(world, ("git", "wheels")))
    assert any("without its stackrc" in entry for entry in missing)
    assert any("mirror of the requirements repository is not there" in entry for entry in missing)


def test_an_account_in_an_address_is_not_shown(world: World) -> None:
    settings = Settings(
        mirrors={"https://git.example/": "https://me:hunter2@127.0.0.1:1/"},
        pip_index="http://me:hunter2@127.0.0.1:1/simple",
    )
    with pytest.raises(DownloadFailed) as caught:
        mirrors.fetch(KEYSTONE, settings, quiet)
    assert "hunter2" not in f"{caught.value.message} {caught.value.advice}"
    everything(world, ("git",))
    world.settings = settings.model_copy(update={"mirrors": world.settings.mirrors})
    text = json.dumps([report.as_json() for report in everything(world, ("wheels",)).values()])
    assert "do" in text
    assert "hunter2" not in text


def test_the_plan_is_read_from_devstacks_own_words(world: World) -> None:
    everything(world, ("git",))
    repositories = fill.repositories(world.profile, ())
    assert [(source.name, source.ref) for source in repositories] == [
        ("devstack", BRANCH), ("requirements", BRANCH), ("keystone", BRANCH), ("novnc", "v1.3.0"),
    ]  # fmt: skip
