"""Session 1 on a real cloud and this machine's kernel: graded by mutation, done three ways, and gone after undo and reset.

What the kernel or the account does not allow here is not applicable, and the tests then assert just that.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stacklab.course.load import load_session
from stacklab.course.session import Exercise, Step
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.machines.base import Finished, Machine
from stacklab.machines.local import LocalMachine
from stacklab.machines.scratch import group_name
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from stacklab.replay.narrate import narrate
from stacklab.replay.undo import undo
from stacklab.replay.vias import do as do_step
from tests.controlgroups import control_groups
from tests.embedded.breaks import (
    disabled,
    done_anew,
    made_anew,
    of,
    paused,
    renamed,
    without_address,
    without_role,
    without_rule,
)
from tests.embedded.mutation import Break, Mend, Mutations, applicable, by_names, done_session, failed, find

SESSION = load_session("session1")
ON_THE_MACHINE = [step for step in SESSION.steps() if step.kind.name == "shell"]
LASTING = [step.id for step in ON_THE_MACHINE if step.kind.lasting(step.params)]


@pytest.fixture(scope="module")
def whole(running: Lab) -> Iterator[Workspace]:
    """The whole session, done."""
    yield done_session(running, "session1")
    reset(running, lambda detail: None)


@pytest.fixture(scope="module")
def done(whole: Workspace, running: Lab) -> Workspace:
    """The session's objects in the cloud."""
    return part(running, [exercise for exercise in SESSION.exercises if exercise.id == "ec2"])


@pytest.fixture(scope="module")
def machine(whole: Workspace, running: Lab) -> Workspace:
    """The session's steps on the machine, which share nothing with its objects in the cloud."""
    return part(running, [exercise for exercise in SESSION.exercises if exercise.id != "ec2"])


def part(lab: Lab, exercises: list[Exercise]) -> Workspace:
    """The session as if it had these exercises only."""
    session = replace(SESSION, exercises=tuple(exercises))
    return workspace_at(home_of(lab), lab, session, lambda text: None)


def scratch_of(desk: Workspace) -> Path:
    """Where the steps work."""
    return Path(desk.site().scratch)


def shell(desk: Workspace, step: str, broken: str, mended: str) -> Break:
    """Break and mend with lines of shell, run where and as the step's own are."""

    def run(lines: str) -> None:
        chosen = SESSION.step(step)
        other = chosen.params.model_copy(update={"run": lines, "check": None, "shows": [], "processes": []})
        do_step(desk.context(chosen), replace(chosen, params=other), "rest")

    def act(desk: Workspace) -> Mend:
        run(broken)
        return lambda: run(mended)

    return act


def written(step: str, lines: str, back: str) -> Break:
    """Break with `lines`, mend with `back`."""
    return lambda desk: shell(desk, step, lines, back)(desk)


def redone(step: str, lines: str, *after: str) -> Break:
    """Break with `lines`; mend by doing the step again, and then those that changed what it made."""

    def act(desk: Workspace) -> Mend:
        shell(desk, step, lines, ":")(desk)

        def mend() -> None:
            for name in (step, *after):
                done_anew(desk, name)

        return mend

    return act


END_IT = """
pid=$(cat {name}.pid); inside=$(cut -d ' ' -f 1 "/proc/$pid/task/$pid/children")
kill -s KILL ${{inside:-$pid}}
while [ -e "/proc/${{inside:-$pid}}" ] && ! grep -q '^State:.Z' "/proc/${{inside:-$pid}}/status"; do sleep 0.1; done
"""


def other_box(without: str) -> Break:
    """A box that lacks one of the namespaces."""

    def act(desk: Workspace) -> Mend:
        chosen = SESSION.step("box")
        lines = END_IT.format(name="box") + str(chosen.params.model_dump()["run"]).replace(f" --{without}", "")
        shell(desk, "box", lines.replace("hostname box", ":") if without == "uts" else lines, ":")(desk)

        def mend() -> None:
            shell(desk, "box", END_IT.format(name="box"), ":")(desk)
            done_anew(desk, "box")

        return mend

    return act


def seen_otherwise(words: str, other: str) -> Break:
    """What a step looks at here nobody can change, so its machine is one on which these words mean something else."""

    class Otherwise(LocalMachine):
        def __init__(self, machine: Machine) -> None:
            super().__init__()
            self.machine = machine

        def script(self, text: str, *arguments: str, **options: Any) -> Finished:
            return self.machine.script(text.replace(words, other), *arguments, **options)

    def act(desk: Workspace) -> Mend:
        before = desk.site
        site = replace(before(), machine=Otherwise(before().machine))
        desk.site = lambda: site
        return lambda: setattr(desk, "site", before)

    return act


LIMITS = (
    'if [ "$CGROUP_VERSION" = 2 ]; then echo {new} > "$CGROUP_{what}/{v2}"; else echo {old} > "$CGROUP_{what}/{v1}"; fi'
)

