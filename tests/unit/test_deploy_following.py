"""Reading DevStack's log as it grows: phases, durations, what is left; and the lab's own copy of it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stacklab.deploy.stack.following import FIRST_PHASE, LogCopy, PhaseTimes, StackProgress, starred
from stacklab.deploy.stack.log import parse
from stacklab.files import write_json
from stacklab.lab import Lab

T0 = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC).timestamp()


def line(seconds: float, text: str) -> str:
    stamp = datetime.fromtimestamp(T0 + seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return f"{stamp} | {text}\n"


def phase(seconds: float, name: str) -> str:
    return line(seconds, f"+ ./stack.sh:main:761                     :   echo_summary '{name}'")


RUN = (
    "+ unset GREP_OPTIONS\n"
    + line(1, "+ ./stack.sh:main:477                     :   echo_summary 'stack.sh log /opt/stack/logs/stack.sh.log'")
    + phase(10, "Installing package prerequisites")
    + line(11, "Reading package lists...")
    + line(12, "+ lib/rpc_backend:restart_rpc_backend:65   :   echo_summary 'Starting RabbitMQ'")
    + phase(70, "Installing OpenStack project source")
    + line(71, "++ functions-common:git_clone:530         :   pwd")
    + line(
        72, "+ functions-common:git_timed:604          :   git clone https://opendev.org/openstack/nova /opt/stack/nova"
    )
    + phase(370, "Starting Keystone")
)


def course(text: str = RUN) -> StackProgress:
    progress = StackProgress(T0)
    progress.feed(text.encode())
    return progress


def test_phases_are_what_the_main_part_says_and_nothing_else() -> None:
    assert [name for name, _ in course().phases] == [
        FIRST_PHASE,
        "Installing package prerequisites",
        "Installing OpenStack project source",
        "Starting Keystone",
    ]


def test_durations_come_from_the_logs_own_times() -> None:
    assert course().durations(T0 + 400) == [
        (FIRST_PHASE, 10.0),
        ("Installing package prerequisites", 60.0),
        ("Installing OpenStack project source", 300.0),
        ("Starting Keystone", 30.0),
    ]


# The second is cut where one secret, which another begins with, is whole.
@given(cuts=st.lists(st.integers(0, len(RUN.encode())), max_size=12))
def test_it_does_not_matter_where_the_log_is_cut(cuts: list[int]) -> None:
    raw, progress = RUN.encode(), StackProgress(T0)
    places = [0, *sorted(cuts), len(raw)]
    for begin, end in pairwise(places):
        progress.feed(raw[begin:end])
    assert (progress.phases, progress.last) == (course().phases, course().last)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (line(0, "+ functions-common:git_timed:604          :   git clone a b"), "functions-common: git clone a b"),
        ("+functions-common:git_timed:604           git clone a b", "functions-common: git clone a b"),
        ("+++ ./stack.sh:main:12                    :   date", "stack.sh: date"),
        ("+ unset GREP_OPTIONS", "unset GREP_OPTIONS"),
        (line(0, "+ ::                                       :   [[ 200 == 503 ]]"), "[[ 200 == 503 ]]"),
        ("+-------+------+", "+-------+------+"),
        (line(0, "  Collecting pbr"), "Collecting pbr"),
        ("\x1b[31mred\x1b[0m\r", "red"),
        ("++--| a diff", "++--| a diff"),
    ],
)
def test_a_line_is_shown_as_what_is_done_and_where(raw: str, shown: str) -> None:
    assert parse(raw.rstrip("\n")).shown == shown


@given(st.text())
def test_any_line_can_be_read(text: str) -> None:
    parse(text)


def test_first_run_counts_down_from_what_the_profile_says(own_directories: Path) -> None:
    history = PhaseTimes("p", usual_minutes=20)
    assert history.left(course(), T0 + 400) == 800
    assert history.left(course(), T0 + 1300) is None  # longer than usual


def test_later_runs_know_how_long_each_phase_takes(own_directories: Path) -> None:
    PhaseTimes("p", 20).remember(
        [(FIRST_PHASE, 10), ("Installing package prerequisites", 100), ("Starting Keystone", 50)]
    )
    history = PhaseTimes("p", 20)
    assert history.total == 160
    slow = course(phase(500, "Installing package prerequisites"))
    # Later than ever before; what is left is what this phase and those after it take.
    assert history.left(slow, T0 + 540) == 60 + 50
    assert history.left(slow, T0 + 700) == 50


def test_a_phase_that_comes_twice_is_told_apart(own_directories: Path) -> None:
    PhaseTimes("p", 20).remember(
        [(FIRST_PHASE, 1), ("Starting Neutron", 10), ("Starting Nova", 20), ("Starting Neutron", 30)]
    )
    once = course(phase(1, "Starting Neutron"))
    twice = course(phase(1, "Starting Neutron") + phase(11, "Starting Nova") + phase(31, "Starting Neutron"))
    assert PhaseTimes("p", 20).left(once, T0 + 1) == 60
    assert PhaseTimes("p", 20).left(twice, T0 + 31) == 30


def test_copy_of_a_log_is_kept_for_its_run_and_the_one_before_stays(own_directories: Path) -> None:
    kept = LogCopy(Lab("one"), "stack", [])
    kept.begin("run-1")
    kept.add(b"first\n")
    LogCopy(Lab("one"), "stack", []).begin("run-1")  # another process of the same lab
    assert (kept.offset, kept.text()) == (6, "first\n")
    assert kept.log.stat().st_mode & 0o777 == 0o600
    kept.begin("run-2")
    assert kept.offset == 0
    assert kept.log.with_suffix(".previous.log").read_text() == "first\n"


SAID = "as admin with Geheim-größe, Geheim\n"


@given(cuts=st.lists(st.integers(0, len((RUN + SAID).encode())), max_size=6))
@example(cuts=[len((RUN + "as admin with Geheim").encode())])  # where the secret that another one begins with is whole
def test_secrets_never_reach_the_copy_wherever_the_log_was_cut_and_its_length_stays(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        lab, raw = Lab("one"), (RUN + SAID).encode()
        lab.directory.mkdir(parents=True)
        write_json(lab.directory / "secrets.json", {"service": "Geheim", "admin": "Geheim-größe", "none": ""})
        kept = LogCopy(lab, "stack", lab.secrets())
        kept.begin("run-1")
        for begin, end in pairwise([0, *sorted(cuts), len(raw)]):
            kept.add(raw[begin:end])
            assert kept.offset == end
        assert kept.text().startswith(RUN)
        assert set(kept.text()[len(RUN) :]) == set("as admin with *,\n")


def test_the_longer_of_two_secrets_is_hidden_first() -> None:
    assert starred(b"abcd ab", [b"ab", b"abcd"]) == b"**** **"
