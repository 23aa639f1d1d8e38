"""Which network an embedded cloud gets, and what is said where it cannot have its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacklab.errors import StageFailed, UnknownName
from stacklab.files import write_precious
from stacklab.homes.embedded import ovn
from stacklab.homes.embedded.layout import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.delenv("LAB_NETWORK", raising=False)
    return Layout(tmp_path)


@pytest.mark.parametrize(
    ("made", "said", "network"),
    [(None, None, "user"), (None, "ovn", "ovn"), ("ovn", None, "ovn"), ("ovn", "user", "user"), ("user", "ovn", "ovn")],
)
def test_a_cloud_keeps_its_network_until_somebody_says_otherwise(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, made: str | None, said: str | None, network: str
) -> None:
    if made:
        write_precious(layout.made_file, {"network": made})
    if said:
        monkeypatch.setenv("LAB_NETWORK", said)
    assert ovn.chosen(layout) == network


def test_a_network_that_nobody_knows_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_NETWORK", "onv")
    with pytest.raises(UnknownName, match="LAB_NETWORK is 'onv'"):
        ovn.chosen(layout)


def test_a_machine_without_namespaces_is_told_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovn, "TRY", ("sh", "-c", "echo unshare: Operation not permitted >&2; exit 1"))
    with pytest.raises(StageFailed, match="Operation not permitted") as told:
        ovn.fetch(lambda detail: None)
    assert "LAB_NETWORK=user lab up" in str(told.value.advice)
    monkeypatch.setattr(ovn, "TRY", ("no-such-program",))
    assert ovn.why_none_possible() == "there is no no-such-program"
