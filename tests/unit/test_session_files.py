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
from stacklab.course.load import load_session, read_session, session_names
from stacklab.course.session import StepAddress
from stacklab.errors import SessionInvalid, UnknownName

GOOD = """\
session: demo
title: A demonstration
summary: Two steps.
vars:
  net: my-net
exercises:
  - id: first
    title: First
    say: Why.
    steps:
      - id: network
        kind: network
        as: learner
        say: A network.
        hint: Look again.
        with:
          name: {var: net}
      - id: subnet
        kind: subnet
        as: learner
        say: A subnet.
        hint: Look again.
        with:
          name: my-subnet
          network: {step: network}
          cidr: 10.0.0.0/24
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a session file where it belongs and reads it."""

    def read(text: str, **variables: str) -> Any:
        folder = tmp_path / "demo"
        folder.mkdir(exist_ok=True)
        (folder / "session.yaml").write_text(text, encoding="utf-8")
        return read_session(folder / "session.yaml", variables or None)

    return read


def line_of(text: str, part: str) -> int:
    """The line (from 1) on which a part of the text stands."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_a_good_file_becomes_steps_with_their_needs(write: Any) -> None:
    session = write(GOOD)
    network, subnet = session.steps()
    assert network.params.name == "my-net"
    assert subnet.needs == {"network"}
    assert subnet.exercise == "first"


def test_variables_can_be_replaced(write: Any) -> None:
    assert next(write(GOOD, net="other").steps()).params.name == "other"


@pytest.mark.parametrize(
    ("old", "new", "at", "says", "advises"),
    [
        ("kind: network", "kind: netwrok", "kind: netwrok", "no kind 'netwrok'", "did you mean 'network'"),
        ("cidr: 10", "cdir: 10", "cdir:", "no such key", "did you mean 'cidr'"),
        ("{step: network}", "{step: netwrk}", "netwrk", "no earlier step is called 'netwrk'", "did you mean 'network'"),
        ("{var: net}", "{var: nett}", "nett", "no variable 'nett'", "did you mean 'net'"),
        ("10.0.0.0/24", "10.0.0.7/24", "10.0.0.7", "has host bits set", ""),
        ("10.0.0.0/24", "ten", "cidr: ten", "cidr", ""),
        ("as: learner", "as: lerner", "as: lerner", "'admin' or 'learner'", ""),
        ("    title: First", "    titel: First", "titel", "no such key", "did you mean 'title'"),
        ("id: subnet", "id: network", "  - id: network", "a step 'network' already", "unique"),
        (
            "        hint: Look again.\n        with:\n          name: my-subnet",
            "        with:\n          name: my-subnet",
            "id: subnet",
            "'hint' is missing",
            "add 'hint:'",
        ),
        ("name: my-subnet", "name: 7", "name: 7", "has to be text", ""),
        ("session: demo", "session: other", "session: other", "folder is 'demo'", ""),
        ("title: A dem", "title: [A dem", "", "", "indentation"),
        ("summary: Two", "title: Two", "", "twice", "keep one"),
    ],
)
def test_a_mistake_is_answered_with_file_line_key_and_advice(
    write: Any, old: str, new: str, at: str, says: str, advises: str
) -> None:
    text = GOOD.replace(old, new, 1)
    if old == "as: learner":
        text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(SessionInvalid) as caught:
        write(text)
    assert says in caught.value.message
    assert advises in caught.value.advice
    if at:
        lines = [number for number, line in enumerate(text.splitlines(), 1) if at in line]
        assert any(f"session.yaml:{number}: " in caught.value.message for number in lines)
    else:
        assert "session.yaml:" in caught.value.message


def test_a_reference_to_the_wrong_kind_is_refused(write: Any) -> None:
    wrong = "{name: x, network: {step: subnet}, cidr: 10.1.0.0/24}"
    text = GOOD + f"      - {{id: again, kind: subnet, as: learner, say: A., hint: B., with: {wrong}}}\n"
    with pytest.raises(SessionInvalid, match="'subnet' is a subnet, but a network belongs here"):
        write(text)


def test_a_step_cannot_build_on_a_later_one(write: Any) -> None:
    text = GOOD.replace(
        "        hint: Look again.\n        with:\n          name: {var",
        "        hint: Look again.\n        needs: [subnet]\n        with:\n          name: {var",
        1,
    )
    with pytest.raises(SessionInvalid, match="no earlier step is called 'subnet'"):
        write(text)


def test_yaml_tags_build_no_objects(write: Any) -> None:
    with pytest.raises(SessionInvalid):
        write(GOOD.replace("title: A demonstration", "title: !!python/object/apply:os.system [id]"))


def test_an_alias_bomb_is_refused(write: Any) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(7)
    )
    with pytest.raises(SessionInvalid, match="far too many values"):
        write(bomb)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"[]", b"just text", b"a: 1\nb: [", b"\x00"])
def test_what_is_no_session_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "demo" / "session.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SessionInvalid):
        read_session(path)


@pytest.mark.parametrize("name", session_names())
def test_every_session_of_the_course_loads(name: str) -> None:
    session = load_session(name)
    assert len(list(session.steps())) > 0
    for step in session.steps():
        assert step.say.endswith((".", "?", ":")), step.id
        assert len(step.hint) > 20, step.id


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
    found = [way]
    if isinstance(value, dict):
        for key, item in value.items():
            found += ways(item, (*way, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += ways(item, (*way, index))
    return found


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.just({}),
    st.just([]),
    st.just({"step": "x"}),
    st.just([[]]),
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
    folder = tmp_path / "session3"
    folder.mkdir(exist_ok=True)
    text = io.StringIO()
    YAML(typ="safe").dump(value, text)
    path = folder / "session.yaml"
    path.write_text(text.getvalue(), encoding="utf-8")
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


def test_a_variable_may_name_the_learner_s_project_and_a_bad_name_is_answered_in_words(write: Any) -> None:
    assert write(GOOD.replace("vars:\n", "vars:\n  learner_project: mine\n")).learner == ("learner", "mine")
    with pytest.raises(SessionInvalid, match="lower-case letters, digits and '-', beginning with a letter"):
        write(GOOD.replace("id: first", "id: First!"))


FRAGMENTS = [
    "&a ", "*a", "<<: *a", "<<: ", "? ", ": ", "- ", "- - ", "!!set ", "!!omap ", "!!binary ", "!x ", "!!int ", "!!float ",
    "{", "}", "[", "]", ", ", "|\n", ">-\n", "'", '"', "#", "%YAML 1.1\n", "---\n", "...\n", "\t", "\n", "\n  ", "~", "0x_",
    "1_0", "2020-01-01", "1:30", ".inf", "=", "\\", "a", "session: demo\n",
    "exercises:\n", "steps:", "with: {var: a}", "vars:\n",
]  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25), st.integers(0, len(GOOD)))
def test_whatever_yaml_can_say_is_read_or_refused(tmp_path: Path, fragments: list[str], at: int) -> None:
    folder = tmp_path / "demo"
    folder.mkdir(exist_ok=True)
    inserted = "".join(fragments)
    for text in (inserted, GOOD[:at] + inserted + GOOD[at:]):
        (folder / "session.yaml").write_text(text, encoding="utf-8")
        try:
            read_session(folder / "session.yaml")
        except SessionInvalid as error:
            assert str(folder) in error.message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r"), max_size=200))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "session.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(SessionInvalid):
        read_session(path)
