"""`lab fixes` and `lab recover` where there is no machine to repair, and the catalogue behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacklab.cli.main import run
from stacklab.conditions.catalogue import AFTER_REBOOT, AFTER_STACKING, ConditionCatalogue
from stacklab.errors import UnknownName
from stacklab.lab import Lab


@pytest.mark.parametrize(
    "words", [["fixes", "list"], ["fixes", "show", "apache"], ["fixes", "apply", "apache"], ["recover"]]
)
def test_a_home_without_a_machine_says_so(
    own_directories: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    Lab("intro").update(session="session4", home="embedded")
    assert run(words) == 22
    assert "there is no machine" in capsys.readouterr().err


def test_a_misspelt_fix_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        ConditionCatalogue().these(("apach",))
    assert "apache" in caught.value.advice


def test_chosen_fixes_run_in_the_order_of_need() -> None:
    catalogue = ConditionCatalogue()
    assert [fix.id for fix in catalogue.these(("stack-units", "apache", "selinux", "apache"))] == [
        "selinux",
        "apache",
        "stack-units",
    ]
    assert [fix.id for fix in catalogue.these(AFTER_REBOOT)] == list(AFTER_REBOOT)
    assert [fix.id for fix in catalogue.these(AFTER_STACKING)] == list(AFTER_STACKING)


def test_every_fix_says_why_and_the_choice_for_selinux_is_explained() -> None:
    for fix in ConditionCatalogue().all():
        assert len(fix.why) > 80, fix.id
    assert "permissive" in ConditionCatalogue(permissive=True)["selinux"].why.split("Chosen:")[1]
    assert "enforcing" in ConditionCatalogue(permissive=False)["selinux"].why.split("Chosen:")[1]
