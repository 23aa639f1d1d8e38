"""Prefetch, take the internet away, and use what is kept: with real git and real pip, through the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stacklab import cache
from stacklab.cache import Outcome
from stacklab.cli.main import run
from stacklab.deploy.prepare import files as placed
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import NotServed
from stacklab.lab import Lab
from stacklab.prefetch import filling, mirrors, serving, simple
from stacklab.prefetch.filling import PARTS, fill
from stacklab.prefetch.plan import Repository
from tests.prefetch.conftest import BRANCH, World
from tests.prefetch.upstream import GIT, git, source, wheel

KEYSTONE = Repository("keystone", "https://git.example/openstack/keystone.git", BRANCH)


def quiet(line: str) -> None:
    pass


def everything(world: World, parts: tuple[str, ...] = PARTS) -> dict[str, Outcome]:
    return {one.name: one for one in fill(world.profile, (), parts, world.settings, quiet)}


def failures(outcomes: dict[str, Outcome]) -> list[str]:
    return [f"{one.name}: {one.detail}" for one in outcomes.values() if one.outcome == "failed"]


def clone(url: str, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *options, "clone", "--quiet", url, str(target)],
        env={**os.environ, **GIT, "GIT_TERMINAL_PROMPT": "0"}, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def pip_install(index: str, target: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check",
            "--retries", "0", "--index-url", index, "--target", str(target), *wanted,
        ],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_what_was_fetched_is_enough_when_upstream_is_gone(world: World, lab: Lab, tmp_path: Path) -> None:
    outcomes = everything(world)
    assert failures(outcomes) == []
    world.take_away()
    served = serving.start(lab, "127.0.0.1", world.profile, world.settings)
    settings = serving.settings_for(served, world.profile, world.settings)

    for url in ("https://git.example/openstack/keystone.git", "https://git.example/openstack/keystone"):
        target = tmp_path / url.rpartition("/")[2]
        done = clone(settings.at(url), target)
        assert done.returncode == 0, done.stderr
        # as DevStack's git_clone does it (functions-common)
        git(target, "fetch", "--quiet", "origin", BRANCH)
        git(target, "checkout", "--quiet", "FETCH_HEAD")
        assert (target / "requirements.txt").read_text().startswith("alpha")
        assert git(target, "describe") == "29.0.0"  # pbr's version

    novnc = tmp_path / "noVNC"
    assert clone(settings.at("https://git.example/novnc/noVNC.git"), novnc).returncode == 0
    git(novnc, "fetch", "--quiet", "origin", "v1.3.0")
    git(novnc, "checkout", "--quiet", "FETCH_HEAD")
    assert (novnc / "vnc.html").read_text() == "hello"

    assert settings.pip_index is not None
    done = pip_install(settings.pip_index, tmp_path / "site", "alpha==1.5")
    assert done.returncode == 0, done.stderr
    assert {"alpha_of_test.py", "beta_of_test.py", "gamma_of_test.py", "delta_of_test.py"} <= {
        path.name for path in (tmp_path / "site").iterdir()
    }
    kept = placed.kept_file(world.profile.files[0].url or "")
    assert kept is not None
    assert kept.read_bytes() == b"an image"


def test_only_what_is_wanted_is_mirrored(world: World) -> None:
    everything(world, ("git",))
    heads = git(mirrors.mirror_path(KEYSTONE.url), "for-each-ref", "--format=%(refname)").split()
    assert heads == [f"refs/heads/{BRANCH}", "refs/tags/29.0.0"]
    assert git(mirrors.mirror_path(KEYSTONE.url), "count-objects", "-v").splitlines()[0] == "count: 0"  # packs only


def test_a_second_prefetch_fetches_nothing_and_a_moved_branch_is_followed(world: World) -> None:
    everything(world)
    world.web.asked.clear()
    again = everything(world)
    assert {one.outcome for one in again.values()} == {"already"}
    assert [path for path in world.web.paths() if "/pool/" in path or path.endswith((".img", ".box"))] == []
    moved = world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "beta\n"})
    outcome = everything(world, ("git",))[f"keystone {BRANCH}"]
    assert outcome.outcome == "updated"
    assert mirrors.commit(mirrors.mirror_path(KEYSTONE.url), BRANCH) == moved


def test_a_branch_that_was_rewritten_is_followed(world: World) -> None:
    everything(world, ("git",))
    tree = world.repositories.root / "trees/openstack/keystone"
    git(tree, "commit", "--quiet", "--amend", "-m", "rewritten")
    bare = world.repositories.root / "openstack/keystone.git"
    git(tree, "push", "--quiet", "--force", str(bare), BRANCH)
    assert everything(world, ("git",))[f"keystone {BRANCH}"].outcome == "updated"
    assert mirrors.commit(mirrors.mirror_path(KEYSTONE.url), BRANCH) == git(tree, "rev-parse", "HEAD")


def test_a_repository_that_is_away_is_told_and_the_rest_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.repositories.root / "openstack/keystone.git").rename(world.repositories.root / "away")
    monkeypatch.setattr("stacklab.deploy.profile.load.load_profile", lambda name: world.profile)
    monkeypatch.setattr("stacklab.deploy.profile.load.load_settings", lambda: world.settings)
    status = run(["prefetch", "debian12-2026.1", "--only", "git,files", "--json"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = {event["name"]: event for event in events if event["event"] == "prefetched"}
    assert status == 12
    assert told[f"keystone {BRANCH}"]["outcome"] == "failed"
    assert "keystone.git could not be mirrored" in told[f"keystone {BRANCH}"]["detail"]
    assert told["novnc v1.3.0"]["outcome"] == "fetched"
    assert events[-1]["event"] == "error"
    assert events[-1]["message"].startswith("1 thing could not be fetched: keystone")
    assert [event["outcome"] for event in events if event["event"] == "stage-ended"] == ["failed"]
    (world.repositories.root / "away").rename(world.repositories.root / "openstack/keystone.git")
    assert run(["prefetch", "debian12-2026.1", "--only", "git,files"]) == 0


def test_a_ref_that_does_not_exist_is_named(world: World) -> None:
    outcome = mirrors.fetch(Repository("keystone", KEYSTONE.url, "stable/pike"), world.settings, quiet)
    assert outcome.outcome == "failed"
    assert "no branch or tag 'stable/pike'" in outcome.detail


def test_an_unknown_service_is_refused_before_anything_is_fetched(world: World) -> None:
    with pytest.raises(NotServed, match="does not serve 'teapot'"):
        list(fill(world.profile, ("teapot",), PARTS, world.settings, quiet))
    assert world.web.asked == []


def test_git_that_is_killed_leaves_no_rubbish_and_is_taken_up(world: World) -> None:
    path = mirrors.mirror_path(KEYSTONE.url)
    everything(world, ("git",))
    (path / "objects/pack/tmp_pack_abc").write_bytes(b"half")
    (path / "shallow.lock").write_bytes(b"")
    assert failures(everything(world, ("git",))) == []
    assert not (path / "objects/pack/tmp_pack_abc").exists()
    assert not (path / "shallow.lock").exists()


def test_packages_follow_pins_extras_and_markers(world: World) -> None:
    outcomes = everything(world, ("git", "wheels"))
    got = {one.name for one in outcomes.values() if one.part == "wheels"}
    assert {"alpha-1.5-py3-none-any.whl", "beta-2.0-py3-none-any.whl", "delta-4.0-py3-none-any.whl"} <= got
    assert not any(name.startswith(("alpha-1.6", "never", "old")) for name in got)


def test_a_source_brings_what_it_needs_and_what_builds_it(world: World) -> None:
    world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "epsilon\n"})
    build = '[build-system]\nrequires = ["flit_core>=3"]\n'
    world.index.offer(source("epsilon", "1.0", "beta\n\n[fast]\nnever\n\n[:python_version < '3']\nold\n", build))
    world.index.offer(wheel("flit-core", "3.9"))
    outcomes = everything(world, ("git", "wheels"))
    assert failures(outcomes) == []
    assert {"epsilon-1.0.tar.gz", "beta-2.0-py3-none-any.whl", "flit_core-3.9-py3-none-any.whl"} <= set(outcomes)


def test_a_package_that_the_index_lacks_is_told_with_who_needs_it(world: World) -> None:
    world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "alpha\nzeta>=2\n"})
    found = failures(everything(world, ("git", "wheels")))
    assert len(found) == 1
    assert "no file of zeta>=2 for Python 3.11" in found[0]
    assert "needed by keystone" in found[0]


def test_a_package_with_another_hash_than_the_index_says_is_not_kept(world: World) -> None:
    world.repositories.commit("openstack/keystone", BRANCH, {"requirements.txt": "eta\n"})
    world.index.offer(wheel("eta", "1.0"), sha256="0" * 64)
    found = failures(everything(world, ("git", "wheels")))
    assert len(found) == 1
    assert "SHA-256" in found[0]
    assert simple.kept("eta") == {}
    assert list(simple.folder("eta").iterdir()) == []


def test_a_damaged_file_is_noticed_and_fetched_again(world: World) -> None:
    everything(world)
    image = placed.file_path(world.profile.files[0].url or "")
    beta = simple.folder("beta") / "beta-2.0-py3-none-any.whl"
    for path in (image, beta):
        path.write_bytes(b"x" * path.stat().st_size)
    outcomes = everything(world)
    assert outcomes["cirros.img"].outcome == "updated"
    assert "damaged" in outcomes["cirros.img"].detail
    assert outcomes[beta.name].outcome == "fetched"
    assert image.read_bytes() == b"an image"
    assert cache.intact(beta)


def test_without_the_index_the_kept_packages_count(world: World) -> None:
    everything(world)
    world.web.take_away()
    outcomes = everything(world, ("git", "wheels"))
    assert failures(outcomes) == []
    assert {one.outcome for one in outcomes.values()} == {"already"}


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
    path = placed.kept_file(world.profile.box.url or "")
    assert path is not None
    assert path.read_bytes() == b"a box" * 200_000


def test_an_interrupted_box_that_changed_meanwhile_begins_anew(world: World) -> None:
    world.web.cut["/lab.box"] = 700_000
    everything(world, ("box",))
    world.web.put("lab.box", b"another" * 200_000)
    assert everything(world, ("box",))["lab.box"].outcome == "fetched"
    path = placed.kept_file(world.profile.box.url or "")
    assert path is not None
    assert path.read_bytes() == b"another" * 200_000


def test_two_prefetches_at_once_do_not_disturb_each_other(world: World) -> None:
    found: list[dict[str, Outcome]] = []
    threads = [threading.Thread(target=lambda: found.append(everything(world))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [failures(one) for one in found] == [[], []]
    assert len([path for path in world.web.paths() if path == "/lab.box"]) == 1
    assert {one.outcome for one in everything(world).values()} == {"already"}
    assert [path for path in cache.root().rglob("*.part*")] == []  # noqa: C416


def test_what_is_kept_is_listed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    everything(world)
    assert run(["prefetch", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "git.example/openstack/keystone.git" in shown
    assert "alpha-1.5-py3-none-any.whl" in shown
    assert "cirros.img" in shown
    assert run(["prefetch", "--list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["lab.box"]["size"] == 1_000_000


def test_the_kept_index_is_plain_directories(world: World, tmp_path: Path) -> None:
    """Any web server (or none: a file URL) can give it to pip."""
    everything(world)
    world.take_away()
    done = pip_install((cache.root() / "simple").as_uri(), tmp_path / "site", "alpha==1.5")
    assert done.returncode == 0, done.stderr


def test_without_a_mirror_of_devstack_nothing_is_guessed(world: World) -> None:
    world.repositories.take_away()
    found = failures(everything(world, ("git", "wheels")))
    assert any("without its stackrc" in one for one in found)
    assert any("mirror of the requirements repository is not there" in one for one in found)


def test_an_account_in_an_address_is_not_shown(world: World) -> None:
    settings = Settings(
        mirrors={"https://git.example/": "https://me:hunter2@127.0.0.1:1/"},
        pip_index="http://me:hunter2@127.0.0.1:1/simple",
    )
    outcome = mirrors.fetch(KEYSTONE, settings, quiet)
    assert outcome.outcome == "failed"
    assert "hunter2" not in json.dumps(outcome.told())
    everything(world, ("git",))
    world.settings = settings.model_copy(update={"mirrors": world.settings.mirrors})
    told = json.dumps([one.told() for one in everything(world, ("wheels",)).values()])
    assert "could not be read" in told
    assert "hunter2" not in told


def test_the_plan_is_read_from_devstacks_own_words(world: World) -> None:
    everything(world, ("git",))
    wanted = filling.wanted_repositories(world.profile, ())
    assert [(one.name, one.ref) for one in wanted] == [
        ("devstack", BRANCH), ("requirements", BRANCH), ("keystone", BRANCH), ("novnc", "v1.3.0"),
    ]  # fmt: skip
