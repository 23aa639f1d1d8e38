"""Shell steps without a cloud: a session of a few lines, on this very machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stacklab.cloud.access import Ability, CloudAccess
from stacklab.cloud.connection import Connection
from stacklab.course.load import read_session
from stacklab.course.session import Step
from stacklab.errors import CommandFailed, MachineUnreachable, StepFailed, SudoRefused, UndoIncomplete
from stacklab.kinds.context import Workspace
from stacklab.kinds.features import possible
from stacklab.kinds.shell import ShellParams, shown_part
from stacklab.machines import scratch
from stacklab.machines.base import Finished
from stacklab.machines.local import LocalMachine
from stacklab.machines.site import Site
from stacklab.replay.apply import apply_step
from stacklab.replay.check import Grade, check
from stacklab.replay.journal import Journal
from stacklab.replay.narrate import narrate
from stacklab.replay.undo import declared, recorded_session, undo
from tests.controlgroups import control_groups

HEAD = "session: small\ntitle: Small\nsummary: Small\nexercises:\n  - {id: one, title: One, say: One, steps: [STEP]}\n"


@dataclass
class Bench:
    """One step on this machine. `said`: what it printed."""

    desk: Workspace
    step: Step
    journal: Journal
    scratch: Path
    said: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        """The step's directory."""
        return self.scratch / "small" / "here"

    def apply(self, via: str = "rest") -> str:
        """Do it; how it ended."""
        return apply_step(self.desk, self.journal, self.step, via).outcome

    def grade(self) -> Grade:
        """Check it."""
        return check(self.desk, [self.step]).grades[0]

    def undo(self) -> None:
        """Take it back."""
        undo(self.desk, self.journal, [self.step], lambda step, detail: None)


Make = Callable[..., Bench]


def nothing() -> Any:
    """There is no cloud."""
    raise AssertionError("no cloud here")


@pytest.fixture
def bench(tmp_path: Path) -> Make:
    """Makes a bench with one shell step; `site`: other values for the site."""

    def make(site: dict[str, Any] | None = None, **parameters: Any) -> Bench:
        import json

        where = tmp_path / "labs" / "small"
        where.mkdir(parents=True, exist_ok=True)
        step = {"id": "it", "kind": "shell", "as": "learner", "say": "Why.", "hint": "Look.", "with": parameters}
        (where / "session.yaml").write_text(HEAD.replace("STEP", json.dumps(step)))
        session = read_session(where / "session.yaml")
        values = {"machine": LocalMachine(), "scratch": str(tmp_path / "scratch"), "made_by": "lab", **(site or {})}
        values.setdefault("why_not_root", "no root in tests")
        said: list[str] = []
        able, clouds = Ability(True), tmp_path / "clouds.yaml"
        access = CloudAccess(
            clouds_file=clouds, admin="a", learner="l", hypervisor=able, data_path=able, ssh_endpoint=lambda server: None,
        )  # fmt: skip
        people = (Connection(clouds, "a"), Connection(clouds, "l"))
        desk = Workspace(
            session, access, *people, {}, lambda name: "", said.append, lambda: Site(**values), nothing, nothing, nothing,
        )  # fmt: skip
        return Bench(desk, session.step("it"), Journal(tmp_path / "journal"), tmp_path / "scratch", said)

    return make


FILE = {"what": "a file", "run": "echo made > it", "check": "cat it", "undo": "rm -f it", "in": "here"}


def test_done_checked_done_again_and_taken_back(bench: Make) -> None:
    one = bench(**FILE)
    assert one.grade().status == "failed"
    assert one.grade().actual == "a file: expected so, found there is no directory small/here yet"
    assert one.apply() == "done"
    assert (one.grade().status, one.grade().actual) == ("passed", "made")
    assert one.apply() == "already"
    one.undo()
    assert one.grade().status == "failed"
    assert list(one.scratch.iterdir()) == []


def test_what_a_learner_made_is_passed_and_never_undone(bench: Make) -> None:
    one = bench(**FILE)
    one.place.mkdir(parents=True)
    (one.place / "it").write_text("by hand\n")
    assert one.apply() == "already"
    one.undo()
    assert one.grade().actual == "by hand"


def test_what_is_half_done_is_done_again(bench: Make) -> None:
    one = bench(what="two files", run="touch a b", check="ls a b", undo="rm -f a b", **{"in": "here"})
    one.place.mkdir(parents=True)
    (one.place / "a").touch()
    assert one.apply() == "done"
    one.undo()
    assert list(one.scratch.iterdir()) == []