BREAKS: dict[str, Break] = {
    "idle": seen_otherwise("< /proc/stat", "< /proc/nowhere"),
    "kernel": seen_otherwise("first=$(cat /proc/1/comm)\necho", "first=$(cat /proc/nowhere)\necho"),
    "outside": seen_otherwise("ls -l /proc/self/ns", "ls -l /proc/self/nowhere"),
    "one-process": seen_otherwise("LC_ALL=C tail", "cat"),
    "box": redone("box", END_IT.format(name="box")),
    "own-processes": written(
        "box",
        # the machine's own /proc, put over the box's
        '$NSENTER --target "$(cut -d " " -f 1 /proc/$(cat box.pid)/task/*/children)" --mount --pid umount /proc',
        '$NSENTER --target "$(cut -d " " -f 1 /proc/$(cat box.pid)/task/*/children)" --mount --pid mount -t proc proc /proc',
    ),
    "own-mounts": written(
        "box",
        '$NSENTER --target "$(cut -d " " -f 1 /proc/$(cat box.pid)/task/*/children)" --mount umount "$PWD/desk"',
        '$NSENTER --target "$(cut -d " " -f 1 /proc/$(cat box.pid)/task/*/children)" --mount '
        'sh -c \'mount -t tmpfs tmpfs "$1" && touch "$1/note"\' sh "$PWD/desk"',
    ),
    "own-network": other_box("net"),
    "own-name": other_box("uts"),
    "pids": redone("pids", 'echo max > "$CGROUP_PIDS/pids.max"'),
    "memory": redone(
        "memory",
        'if [ "$CGROUP_VERSION" = 2 ]; then echo max > "$CGROUP_MEMORY/memory.max"; else '
        'for one in memsw.limit limit; do echo -1 > "$CGROUP_MEMORY/memory.${one}_in_bytes"; done; fi',
    ),
    "cpu": redone("cpu", LIMITS.format(what="CPU", new="max", v2="cpu.max", old="-1", v1="cpu.cfs_quota_us")),
    "layers": written("layers", "mv lower/greeting kept; echo changed > lower/greeting", "mv kept lower/greeting"),
    "copy-on-write": redone("copy-on-write", "cp lower/greeting upper/greeting"),
    "whiteout": redone("whiteout", "rm upper/obsolete; touch upper/obsolete; rm upper/obsolete"),
    "image": written("image", "mv image/bin/ls kept", "mv kept image/bin/ls"),
    "run-it": redone("run-it", END_IT.format(name="container"), "limited"),
    "limited": redone("limited", 'echo max > "$CGROUP_JOIN/pids.max"'),
    "project": disabled("projects", of("project")),
    "user": disabled("users", of("user")),
    "member": without_role,
    "ec2-image": renamed("image", "images", "ec2-image"),
    "flavor": made_anew("flavor"),
    "key-pair": made_anew("key-pair"),
    "security-group": without_rule("tcp"),
    "network": renamed("network", "networks", "network"),
    "subnet": renamed("network", "subnets", "subnet"),
    "router": renamed("network", "routers", "router"),
    "instance": paused("instance"),
    "floating-ip": without_address("floating-ip"),
    "volume": renamed("block-storage", "volumes", "volume"),
    "bucket": made_anew("bucket"),
    "terms": made_anew("bucket"),
}

SHARED = {"terms": {"bucket"}, "whiteout": {"layers"}}
"""The table's rows are declared by the steps that make the things."""


def test_every_step_has_its_mutation() -> None:
    assert set(BREAKS) == {step.id for step in SESSION.steps()}


MUTATIONS = Mutations(SESSION, BREAKS, SHARED, apart={"own-processes", "own-mounts", "own-network", "own-name"})
HERE = [step.id for step in ON_THE_MACHINE]


@pytest.mark.parametrize("steps", MUTATIONS.rounds(HERE), ids=by_names)
def test_breaking_what_steps_did_on_the_machine_fails_them_and_only_what_needs_them(
    machine: Workspace, steps: tuple[str, ...]
) -> None:
    possible = applicable(machine)
    for grade in check(machine, [SESSION.step(step) for step in steps if step not in possible]).grades:
        assert grade.status == "not_applicable"
        assert grade.actual
    MUTATIONS.assert_noticed(machine, tuple(step for step in steps if step in possible))


@pytest.mark.parametrize("steps", MUTATIONS.rounds([step for step in BREAKS if step not in HERE]), ids=by_names)
def test_breaking_what_steps_declare_fails_them_and_only_what_needs_them(
    done: Workspace, steps: tuple[str, ...]
) -> None:
    MUTATIONS.assert_noticed(done, steps)


def test_after_all_mutations_everything_is_as_it_was(done: Workspace) -> None:
    assert failed(done) == {}


def processes(desk: Workspace) -> set[int]:
    """What steps have left running: whatever works below their directory or is in a cgroup of the lab's."""
    scratch = scratch_of(desk)
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(scratch):
                found.add(int(entry.name))
        except OSError:
            continue  # it ended while we looked, or is not ours
    for group in groups(desk):
        found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
    return found


def groups(desk: Workspace) -> list[Path]:
    """The lab's control groups."""
    return control_groups(f"{group_name(str(scratch_of(desk)))}-")


