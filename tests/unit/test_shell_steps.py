"""Shell steps without a cloud: a session of a few lines, on this very machine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from stacklab.course.load import read_session
from stacklab.course.session import Step
from stacklab.errors import CommandFailed, MachineUnreachable, StepFailed, UndoIncomplete
from stacklab.kinds.context import Workspace
from stacklab.kinds.features import possible
from stacklab.kinds.shell import shown_part
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
from tests.workspaces import workspace_on

HEAD = "session: small\ntitle: Small\nsummary: Small\nexercises:\n  - {id: one, title: One, say: One, steps: [STEP]}\n"


class Recording(LocalMachine):
    """This machine; which scripts it ran, and as whom."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str | None]] = []

    def script(self, text: str, *arguments: str, user: str | None = None, **options: Any) -> Finished:
        self.ran.append((text, user))
        return super().script(text, *arguments, user=user, **options)


@dataclass
class Bench:
    """One step on this machine. `output`: what it printed."""

    workspace: Workspace
    step: Step
    journal: Journal
    scratch: Path
    output: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        """The step's directory."""
        return self.scratch / "small" / "here"

    def apply(self, via: str = "rest") -> str:
        """Do it; how it ended."""
        return apply_step(self.workspace, self.journal, self.step, via).outcome

    def grade(self) -> tuple[str, str]:
        """Check it: status, and what was found."""
        grade: Grade = check(self.workspace, [self.step]).grades[0]
        return grade.status, grade.actual

    def shown(self, *, paper: bool = False) -> str:
        """The command that does it, as the learner reads it."""
        workspace = None if paper else self.workspace
        return str(narrate(workspace, self.workspace.offline(self.step), self.step)["commands"][0])

    def undo(self) -> None:
        """Take it back."""
        undo(self.workspace, self.journal, [self.step], lambda step, detail: None)


Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Make:
    """Makes a bench with one shell step; `site`: other values for the site."""

    def make(site: dict[str, Any] | None = None, **parameters: Any) -> Bench:
        where = tmp_path / "labs" / "small"
        where.mkdir(parents=True, exist_ok=True)
        step = {"id": "it", "kind": "shell", "as": "learner", "say": "Why.", "hint": "Look.", "with": parameters}
        (where / "session.yaml").write_text(HEAD.replace("STEP", json.dumps(step)))
        session = read_session(where / "session.yaml")
        values = {"machine": LocalMachine(), "made_by": "lab", "why_not_root": "no root in tests", **(site or {})}
        output: list[str] = []
        workspace = workspace_on(Site(scratch=str(tmp_path / "scratch"), **values), session, tmp_path, output.append)
        return Bench(workspace, session.step("it"), Journal(tmp_path / "journal"), tmp_path / "scratch", output)

    return make


FILE = {"what": "a file", "run": "echo made > it", "check": "cat it", "undo": "rm -f it", "in": "here"}


def test_done_checked_done_again_and_taken_back(bench: Make) -> None:
    step = bench(**FILE)
    assert step.grade() == ("failed", "a file: expected so, found there is no directory small/here yet")
    assert step.apply() == "done"
    assert step.grade() == ("passed", "made")
    assert step.apply() == "already"
    step.undo()
    assert step.grade()[0] == "failed"
    assert list(step.scratch.iterdir()) == []


def test_what_a_learner_made_is_passed_and_never_undone(bench: Make) -> None:
    step = bench(**FILE)
    step.place.mkdir(parents=True)
    (step.place / "it").write_text("by hand\n")
    assert step.apply() == "already"
    step.undo()
    assert step.grade() == ("passed", "by hand")


def test_what_is_half_done_is_done_again_and_undo_leaves_what_somebody_else_keeps_there(bench: Make) -> None:
    step = bench(what="two files", run="touch a b", check="ls a b", undo="rm -f a b", **{"in": "here"})
    step.place.mkdir(parents=True)
    (step.place / "a").touch()
    assert step.apply() == "done"
    (step.place / "mine").write_text("keep")
    step.undo()
    assert [path.name for path in step.place.iterdir()] == ["mine"]


