"""`lab up` as far as the tests' VM goes, as a process that can be killed: a line of JSON for each thing it says."""

from __future__ import annotations

import json
import sys

from stacklab.events import StageMoved
from stacklab.stages import run_stages
from tests.vm.conftest import vm_of


def say(event: object) -> None:
    """Print what goes on."""
    if isinstance(event, StageMoved):
        print(json.dumps(event.detail), flush=True)


if __name__ == "__main__":
    box, pool = sys.argv[1:]
    vm = vm_of(box, pool)
    with vm.lab.writing(new=True):
        run_stages(vm.lab, vm.stages(), say)
