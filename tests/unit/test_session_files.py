"""Session files: what is accepted, and how mistakes are answered."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stacklab import places
from stacklab.course.load import load_session, read_session
from stacklab.course.session import StepAddress
from stacklab.errors import SessionInvalid, UnknownName
from tests.unit.sessions import GOOD, TABLES, lines_with, written


def test_a_good_file_becomes_steps_with_their_needs(write: Any) -> None:
    session = write(GOOD)
    network, subnet = session.steps()
    assert network.params.name == "my-net"
    assert subnet.needs == {"network"}
    assert subnet.exercise == "first"


def test_variables_can_be_replaced(write: Any) -> None:
    assert next(write(GOOD, net="other").steps()).params.name == "other"


@pytest.mark.parametrize("row", TABLES["refused"], ids=lambda row: str(row["new"]))
def test_a_mistake_is_answered_with_file_line_key_and_advice(write: Any, row: dict[str, str]) -> None:
    text = GOOD.replace(row["old"], row["new"])
    assert text != GOOD
    with pytest.raises(SessionInvalid) as caught:
        write(text)
    assert row.get("says", "") in caught.value.message
    assert row.get("advises", "") in caught.value.advice
    places = (
        [f"session.yaml:{number}: " for number in lines_with(text, row["at"])] if "at" in row else ["session.yaml:"]
    )
    assert any(place in caught.value.message for place in places), caught.value.message


def test_an_alias_bomb_is_refused(write: Any) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(7)
    )
    with pytest.raises(SessionInvalid, match="far too many values"):
        write(bomb)


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff\xfe", b"", b"[]", b"just text", b"a: 1\nb: [", b"\x00"),
        *("a: &a [*a]", "a: " + "[" * 2000, "&a a: &b {*a : *b}", "a: &a [x, x]\n<<: *a", "- - - -\n" * 2000),
    ],
)
def test_what_is_no_session_file_is_refused(tmp_path: Path, content: bytes | str) -> None:
    with pytest.raises(SessionInvalid):
        read_session(written(tmp_path, content))


def test_an_unknown_session_exercise_or_step_names_the_closest() -> None:
    with pytest.raises(UnknownName) as caught:
        load_session("sesion4")
    assert "session4" in caught.value.advice
    session = load_session("session4")
    with pytest.raises(UnknownName, match="no exercise 'netwrk'"):
        session.select("netwrk")
    with pytest.raises(UnknownName, match="no step 'rooter'"):
        session.select("network", "rooter")


@pytest.mark.parametrize("text", ["a/b/c/d", "a//b", ""])
def test_an_address_has_one_to_three_parts(text: str) -> None:
    with pytest.raises(UnknownName):
        StepAddress.parse(text)


def original() -> Any:
    """Session 3, the shortest, as plain data."""
    return YAML(typ="safe").load((places.course_data() / "labs/session3/session.yaml").read_text(encoding="utf-8"))


def ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nested value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(inner for key, item in items for inner in ways(item, (*way, key)))]


JUNK = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    *map(st.just, ({}, [], {"step": "x"}, [[]])),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_session_loads_or_is_refused_with_its_place_and_never_breaks(
    tmp_path: Path, data: st.DataObject
) -> None:
    value = copy.deepcopy(original())
    way = data.draw(st.sampled_from(ways(value)[1:]))
    parent = value
    for part in way[:-1]:
        parent = parent[part]
    action = data.draw(st.sampled_from(["delete", "replace", "rename"]))
    if action == "delete":
        del parent[way[-1]]
    elif action == "rename" and isinstance(parent, dict):
        parent[data.draw(st.text(max_size=6))] = parent.pop(way[-1])
    else:
        parent[way[-1]] = data.draw(JUNK)
    text = io.StringIO()
    YAML(typ="safe").dump(value, text)
    path = written(tmp_path, text.getvalue(), "session3")
    try:
        session = read_session(path)
    except SessionInvalid as error:
        assert str(path) in error.message
    else:
        assert list(session.steps())


@pytest.mark.parametrize("merge", ["<<: *x", "<<: [*x]", "<<: *net", "<<: 5"])
def test_a_merge_key_is_read_or_refused_with_its_line(write: Any, merge: str) -> None:
    text = GOOD.replace("vars:\n", f"vars:\n  {merge}\n").replace("summary: Two steps.", "summary: &net Two steps.")
    text = text.replace("title: A demonstration", "title: A demonstration\nservices: [swift]")
    text = text.replace("exercises:", "more: &x {net: other}\nexercises:", 1)
    with pytest.raises(SessionInvalid, match=r"session\.yaml:\d+: "):
        write(text)


def test_a_variable_may_name_the_learner_s_project(write: Any) -> None:
    assert write(GOOD.replace("vars:\n", "vars:\n  learner_project: mine\n")).learner == ("learner", "mine")


FRAGMENTS = [
    "&a ", "*a", "<<: *a", "<<: ", "? ", ": ", "- ", "- - ", "!!set ", "!!omap ", "!!binary ", "!x ", "!!int ", "!!float ",
    "{", "}", "[", "]", ", ", "|\n", ">-\n", "'", '"', "#", "%YAML 1.1\n", "---\n", "...\n", "\t", "\n", "\n  ", "~", "0x_",
    "1_0", "2020-01-01", "1:30", ".inf", "=", "\\", "a", "session: demo\n",
    "exercises:\n", "steps:", "with: {var: a}", "vars:\n",
]  # fmt: skip
ANY_TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FRAGMENTS) | ANY_TEXT, max_size=25), st.integers(0, len(GOOD)))
def test_whatever_a_file_can_say_is_read_or_refused(tmp_path: Path, fragments: list[str], at: int) -> None:
    inserted = "".join(fragments)
    for text in (inserted, GOOD[:at] + inserted + GOOD[at:]):
        path = written(tmp_path, text)
        try:
            read_session(path)
        except SessionInvalid as error:
            assert str(path.parent) in error.message