def test_where_its_directory_cannot_be_made_nothing_is_run(bench: Make, tmp_path: Path) -> None:
    step = bench(**{**FILE, "run": f"touch {tmp_path}/ran"})
    (step.scratch / "small").mkdir(parents=True)
    (step.scratch / "small" / "here").write_text("a file in its place")
    with pytest.raises(CommandFailed):
        step.apply()
    assert subprocess.run(["bash", "-c", step.shown()], check=False, capture_output=True).returncode != 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("via", ["rest", "cli"])
def test_every_way_of_doing_it_runs_the_very_text_that_is_shown(bench: Make, via: str) -> None:
    machine = Recording()
    step = bench({"machine": machine}, **FILE)
    shown = step.shown()
    assert step.apply(via) == "done"
    head, tail = "# on this machine\nsh -eu <<'LAB'\n", "\nLAB"
    assert shown.startswith(head)
    assert shown.removeprefix(head).removesuffix(tail) in [text for text, _ in machine.ran]
    step.undo()
    subprocess.run(["bash", "-c", shown], check=True, timeout=30)
    assert step.grade()[0] == "passed"
    on_paper = step.shown(paper=True)
    assert 'cd "$LAB_SCRATCH"/small/here' in on_paper
    assert "echo made > it" in on_paper


def test_a_script_that_fails_tells_what_it_said_last(bench: Make) -> None:
    step = bench(what="it", run="echo before; echo the reason >&2; false; echo never")
    with pytest.raises(StepFailed, match=r"it: it ended with status 1: the reason$"):
        step.apply()
    assert step.output == ["before\nthe reason"]


def test_a_script_that_takes_too_long_is_ended_with_its_children(bench: Make) -> None:
    run = "sleep 71.5 & echo $! > pid; wait"
    step = bench(what="slow", run=run, check="test -e done", undo="rm -f pid", seconds=5, **{"in": "here"})
    with pytest.raises(CommandFailed, match="did not end within 5 s"):
        step.apply()
    pid = int((step.place / "pid").read_text())
    deadline = time.monotonic() + 60
    while running(pid):  # the signal was sent; when it is obeyed is the kernel's affair
        assert time.monotonic() < deadline
        time.sleep(0.1)
    step.undo()  # cut off in the middle: what it left is taken back
    assert not step.place.exists()


@pytest.mark.parametrize("left", ["changed", "gone"])
def test_what_was_made_is_taken_back_by_the_journal_alone(bench: Make, left: str) -> None:
    step = bench(**FILE)
    step.apply()
    other = bench(**{**FILE, "undo": "touch ../../undone-otherwise"})
    session = recorded_session(step.journal, "small") if left == "gone" else other.workspace.session
    assert [each.id for each in session.steps()] == ["it"]
    gone: list[str] = []
    workspace = replace(step.workspace, session=session)
    undo(workspace, step.journal, session.steps(), lambda step, detail: gone.append(detail))
    assert gone == ["removed a file"]
    assert (list(step.scratch.iterdir()), step.journal.entries("small")) == ([], {})