def do(lab: Lab, desk: Workspace, steps: list[Step], via: str = "rest") -> dict[str, str]:
    """Do steps; how each ended."""
    return {step.id: apply_step(desk, journal_of(lab), step, via).outcome for step in steps}


@pytest.mark.parametrize("via", ["cli", "rest"])
def test_the_words_are_seen_in_every_way_of_doing_it(
    running: Lab, done: Workspace, via: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(done, "say", said.append)
    step = SESSION.step("terms")
    if via == "cli":  # the client takes a second and more for each row: one of each sort
        sorts = ("server", "key-pair", "floating-ip", "container")
        rows = [row for row in step.params.model_dump(by_alias=True)["rows"] if row["is"] in sorts]
        step = replace(step, params=type(step.params).model_validate({"rows": rows}))
    assert do(running, done, [step], via) == {"terms": "done"}
    assert find(done, "instance")["id" if via == "cli" else "name"] in "".join(said)


@pytest.mark.parametrize("via", ["rest", "cli"])
def test_what_steps_make_on_the_machine_is_gone_after_undo(running: Lab, via: str) -> None:
    reset(running, lambda detail: None)
    desk = workspace_at(home_of(running), running, SESSION, lambda text: None)
    steps = [step for step in ON_THE_MACHINE if step.id in LASTING]
    first = do(running, desk, steps, via)
    assert set(first.values()) <= {"done", "not_applicable"}
    there = [step for step in steps if first[step.id] == "done"]
    if "box" in {step.id for step in there}:
        assert processes(desk)
    assert {grade.status for grade in check(desk, there).grades} <= {"passed"}
    assert set(do(running, desk, there, via).values()) <= {"already"}

    undo(desk, journal_of(running), steps, lambda step, detail: None)
    assert processes(desk) == set()
    assert groups(desk) == []
    assert list(scratch_of(desk).rglob("*")) == []
    assert {grade.status for grade in check(desk, there).grades} <= {"failed"}


def test_reset_ends_what_steps_left_running_and_empties_their_directory(running: Lab) -> None:
    reset(running, lambda detail: None)
    desk = workspace_at(home_of(running), running, SESSION, lambda text: None)
    outcomes = do(running, desk, [step for step in ON_THE_MACHINE if step.id in LASTING])
    if outcomes["box"] == "done":
        assert processes(desk)
    reset(running, lambda detail: None)
    assert processes(desk) == set()
    assert groups(desk) == []
    assert not scratch_of(desk).exists()


def test_a_learner_who_types_what_is_shown_is_graded_for_it(running: Lab) -> None:
    """The text of `lab show`, given to a shell of the learner's own, passes the check without the lab having done anything."""
    reset(running, lambda detail: None)
    desk = workspace_at(home_of(running), running, SESSION, lambda text: None)
    chosen = [SESSION.step(name) for name in ("box", "layers", "copy-on-write", "whiteout", "image")]
    chosen = [step for step in chosen if step.id in applicable(desk)]
    for step in chosen:
        told = narrate(desk, desk.offline(step), step)["commands"]
        assert told
        subprocess.run(["bash"], input="\n".join(told), text=True, check=True, timeout=60, capture_output=True)
    assert {grade.id: grade.actual for grade in check(desk, chosen).grades if grade.status != "passed"} == {}
    assert journal_of(running).entries("session1") == {}
    undo(desk, journal_of(running), chosen, lambda step, detail: None)
    assert {grade.status for grade in check(desk, chosen).grades} == {"passed"}
    reset(running, lambda detail: None)
    assert processes(desk) == set()


def test_a_process_that_was_given_a_dead_ones_number_is_not_ended(running: Lab) -> None:
    """The pid file outlives its process; who has its number now is nobody of ours."""
    reset(running, lambda detail: None)
    desk = workspace_at(home_of(running), running, SESSION, lambda text: None)
    stranger = subprocess.Popen(["sleep", "300"], cwd="/")
    try:
        place = scratch_of(desk) / "session1" / "namespaces"
        place.mkdir(parents=True)
        (place / "box.pid").write_text(f"{stranger.pid}\n")
        (place / "empty.pid").write_text("")
        (place / "words.pid").write_text("1; rm -rf /\n")
        reset(running, lambda detail: None)
        assert stranger.poll() is None
        assert not scratch_of(desk).exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_destroying_a_lab_ends_what_its_steps_left(running: Lab, own_home: EmbeddedHome) -> None:
    """Without a cloud: what `lab destroy` does to the directory alone."""
    scratch = own_home.layout.scratch
    scratch.mkdir(parents=True)
    left = subprocess.Popen(["sleep", "300"], cwd=scratch, start_new_session=True)
    (scratch / "left.pid").write_text(f"{left.pid}\n")
    closed = scratch / "work" / "work"
    closed.mkdir(parents=True)
    closed.chmod(0)
    assert str(own_home.layout.home) in list(own_home.destroy(lambda detail: None))
    assert left.wait(10) == -signal.SIGTERM
    assert not own_home.layout.home.exists()
