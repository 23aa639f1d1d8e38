"""Reading DevStack's log as it grows: its phases; and the lab's own copy of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacklab.deploy.stack.following import FIRST_PHASE, LogCopy, StackProgress
from stacklab.deploy.stack.log import parse
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


def test_phases_are_what_the_main_part_says_and_nothing_else() -> None:
    progress = StackProgress()
    progress.feed(RUN.encode())
    assert progress.phases == [
        FIRST_PHASE,
        "Installing package prerequisites",
        "Installing OpenStack project source",
        "Starting Keystone",
    ]


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


def test_copy_of_a_log_is_kept_for_its_run_and_the_one_before_stays(own_directories: Path) -> None:
    copy = LogCopy(Lab("one"), "stack", [])
    copy.begin("run-1")
    copy.add(b"first\n")
    LogCopy(Lab("one"), "stack", []).begin("run-1")  # another process of the same lab
    assert (copy.offset, copy.text()) == (6, "first\n")
    assert copy.log.stat().st_mode & 0o777 == 0o600
    copy.begin("run-2")
    assert copy.offset == 0
    assert copy.log.with_suffix(".previous.log").read_text() == "first\n"


def test_secrets_never_reach_the_copy_and_its_length_stays(own_directories: Path) -> None:
    copy = LogCopy(Lab("one"), "stack", ["Geheim", "Geheim-größe", ""])
    copy.begin("run-1")
    lines = "as admin with Geheim-größe, Geheim\n".encode()
    copy.add(lines)
    assert copy.text() == f"as admin with {'*' * 14}, ******\n"
    assert copy.offset == len(lines)