@pytest.mark.parametrize("left", ["as it was", "changed", "gone"])
def test_what_was_cut_off_is_taken_back_as_long_as_it_is_declared_as_it_was_then(
    bench: Make, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stacklab.replay.undo.IN_FLIGHT", 0.0)
    step = bench(**FILE)
    step.apply()
    step.journal.clear()
    step.journal.write("small", "it", "shell", "begin", declared=declared(step.workspace.session, step.step))
    other = bench(**{**FILE, "run": "echo other > it"})
    sessions = {
        "as it was": step.workspace.session,
        "changed": other.workspace.session,
        "gone": recorded_session(step.journal, "small"),
    }
    workspace = replace(step.workspace, session=sessions[left])
    if left == "as it was":
        assert undo(workspace, step.journal, [], lambda step, detail: None) == 0
        assert undo(workspace, step.journal, [step.step], lambda step, detail: None) == 1
        assert not step.place.exists()
        return
    with pytest.raises(UndoIncomplete, match="cannot be told") as caught:
        undo(workspace, step.journal, [step.step], lambda step, detail: None)
    assert "a file" in caught.value.advice
    assert (step.place / "it").read_text() == "made\n", "nothing that may be somebody else's is removed"
    assert undo(workspace, step.journal, [step.step], lambda step, detail: None) == 0, "it is told of once"


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
    step = bench(what="it", run=":", check=check_lines, shows=shows, undo=":")
    assert step.grade()[0] == status
    assert step.grade()[1].startswith(actual)


def test_without_a_check_the_commands_only_look_and_are_run_to_check(bench: Make) -> None:
    step = bench(what="a look", run="echo one two", shows=["one"])
    assert [step.apply(), step.apply()] == ["done", "done"]
    assert step.output == ["one two"] * 2
    assert step.journal.entries("small") == {}
    assert step.grade() == ("passed", "one two")
    assert bench(what="a look", run="echo two", shows=["one"]).grade()[0] == "failed"
    assert not step.scratch.exists()


def test_names_are_variables_and_never_become_shell(bench: Make, tmp_path: Path) -> None:
    hostile = f"x'; touch {tmp_path}/owned; $(touch {tmp_path}/owned) \"`id`"
    step = bench({"names": {"apache": hostile, "queue": "q"}}, what="a name", run='printf "%s" "$APACHE"')
    step.apply()
    assert step.output == [hostile]
    assert not (tmp_path / "owned").exists()
    assert "QUEUE" not in step.shown(), "only the variables that are used are shown"


def test_a_script_that_runs_lab_works_on_the_lab_that_the_step_belongs_to(bench: Make) -> None:
    step = bench(what="a lab", run='echo "it is $LAB_NAME"; : lab status')
    step.workspace.lab = "other"
    step.apply()
    assert step.output == ["it is other"]
    assert "LAB_NAME" not in bench(what="no lab", run="echo nothing of it").shown()


def test_output_in_any_encoding_is_shown_shortened_in_the_middle_and_controls_nothing(bench: Make) -> None:
    step = bench(what="bytes", run=r"printf 'caf\351 \033[31mred\033[0m \033]0;title\007\007bell ünï\n'")
    step.apply()
    assert step.output == ["caf� red bell ünï"]
    lines = shown_part("\n".join(map(str, range(1000)))).splitlines()
    assert (lines[0], lines[-1]) == ("0", "999")
    assert "[… 940 lines left out …]" in lines


@pytest.mark.parametrize(("site", "parameters", "why"), [
    ({}, {"on": ["devstack"], "why": "there are no units"}, "there are no units"),
    ({"made_by": "devstack"}, {"on": ["devstack"], "why": "there are no units"}, None),
    ({}, {"root": True}, "it needs root: no root in tests"),
    ({}, {"root": "where-allowed"}, None),
])  # fmt: skip
def test_a_step_that_makes_no_sense_here_says_why(
    bench: Make, site: dict[str, Any], parameters: dict[str, Any], why: str | None
) -> None:
    step = bench(site, what="it", run="true", **parameters)
    assert step.apply() == ("not_applicable" if why else "done")
    assert step.grade() == (("not_applicable", why) if why else ("passed", "it is so"))


def test_root_is_asked_for_where_it_is_allowed(bench: Make) -> None:
    machine = Recording()
    for root in (True, "where-allowed", False):
        step = bench({"machine": machine, "why_not_root": ""}, what="it", run=":", root=root)
        step.grade()
        assert ("sudo sh -eu" in step.shown()) == bool(root)
    assert [user for _, user in machine.ran] == ["root", "root", None]


def test_a_machine_that_cannot_be_reached_is_cannot_tell(bench: Make) -> None:
    class Away(LocalMachine):
        def _execute(self, *_: Any, **__: Any) -> Any:
            raise MachineUnreachable("this machine is away")

    step = bench({"machine": Away()}, **FILE)
    assert step.grade() == ("unknown", "this machine is away")
    with pytest.raises(MachineUnreachable):
        step.apply()
    assert step.shown()


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
    while len(children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(child) for child in children]


def test_undo_ends_what_a_step_left_running_and_all_that_it_started(bench: Make) -> None:
    step = bench(**NAP)
    assert step.apply() == "done"
    pid = int((step.place / "nap.pid").read_text())
    family = [pid, *below(pid)]
    step.undo()
    assert [each for each in family if running(each)] == []
    assert not step.place.exists()


def test_undo_leaves_whoever_has_the_number_of_a_process_that_is_gone(bench: Make) -> None:
    step = bench(**NAP)
    step.apply()
    pid = int((step.place / "nap.pid").read_text())
    mine = subprocess.Popen(["sleep", "60"], cwd="/")
    (step.place / "nap.pid").write_text(f"{mine.pid}\n")
    step.undo()
    assert mine.poll() is None
    mine.kill()
    mine.wait()
    # the pid file was changed by hand, so its process is found by nobody; the directory's end does not end it
    subprocess.run(["kill", "-KILL", str(pid), *map(str, below(pid))], check=True)


def test_an_undo_that_fails_says_so_and_can_be_tried_again(bench: Make) -> None:
    step = bench(**{**FILE, "undo": "test ! -e held || { echo somebody holds it >&2; exit 1; }; rm -f it"})
    step.apply()
    (step.place / "held").touch()
    with pytest.raises(UndoIncomplete, match="a file cannot be taken back: it ended with status 1: somebody holds it"):
        step.undo()
    (step.place / "held").unlink()
    step.undo()
    assert not step.place.exists()


# --- the scratch directory, and what the kernel allows --------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("path", "says"), [*((path, "cannot be a scratch") for path in ("/", "", "a/b", "/var")), ("link", "symbolic link")]
)
def test_what_cannot_be_a_scratch_directory_is_refused(tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CommandFailed, match=says):
        scratch.clear(LocalMachine(), str(tmp_path / "link") if path == "link" else path)
    assert (tmp_path / "real" / "kept").exists()


