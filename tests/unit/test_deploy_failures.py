"""A failed stack.sh (or packstack) explained from its log: failing_stacks.yaml, and every example of the catalogue."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacklab.deploy.stack.failures import Diagnosis, Failure, catalogue, diagnose

STAMP = "2026-11-22 10:00:00.123 | "
LOGS = yaml.safe_load(Path(__file__).with_name("failing_stacks.yaml").read_text(encoding="utf-8"))


def stamped(text: str) -> str:
    return "".join(f"{STAMP}{line}\n" for line in text.splitlines())


@pytest.mark.parametrize("case", LOGS, ids=[case["what"] for case in LOGS])
def test_what_failed_is_found_out_from_the_log(case: dict[str, Any]) -> None:
    log = case["log"].replace("\n ", "\n")  # of a text in quotes, YAML keeps a blank between lines
    diagnosis = diagnose(log if case.get("plain") else stamped(log), case.get("program", "stack"))
    for key in ("command", "line", "known"):
        assert getattr(diagnosis, key) == case.get(key, getattr(diagnosis, key))
    assert case.get("cause", "") in diagnosis.cause
    assert "Error on exit" not in diagnosis.excerpt
    if case.get("program") == "packstack":
        assert "packstack goes over everything once more" in diagnosis.advice


@pytest.mark.parametrize("text", ["", "\n\n", "\x00\xff", "exit_trap", "+ exit_trap", "Error on exit"])
def test_any_text_gets_an_answer(text: str) -> None:
    assert isinstance(diagnose(text), Diagnosis)


@pytest.mark.parametrize(("failure", "line"), [(failure, line) for failure in catalogue() for line in failure.examples])
def test_what_programs_say_is_known(failure: Failure, line: str) -> None:
    trace = "+ lib/some:thing:1                        :   "
    log = stamped(f"{trace}do_it\n{line}\n{trace}exit_trap\n")
    assert diagnose(log, failure.program or "stack").known == failure.id


def test_every_known_failure_is_tried_and_says_where_it_comes_from() -> None:
    for failure in catalogue():
        assert failure.examples, failure.id
        source = "DevStack |PackStack |measured|published log|documented|unproven|Keystone"
        assert re.match(source, failure.source), failure.id
        assert not failure.remedy.endswith("."), failure.id  # the advice goes on behind it