def test_undo_leaves_what_somebody_else_keeps_there(bench: Make) -> None:
    one = bench(**FILE)
    one.apply()
    (one.place / "mine").write_text("keep")
    one.undo()
    assert [path.name for path in one.place.iterdir()] == ["mine"]


def test_where_its_directory_cannot_be_made_nothing_is_run(bench: Make, tmp_path: Path) -> None:
    one = bench(**{**FILE, "run": f"touch {tmp_path}/ran"})
    (one.scratch / "small").mkdir(parents=True)
    (one.scratch / "small" / "here").write_text("a file in its place")
    with pytest.raises(CommandFailed):
        one.apply()
    told = narrate(one.desk, one.desk.offline(one.step), one.step)["commands"][0]
    assert subprocess.run(["bash", "-c", told], check=False, capture_output=True).returncode != 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("via", ["rest", "cli"])
def test_every_way_of_doing_it_runs_the_very_text_that_is_shown(bench: Make, via: str) -> None:
    ran: list[str] = []

    class Listening(LocalMachine):
        def script(self, text: str, *arguments: str, **options: Any) -> Finished:
            ran.append(text)
            return super().script(text, *arguments, **options)

    one = bench({"machine": Listening()}, **FILE)
    told = narrate(one.desk, one.desk.offline(one.step), one.step)["commands"]
    assert one.apply(via) == "done"
    assert told[0].startswith("# on this machine\nsh -eu <<'LAB'\n")
    assert told[0].removeprefix("# on this machine\nsh -eu <<'LAB'\n").removesuffix("\nLAB") in ran
    one.undo()
    subprocess.run(["bash", "-c", told[0]], check=True, timeout=30)
    assert one.grade().status == "passed"


def test_a_script_that_fails_tells_what_it_said_last(bench: Make) -> None:
    one = bench(what="it", run="echo before; echo the reason >&2; false; echo never")
    with pytest.raises(StepFailed, match=r"it: it ended with status 1: the reason$"):
        one.apply()
    assert one.said == ["before\nthe reason"]


def test_a_script_that_takes_too_long_is_ended_with_its_children(bench: Make) -> None:
    one = bench(
        what="slow",
        run="sleep 71.5 & echo $! > pid; wait",
        check="test -e done",
        undo="rm -f pid",
        seconds=5,
        **{"in": "here"},
    )
    with pytest.raises(CommandFailed, match="did not end within 5 s"):
        one.apply()
    pid = int((one.place / "pid").read_text())
    deadline = time.monotonic() + 60
    while running(pid):  # the signal was sent; when it is obeyed is the kernel's affair
        assert time.monotonic() < deadline
        time.sleep(0.1)
    one.undo()  # cut off in the middle: what it left is taken back
    assert not one.place.exists()


@pytest.mark.parametrize("left", ["changed", "gone"])
def test_what_was_made_is_taken_back_by_the_journal_alone(bench: Make, left: str) -> None:
    one = bench(**FILE)
    one.apply()
    other = bench(**{**FILE, "undo": "touch ../../undone-otherwise"})
    session = recorded_session(one.journal, "small") if left == "gone" else other.desk.session
    assert [step.id for step in session.steps()] == ["it"]
    gone: list[str] = []
    undo(replace(one.desk, session=session), one.journal, session.steps(), lambda step, detail: gone.append(detail))
    assert gone == ["removed a file"]
    assert (list(one.scratch.iterdir()), one.journal.entries("small")) == ([], {})