def test_trying_what_the_kernel_allows_leaves_nothing(tmp_path: Path) -> None:
    site = Site(LocalMachine(), str(tmp_path / "scratch"), "lab", "no root")
    tried = possible(site, ["namespaces", "overlay", "cgroup-pids", "cgroup-memory", "cgroup-cpu", "cgroup-join"], None)
    for feature, name in {"namespaces": "UNSHARE", "overlay": "OVERLAY", "cgroup-pids": "CGROUP_PIDS"}.items():
        assert (name in tried.variables) != (feature in tried.missing)
    assert all(len(reason) > 20 for reason in tried.missing.values())
    assert list((tmp_path / "scratch").iterdir()) == []
    assert control_groups(scratch.group_name(str(tmp_path / "scratch"))) == []


def test_a_kernel_that_allows_nothing_is_told_with_its_own_words(tmp_path: Path) -> None:
    """Where `unshare` is refused, as in most containers."""

    class Contained(LocalMachine):
        name = "a container"

        def script(self, text: str, *arguments: str, **options: Any) -> Finished:
            refuse = "unshare() { echo 'unshare: unshare failed: Operation not permitted' >&2; return 1; }\n"
            return super().script(refuse + text, *arguments, **options)

    tried = possible(Site(Contained(), str(tmp_path / "scratch"), "lab", "no root"), ["namespaces", "overlay"], None)
    assert tried.variables == {}
    for feature in ("namespaces", "overlay"):
        assert "unshare failed: Operation not permitted" in tried.missing[feature]


def test_all_that_would_be_run_is_told(bench: Make) -> None:
    step = bench(**{**FILE, "root": True}).step
    text = step.kind.runs(step.params)
    for name, script in (("run", "echo made > it"), ("check", "cat it"), ("undo", "rm -f it")):
        assert f"# {name}, in here/ below the session's scratch directory, as root, for 60 s at most:\n{script}" in text
