"""Both sides of the supervisor's protocol, and how it judges a service that died; without any OpenStack."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stacklab.errors import NotRunning, ServiceFailed
from stacklab.homes.embedded import config, supervision
from stacklab.homes.embedded.layout import Layout


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules that run inside the cloud; these few need the standard library only."""
    monkeypatch.syspath_prepend(str(config.INSIDE))
    monkeypatch.setenv("LABCLOUD_HOME", str(tmp_path))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"labcloud.{name}")

    yield load
    for name in [name for name in sys.modules if name.partition(".")[0] == "labcloud"]:
        del sys.modules[name]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.make()
    return layout


@pytest.fixture
def deep(tmp_path: Path) -> Layout:
    """A home whose path is longer than a socket's address may be."""
    layout = Layout(tmp_path / ("deep" * 20) / ("deeper" * 20))
    layout.make()
    return layout


def test_an_order_is_answered_also_below_a_very_long_path(inside: Any, deep: Layout) -> None:
    inside("control").serve_in_thread(deep.run / "nova.sock", lambda request: {"heard": request["do"]})
    assert supervision.order(deep, "forget", to="nova") == {"heard": "forget"}


def test_an_order_that_fails_says_why(inside: Any, layout: Layout) -> None:
    def fail(request: dict[str, Any]) -> None:
        raise RuntimeError("no such guest")

    inside("control").serve_in_thread(layout.run / "nova.sock", fail)
    with pytest.raises(ServiceFailed, match="nova could not end guests: RuntimeError: no such guest"):
        supervision.order(layout, "end_guests", to="nova")


def test_nonsense_on_the_socket_does_not_stop_the_service(inside: Any, layout: Layout) -> None:
    inside("control").serve_in_thread(layout.run / "nova.sock", lambda request: {})
    supervision._ask(layout.run, "nova.sock", b"no json\n", 5)
    assert supervision.order(layout, "forget", to="nova") == {}


def test_without_a_supervisor_an_order_says_that_it_is_not_running(layout: Layout) -> None:
    with pytest.raises(NotRunning):
        supervision.order(layout, "stop")


def test_a_silent_service_is_given_up_on(layout: Layout, inside: Any) -> None:
    ever = threading.Event()
    inside("control").serve_in_thread(layout.run / "nova.sock", lambda request: {"never": ever.wait(20)})
    with pytest.raises(ServiceFailed, match="did not answer"):
        supervision.order(layout, "forget", to="nova", patience=0.3)
    ever.set()


def test_a_leftover_file_does_not_look_like_a_running_cloud(layout: Layout) -> None:
    (layout.run / "supervisor.lock").touch()
    (layout.run / "state.json").write_text(json.dumps({"pid": 1, "services": [{"name": "nova", "state": "running"}]}))
    assert not supervision.is_running(layout)
    assert {service.state for service in supervision.services(layout)} == {"stopped"}


def test_the_lock_says_that_the_cloud_runs(layout: Layout) -> None:
    with (layout.run / "supervisor.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (layout.run / "state.json").write_text(
            json.dumps({"pid": 4, "services": [{"name": "nova", "state": "failed", "reason": "killed"}]})
        )
        assert supervision.is_running(layout)
        nova = next(service for service in supervision.services(layout) if service.name == "nova")
        assert (nova.state, nova.reason) == ("failed", "killed")


# --- a service that dies --------------------------------------------------------------------------------------------


def status_of(code: str) -> int:
    process = subprocess.Popen([sys.executable, "-c", code])
    return os.waitpid(process.pid, 0)[1]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit(3)", "exited with status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    ],
)
def test_how_a_process_ended_is_told(inside: Any, code: str, told: str) -> None:
    assert inside("child").how_it_ended(status_of(code)) == told


def test_a_service_that_keeps_dying_is_started_later_and_later_and_then_given_up(inside: Any, layout: Layout) -> None:
    module = inside("child")
    child = module.Child("nova", True, [])
    child.log.write_text("ERROR nova ValueError: the disk is on fire\n")
    waits = []
    for _ in range(module.TRIES):
        child.since, child.pid = module.time.time(), 1234
        began = module.time.monotonic()
        child.died(256)
        waits.append(child.not_before - began)
    assert waits[:-1] == sorted(waits[:-1])
    assert child.state == "failed"
    assert not child.wanted
    assert "exited with status 1" in child.reason
    assert "ValueError: the disk is on fire" in child.reason


def test_a_machine_without_room_for_a_process_ends_no_supervisor(
    inside: Any, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    module = inside("child")
    child = module.Child("nova", True, [])
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fork", no_room)
        told = [child.start() for _ in range(module.TRIES)]
    assert "could not be started" in told[0]
    assert "Resource temporarily unavailable" in child.reason
    assert (child.state, child.wanted, child.pid) == ("failed", False, None)
    shutil.rmtree(layout.logs)
    assert "No such file" in child.start()


def test_a_service_that_lived_long_starts_with_a_clean_record(inside: Any, layout: Layout) -> None:
    child = inside("child").Child("nova", True, [])
    child.deaths, child.pid = 4, 1234
    child.since = inside("child").time.time() - 3600
    child.died(9)
    assert child.state == "starting"
    assert child.deaths == 1


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            "starting\n2026-01-01 ERROR nova ImportError: no module\nfoo\n",
            "2026-01-01 ERROR nova ImportError: no module",
        ),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'a'\n", "KeyError: 'a'"),
        ("one\n2026-01-01 CRITICAL nova it is over\nthree\n", "2026-01-01 CRITICAL nova it is over"),
        ("one\ntwo\n", "two"),
        ("", ""),
    ],
)
def test_the_telling_line_of_a_log_is_found(inside: Any, layout: Layout, log: str, line: str) -> None:
    path = layout.logs / "nova.log"
    path.write_text(log)
    assert inside("logfile").last_meaningful_line(path) == line
    assert supervision.last_line(path) == (line or "nothing")


def test_a_log_that_grew_too_long_is_cut_and_its_past_kept(inside: Any, layout: Layout) -> None:
    module = inside("logfile")
    path = layout.logs / "nova.log"
    with path.open("w") as file:
        file.write("the past\n")
        file.truncate(module.LIMIT + 1)
    module.keep_bounded(path)
    assert path.stat().st_size == 0
    assert (layout.logs / "nova.log.1").read_bytes().startswith(b"the past")