@pytest.mark.parametrize("left", ["as it was", "changed", "gone"])
def test_what_was_cut_off_is_taken_back_as_long_as_it_is_declared_as_it_was_then(
    bench: Make, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stacklab.replay.undo.IN_FLIGHT", 0.0)
    one = bench(**FILE)
    one.apply()
    one.journal.clear()
    one.journal.write("small", "it", "shell", "begin", declared=declared(one.desk.session, one.step))
    other = bench(**{**FILE, "run": "echo other > it"})
    sessions = {
        "as it was": one.desk.session,
        "changed": other.desk.session,
        "gone": recorded_session(one.journal, "small"),
    }
    workspace = replace(one.desk, session=sessions[left])
    if left == "as it was":
        assert undo(workspace, one.journal, [], lambda step, detail: None) == 0
        assert undo(workspace, one.journal, [one.step], lambda step, detail: None) == 1
        assert not one.place.exists()
        return
    with pytest.raises(UndoIncomplete, match="cannot be told") as caught:
        undo(workspace, one.journal, [one.step], lambda step, detail: None)
    assert "a file" in caught.value.advice
    assert (one.place / "it").read_text() == "made\n", "nothing that may be somebody else's is removed"
    assert undo(workspace, one.journal, [one.step], lambda step, detail: None) == 0, "it is told of once"


def test_a_check_that_takes_too_long_is_cannot_tell(bench: Make) -> None:
    one = bench(what="slow", run="sleep 30", seconds=1)
    assert one.grade().status == "unknown"
    assert "did not end within 1 s" in one.grade().actual


@pytest.mark.parametrize(("check_lines", "status", "actual"), [
    ("echo so; exit 0", "passed", "so"),
    ("echo not so; exit 1", "failed", "it: expected so, found not so"),
    ("exit 3", "failed", "it: expected so, found the check ended with status 3 and said nothing"),
    ("echo shows this", "failed", "output: expected contains 'that', found shows this"),
    ("echo who knows; exit 75", "unknown", "cannot tell: who knows"),
    ("no-such-program", "unknown", "cannot tell: "),
])  # fmt: skip
def test_what_a_check_says_by_how_it_ends(bench: Make, check_lines: str, status: str, actual: str) -> None:
    shows = ["that"] if "shows" in check_lines else []
    one = bench(what="it", run=":", check=check_lines, shows=shows, undo=":")
    assert one.grade().status == status
    assert one.grade().actual.startswith(actual)


def test_without_a_check_the_commands_only_look_and_are_run_to_check(bench: Make) -> None:
    one = bench(what="a look", run="echo one two", shows=["one"])
    assert one.apply() == "done"
    assert one.said == ["one two"]
    assert one.apply() == "done"
    assert one.journal.entries("small") == {}
    assert one.grade().actual == "one two"
    assert bench(what="a look", run="echo two", shows=["one"]).grade().status == "failed"
    assert not one.scratch.exists()


def test_names_are_variables_and_never_become_shell(bench: Make, tmp_path: Path) -> None:
    hostile = f"x'; touch {tmp_path}/owned; $(touch {tmp_path}/owned) \"`id`"
    one = bench({"names": {"apache": hostile}}, what="a name", run='printf "%s" "$APACHE"')
    one.apply()
    assert one.said == [hostile]
    assert not (tmp_path / "owned").exists()


def test_only_the_variables_that_are_used_are_shown(bench: Make) -> None:
    one = bench({"names": {"apache": "httpd", "queue": "q"}}, what="a name", run='echo "$APACHE"')
    told = narrate(one.desk, one.desk.offline(one.step), one.step)["commands"][0]
    assert "APACHE=httpd" in told
    assert "QUEUE" not in told


def test_a_script_that_runs_lab_works_on_the_lab_that_the_step_belongs_to(bench: Make) -> None:
    one = bench(what="a lab", run='echo "it is $LAB_NAME"; : lab status')
    one.desk.lab = "other"
    one.apply()
    assert one.said == ["it is other"]
    plain = bench(what="no lab", run="echo nothing of it")
    assert "LAB_NAME" not in narrate(plain.desk, plain.desk.offline(plain.step), plain.step)["commands"][0]


def test_on_paper_the_variables_stay_variables(bench: Make) -> None:
    one = bench(**FILE)
    told = narrate(None, one.desk.offline(one.step), one.step)["commands"][0]
    assert 'cd "$LAB_SCRATCH"/small/here' in told
    assert "echo made > it" in told


def test_output_in_any_encoding_is_shown_and_controls_nothing(bench: Make) -> None:
    one = bench(what="bytes", run=r"printf 'caf\351 \033[31mred\033[0m \033]0;title\007\007bell ünï\n'")
    one.apply()
    assert one.said == ["caf� red bell ünï"]
    assert one.grade().status == "passed"


def test_long_output_is_shortened_in_the_middle() -> None:
    lines = [str(number) for number in range(1000)]
    shown = shown_part("\n".join(lines)).splitlines()
    assert shown[0] == "0"
    assert shown[-1] == "999"
    assert "[… 940 lines left out …]" in shown
    assert shown_part("a\tb\r\nc") == "a   b\nc"


def test_a_step_for_another_cloud_says_why_it_makes_no_sense(bench: Make) -> None:
    one = bench(what="units", run="false", on=["devstack"], why="its services are processes, there are no units")
    assert one.apply() == "not_applicable"
    assert (one.grade().status, one.grade().actual) == (
        "not_applicable",
        "its services are processes, there are no units",
    )
    assert bench({"made_by": "devstack"}, what="units", run="true", on=["devstack"], why="x").apply() == "done"


def test_what_needs_root_is_not_applicable_without_it(bench: Make) -> None:
    one = bench(what="root's", run="id -u", root=True)
    assert one.grade().status == "not_applicable"
    assert one.grade().actual == "it needs root: no root in tests"
    assert bench(what="anybody's", run="id -u", root="where-allowed").apply() == "done"


def test_root_is_asked_for_where_it_is_allowed(bench: Make) -> None:
    users: list[Any] = []

    class Listening(LocalMachine):
        def script(self, text: str, *arguments: str, user: str | None = None, **options: Any) -> Finished:
            users.append(user)
            return super().script(text, *arguments, **options)

    for root in (True, "where-allowed", False):
        one = bench({"machine": Listening(), "why_not_root": ""}, what="it", run=":", root=root)
        one.grade()
        told = narrate(one.desk, one.desk.offline(one.step), one.step)["commands"][0]
        assert ("sudo sh -eu" in told) == bool(root)
    assert users == ["root", "root", None]


def test_a_machine_that_cannot_be_reached_is_cannot_tell(bench: Make) -> None:
    class Away(LocalMachine):
        def run(self, *argv: str, **options: Any) -> Finished:
            raise MachineUnreachable("this machine is away")

        def script(self, text: str, *arguments: str, **options: Any) -> Finished:
            raise MachineUnreachable("this machine is away")

    one = bench({"machine": Away()}, **FILE)
    assert (one.grade().status, one.grade().actual) == ("unknown", "this machine is away")
    with pytest.raises(MachineUnreachable):
        one.apply()
    assert narrate(one.desk, one.desk.offline(one.step), one.step)["commands"]


NAP = {
    "what": "a nap",
    "in": "here",
    "processes": ["nap.pid"],
    "run": "sh -c 'trap \"\" TERM; sleep 72.5 & sleep 72.5' > /dev/null 2>&1 < /dev/null & echo $! > nap.pid",
    "check": 'test -e "/proc/$(cat nap.pid)" && echo it sleeps',
    "undo": "rm -f log",
}


def running(pid: int) -> bool:
    """Whether there is such a process, and it is not only waiting to be forgotten."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def below(pid: int) -> list[int]:
    """The children of a process, once it has two."""
    deadline = time.monotonic() + 10
    while len(found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(child) for child in found]


def test_undo_ends_what_a_step_left_running_and_all_that_it_started(bench: Make) -> None:
    one = bench(**NAP)
    assert one.apply() == "done"
    pid = int((one.place / "nap.pid").read_text())
    family = [pid, *below(pid)]
    one.undo()
    assert [each for each in family if running(each)] == []
    assert not one.place.exists()


def test_undo_leaves_whoever_has_the_number_of_a_process_that_is_gone(bench: Make) -> None:
    one = bench(**NAP)
    one.apply()
    pid = int((one.place / "nap.pid").read_text())
    mine = subprocess.Popen(["sleep", "60"], cwd="/")
    (one.place / "nap.pid").write_text(f"{mine.pid}\n")
    one.undo()
    assert mine.poll() is None
    mine.kill()
    mine.wait()
    # the pid file was changed by hand, so its process is found by nobody; the directory's end does not end it
    subprocess.run(["kill", "-KILL", str(pid), *map(str, below(pid))], check=True)


def test_an_undo_that_fails_says_so_and_can_be_tried_again(bench: Make) -> None:
    one = bench(**{**FILE, "undo": "test ! -e held || { echo somebody holds it >&2; exit 1; }; rm -f it"})
    one.apply()
    (one.place / "held").touch()
    with pytest.raises(UndoIncomplete, match="a file cannot be taken back: it ended with status 1: somebody holds it"):
        one.undo()
    (one.place / "held").unlink()
    one.undo()
    assert not one.place.exists()


def test_clearing_takes_everything_below_and_nothing_beside(tmp_path: Path) -> None:
    where, beside = tmp_path / "it's $(scratch)", tmp_path / "beside"
    (where / "work" / "work").mkdir(parents=True)
    (where / "work" / "work").chmod(0)
    beside.mkdir()
    (beside / "kept").touch()
    (where / "link").symlink_to(beside)
    left = subprocess.Popen(["sleep", "60"], cwd=where, start_new_session=True)
    (where / "left.pid").write_text(f"{left.pid}\n")
    scratch.clear(LocalMachine(), str(where))
    assert left.wait(10) != 0
    assert not where.exists()
    assert (beside / "kept").exists()
    scratch.clear(LocalMachine(), str(where))


@pytest.mark.parametrize("path", ["/", "", "relative/path", "/var"])
def test_what_cannot_be_a_scratch_directory_is_refused(path: str) -> None:
    with pytest.raises(CommandFailed, match="cannot be a scratch directory"):
        scratch.clear(LocalMachine(), path)


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CommandFailed, match="symbolic link"):
        scratch.clear(LocalMachine(), str(tmp_path / "link"))
    assert (tmp_path / "real" / "kept").exists()


def test_trying_what_the_kernel_allows_leaves_nothing(tmp_path: Path) -> None:
    site = Site(LocalMachine(), str(tmp_path / "scratch"), "lab", "no root")
    found = possible(site, ["namespaces", "overlay", "cgroup-pids", "cgroup-memory", "cgroup-cpu", "cgroup-join"], None)
    for feature, name in {"namespaces": "UNSHARE", "overlay": "OVERLAY", "cgroup-pids": "CGROUP_PIDS"}.items():
        assert (name in found.variables) != (feature in found.missing)
    assert all(len(reason) > 20 for reason in found.missing.values())
    assert list((tmp_path / "scratch").iterdir()) == []
    group = scratch.group_name(str(tmp_path / "scratch"))
    assert control_groups(group) == []


def test_a_kernel_that_allows_nothing_is_told_with_its_own_words(tmp_path: Path) -> None:
    """Where `unshare` is refused, as in most containers."""

    class Contained(LocalMachine):
        name = "a container"

        def script(self, text: str, *arguments: str, **options: Any) -> Finished:
            refuse = "unshare() { echo 'unshare: unshare failed: Operation not permitted' >&2; return 1; }\n"
            return super().script(refuse + text, *arguments, **options)

    site = Site(Contained(), str(tmp_path / "scratch"), "lab", "no root")
    found = possible(site, ["namespaces", "overlay"], None)
    assert found.variables == {}
    for feature in ("namespaces", "overlay"):
        assert "unshare failed: Operation not permitted" in found.missing[feature]


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"undo": "true"}, "'undo' without 'check'"),
        ({"processes": ["a.pid"]}, "'processes' needs 'in'"),
        ({"on": ["devstack"]}, "'on' and 'why' belong together"),
        ({"why": "because"}, "'on' and 'why' belong together"),
        ({"check": "true\nLAB\ntrue"}, "no line of a script may be just 'LAB'"),
        ({"in": "../up"}, "match pattern"),
        ({"processes": ["../up.pid"]}, "match pattern"),
        ({"run": "a\0b"}, "match pattern"),
        ({"features": ["flying"]}, "namespaces"),
        ({"seconds": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_session_is_read(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ShellParams.model_validate({"what": "it", "run": "true", **parameters})


def test_all_that_would_be_run_is_told(bench: Make) -> None:
    one = bench(**{**FILE, "root": True})
    text = one.step.kind.runs(one.step.params)
    for name, script in (("run", "echo made > it"), ("check", "cat it"), ("undo", "rm -f it")):
        assert f"# {name}, in here/ below the session's scratch directory, as root, for 60 s at most:\n{script}" in text


def test_this_machine_does_nothing_as_anybody_else() -> None:
    with pytest.raises(SudoRefused, match="nothing is done as daemon here"):
        LocalMachine().run("id", user="daemon")


def test_files_of_this_machine_are_written_whole_and_read_to_the_byte(tmp_path: Path) -> None:
    machine, path = LocalMachine(), tmp_path / "new" / "it's a $(name)"
    machine.put(str(path), b"\0\xff\n", mode=0o640)
    assert machine.read(str(path)) == b"\0\xff\n"
    assert machine.read(str(path), offset=1, limit=1) == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert machine.read(str(tmp_path / "absent")) is None
    with pytest.raises(CommandFailed, match="is a directory"):
        machine.put(str(tmp_path), "text")
    with pytest.raises(CommandFailed, match="is a directory"):
        machine.read(str(tmp_path))
    with pytest.raises(ValueError, match="-1"):
        machine.read(str(tmp_path), offset=-1)
