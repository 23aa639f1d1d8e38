"""Session https-endpoints on a real cloud with a real Apache: done three ways, broken step by step, undone byte for byte."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec

import pytest
import requests

from stacklab.cloud.connection import Connection
from stacklab.course.load import load_session
from stacklab.course.session import Step
from stacklab.errors import NotServed
from stacklab.homes.embedded import https as own_apache
from stacklab.homes.embedded import supervision
from stacklab.homes.embedded.home import EmbeddedHome
from stacklab.homes.embedded.https import EmbeddedHttps, OwnApache, configuration_of, processes
from stacklab.homes.plan import Plan
from stacklab.https.authority import Authority
from stacklab.kinds.context import Workspace
from stacklab.lab import Lab
from stacklab.replay import undo as undoing
from stacklab.replay.apply import apply_step
from stacklab.replay.breaking import fault_of
from stacklab.replay.bringup import bring_up, reset, stop
from stacklab.replay.check import check
from stacklab.replay.current import home_of, journal_of, workspace_at
from stacklab.replay.undo import undo
from tests.embedded.conftest import quiet
from tests.embedded.guests import PATIENCE, until
from tests.embedded.mutation import Break, Mend, Mutations, by_names, failed

SESSION = load_session("https-endpoints")
STEPS = list(SESSION.steps())
SLOW = {"client", "client-refusal"}
"""Each starts the openstack client, which takes seconds."""


def open_workspace(lab: Lab) -> Workspace:
    """The lab's cloud, opened for this session."""
    return workspace_at(home_of(lab), lab, SESSION, lambda text: None)


def https_of(lab: Lab) -> EmbeddedHttps:
    """TLS before the lab's cloud."""
    home = home_of(lab)
    assert isinstance(home, EmbeddedHome)
    return home.https()


def replay(lab: Lab, steps: list[Step], via: str = "rest") -> None:
    """Do the steps."""
    workspace, journal = open_workspace(lab), journal_of(lab)
    for step in steps:
        apply_step(workspace, journal, step, via)


def everything(lab: Lab) -> dict[str, str]:
    """What undo must leave as it was: the catalogue, every file of ours with its mode, and no process of Apache's."""
    home = home_of(lab)
    assert isinstance(home, EmbeddedHome)
    layout = home.layout
    state = {}
    for path in sorted([layout.clouds_file, *(layout.home / "https").rglob("*"), *layout.conf.rglob("*")]):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a directory"
        state[str(path)] = f"{oct(path.stat().st_mode)} {content}"
    for name in ("apache.log", "apache.pid"):
        state[name] = str([path.exists() for path in (layout.logs / name, layout.run / name)])
    return {**state, **catalogue_of(lab), "apache": str(processes(configuration_of(layout)))}


def catalogue_of(lab: Lab) -> dict[str, str]:
    """Every endpoint, by its id."""
    admin = Connection(https_of(lab).clouds_file, "lab-admin")
    rows = admin.get("identity", "endpoints")["endpoints"]
    return {row["id"]: str(sorted(item for item in row.items() if item[0] not in ("links", "service"))) for row in rows}


@pytest.fixture
def lab(running: Lab) -> Lab:
    """The cloud at its start."""
    if why := https_of(running).why_not():
        pytest.skip(why)
    reset(running, quiet)
    return running


@pytest.fixture(scope="module")
def done(running: Lab) -> Iterator[Lab]:
    """The whole session, done."""
    if why := https_of(running).why_not():
        pytest.skip(why)
    reset(running, quiet)
    replay(running, STEPS)
    yield running
    reset(running, quiet)


# --- the session done ----------------------------------------------------------------------------------------------


def test_a_login_to_the_dashboard_by_https_stays_on_https(done: Lab) -> None:
    https = https_of(done)
    front = https.remembered()["horizon"]
    session = requests.Session()
    session.trust_env = False
    session.verify = str(https.authority.certificate_file)
    session.headers.update({"Origin": front.public, "Referer": f"{front.public}/auth/login/"})
    at_plain = session.get(f"{front.redirecting}/auth/login/", timeout=60)
    assert [answer.status_code for answer in at_plain.history] == [301]
    assert at_plain.url == f"{front.public}/auth/login/"
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', at_plain.text)
    assert token
    form = {
        "username": "admin", "password": done.secret("admin"), "csrfmiddlewaretoken": token[1], "region": "default",
    }  # fmt: skip
    answer = session.post(f"{front.public}/auth/login/", data=form, timeout=120)
    assert answer.status_code == 200
    assert all(each.url.startswith("https://") for each in [*answer.history, answer])
    assert 'name="password"' not in answer.text


def test_no_answer_of_a_public_endpoint_leads_back_to_plain_http(done: Lab) -> None:
    """Version documents, links in lists, and where a client without a token is sent."""
    https = https_of(done)
    ca = str(https.authority.certificate_file)
    for name, front in https.remembered().items():
        for path in ("/", "/v3", "/v2.1", "/v2.0", "/v2"):
            answer = requests.get(f"{front.public}{path}", verify=ca, timeout=60, allow_redirects=False)
            text = answer.text + str(answer.headers)
            assert "http://127.0.0.1" not in text, (name, path, text[:500])
    connection = Connection(https.clouds_file, "lab-https")
    listed = str(connection.get("identity", "projects")) + str(connection.get("network", "networks"))
    assert "https://127.0.0.1" in listed
    assert "http://127.0.0.1" not in listed


def test_an_object_of_swift_goes_through_tls_and_back(done: Lab) -> None:
    connection = Connection(https_of(done).clouds_file, "lab-https")
    base = connection.endpoint("object-store")
    assert base.startswith("https://")
    content = os.urandom(3 << 20)
    name = f"{base}/tls/a%2Fb%20c"
    session = connection.sdk.session
    assert session.put(f"{base}/tls").status_code in (201, 202)
    assert session.put(name, data=content).status_code == 201
    assert session.get(name).content == content
    assert session.delete(name).status_code == 204
    assert session.delete(f"{base}/tls").status_code == 204


def test_the_rest_of_the_lab_goes_on_while_the_public_endpoints_are_on_https(done: Lab) -> None:
    """Another session's steps, by way of Nova, Neutron, Cinder and Glance, which ask each other; readiness; the client."""
    home = home_of(done)
    assert isinstance(home, EmbeddedHome)
    home.prove(quiet)
    session4 = load_session("session4")
    workspace = workspace_at(home, done, session4, lambda text: None)
    exercises = ("project", "network", "ingredients", "instance", "volume")
    steps = [step for step in session4.steps() if step.exercise in exercises and step.id not in ("console", "login")]
    journal = journal_of(done)
    try:
        for step in steps:
            apply_step(workspace, journal, step, "rest")
        graded = {grade.id: grade.actual for grade in check(workspace, steps).grades if grade.status != "passed"}
        assert graded == {}
        admin = Connection(home.layout.clouds_file, "lab-admin")
        assert admin.endpoint("compute").startswith("http://")
    finally:
        undo(workspace, journal, steps, lambda step, detail: None)


def test_apache_that_died_is_noticed_and_a_cloud_that_was_stopped_comes_up_with_it(done: Lab) -> None:
    home = home_of(done)
    assert isinstance(home, EmbeddedHome)
    configuration = configuration_of(home.layout)
    assert any(note.startswith("behind TLS, by Apache: cinder, ") for note in home.status().notes)
    for pid in processes(configuration):
        os.kill(pid, signal.SIGKILL)
    grade = check(open_workspace(done), [SESSION.step("keystone")]).grades[0]
    assert (grade.status, "nobody listens" in grade.actual) == ("failed", True)
    assert any("Apache" in note and "lab up starts it" in note for note in home.status().notes)
    home.https().start(quiet)
    assert processes(configuration) != []
    stop(done, quiet)
    assert processes(configuration) == []
    bring_up(done, load_session("session4"), Plan(home="embedded"), None, lambda event: None)
    assert failed_fast(open_workspace(done)) == {}


def test_the_certificates_say_what_openssl_wants_of_them(done: Lab) -> None:
    authority = https_of(done).authority
    strictly = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        str(authority.certificate_file),
    ]
    subprocess.run([*strictly, str(authority.server_certificate_file)], check=True, capture_output=True, timeout=60)
    for key in (authority.key_file, authority.server_key_file):
        assert key.stat().st_mode & 0o777 == 0o600


def test_an_expired_certificate_is_seen_graded_and_repaired(done: Lab) -> None:
    home = home_of(done)
    fault = home.faults()["expired-certificate"]
    assert fault.why_not() is None
    assert fault.look().state == "good"
    fault.inject(quiet)
    try:
        finding = fault.look()
        assert (finding.state, "expired at" in finding.evidence) == ("bad", True)
        bad = failed_fast(open_workspace(done))
        assert set(bad) == {"dates", "login", "repair-certificate"}
        assert "certificate has expired" in bad["login"]
    finally:
        fault.clear(quiet)
    assert fault.look().state == "good"
    assert failed_fast(open_workspace(done)) == {}


def failed_fast(workspace: Workspace) -> dict[str, str]:
    """`failed` without the steps that start the client."""
    steps = [step for step in SESSION.steps() if step.id not in SLOW]
    return {grade.id: grade.actual for grade in check(workspace, steps).grades if grade.status != "passed"}


# --- grading by mutation -------------------------------------------------------------------------------------------


Steps = ParamSpec("Steps")


def in_two_halves(change: Callable[Concatenate[Workspace, Steps], Iterator[None]]) -> Callable[Steps, Break]:
    """A break from a generator: what comes before its `yield` breaks, what comes after it mends."""

    def bound(*arguments: Steps.args, **options: Steps.kwargs) -> Break:
        def broken(workspace: Workspace) -> Mend:
            halves = change(workspace, *arguments, **options)
            next(halves)
            return lambda: next(halves, None)

        return broken

    return bound


@in_two_halves
def certificate(
    workspace: Workspace, names: list[str] | None = None, expired: bool = False, stranger: bool = False
) -> Iterator[None]:
    """The virtual hosts show another certificate: expired, for another name, or of another authority."""
    https = workspace.https()
    authority = signer = https.authority
    before = {file: file.read_bytes() for file in (authority.server_key_file, authority.server_certificate_file)}
    if stranger:
        signer = Authority(https.directory.parent / "stranger", authority.title)
        signer.make()
    if expired:
        authority.expire()
    else:
        signer.issue(names or https.apache.names)
    for file in before:
        file.write_bytes((signer.directory / file.name).read_bytes())
    https.install()
    yield
    for file, content in before.items():
        file.write_bytes(content)
    https.install()
    if stranger:
        signer.remove()
        signer.directory.rmdir()


@in_two_halves
def changed(workspace: Workspace, /, collection: str, find: dict[str, str], **values: Any) -> Iterator[None]:
    """Something of Placement's in the catalogue is another one; nothing that a check asks needs it."""
    service = workspace.admin.get("identity", "services", name="placement")["services"][0]
    rows = workspace.admin.get("identity", "endpoints", service_id=service["id"], **find)["endpoints"]
    row, name = (service, "service") if collection == "services" else (rows[0], "endpoint")

    def write(values: dict[str, Any]) -> None:
        workspace.admin.request("PATCH", "identity", (collection, row["id"]), body={name: values})

    write({key: value(row[key]) if callable(value) else value for key, value in values.items()})
    yield
    write({key: row[key] for key in values})


@in_two_halves
def otherwise(workspace: Workspace, file: str, pattern: str, replacement: str) -> Iterator[None]:
    """A file below the cloud's directory says something else. Apache is told of a virtual host's; of others nobody."""
    https = workspace.https()
    assert isinstance(https, EmbeddedHttps)
    path = https.directory.parent / file
    before, mode = path.read_text(encoding="utf-8"), path.stat().st_mode

    def write(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        if path.parent.name == "sites":
            apache = https.apache
            old = {*processes(apache.configuration)} - {int(apache.pid_file.read_text())}
            apache.reload()
            # A graceful restart is only asked for: until they end, the old processes answer.
            until("the old processes have ended", lambda: not old & {*processes(apache.configuration)})

    after = re.sub(pattern, replacement, before, flags=re.DOTALL)
    assert after != before
    write(after)
    yield
    write(before)
    path.chmod(mode)


@in_two_halves
def open_key(workspace: Workspace) -> Iterator[None]:
    """Everybody may read the authority's key."""
    file = workspace.https().authority.key_file
    file.chmod(0o644)
    yield
    file.chmod(0o600)


def site(service: str, pattern: str, replacement: str) -> Break:
    """The file of a virtual host says something else."""
    return otherwise(f"https/sites/{service}.conf", pattern, replacement)


SPEAKS_PLAIN = ('Redirect permanent "/"[^\n]*', 'Redirect 404 "/"')
"""The dashboard's plain port answers, and redirects nobody."""
OTHER_LINK = ('RequestHeader set X-Forwarded-Proto "https"', "RequestHeader unset X-Forwarded-Proto")
"""The service is not told that TLS was before it."""
NOWHERE = (r'ProxyPass "/" "http://127.0.0.1:\d+/"', 'ProxyPass "/" "http://127.0.0.1:9/"')
"""What is passed on goes to a port where nobody listens."""
TRUSTED = otherwise("clouds.yaml", r'("lab-https-no-ca": \{)', r'\1 "verify": false,')
"""The entry without the authority has verification switched off, as people do who are in a hurry."""

BREAKS: dict[str, Break] = {
    "services": changed("services", {}, enabled=False),
    "internal": changed("endpoints", {"interface": "internal"}, enabled=False),
    "settings": otherwise("conf/neutron.conf", "endpoint_type = internal", "#"),
    "authority": open_key(),
    "certificate": certificate(names=["localhost", "192.0.2.1"]),
    "horizon": site("horizon", *SPEAKS_PLAIN),
    "keystone": site("keystone", *OTHER_LINK),
    "swift": site("swift", *NOWHERE),
    "others": site("glance", *OTHER_LINK),
    # The entry for https has another file as its authority.
    "logins": otherwise("clouds.yaml", r'("lab-https": \{.*?"cacert": ")[^"]+"', r'\1/etc/hostname"'),
    "endpoints": changed("endpoints", {"interface": "public"}, url=lambda url: f"{url}/elsewhere"),
    "chain": certificate(stranger=True),
    "name": certificate(names=["elsewhere.example"]),
    "dates": certificate(expired=True),
    "plain": site("horizon", *SPEAKS_PLAIN),
    "no-plain-url": changed("endpoints", {"interface": "public"}, url=lambda url: url.replace("https://", "http://")),
    "login": site("glance", *NOWHERE),
    "client": site("nova", *NOWHERE),
    "refusal": TRUSTED,
    "client-refusal": TRUSTED,
    "repair-certificate": certificate(expired=True),
}

SHARED = {
    # What these steps declare is declared by another one, too, so breaking it breaks both.
    "plain": {"horizon"},
    "chain": {"certificate"},
    "name": {"certificate"},
    "no-plain-url": {"endpoints"},
    "login": {"others"},
    "client": {"others"},
    "refusal": {"client-refusal"},
    "client-refusal": {"refusal"},
    "dates": {"repair-certificate"},
    "repair-certificate": {"dates"},
}


def test_every_step_has_its_mutation() -> None:
    assert set(BREAKS) == {step.id for step in SESSION.steps()}


@pytest.fixture(scope="module")
def workspace(done: Lab) -> Workspace:
    """The whole session, done, looked at through one login."""
    return open_workspace(done)


MUTATIONS = Mutations(
    SESSION, BREAKS, SHARED, apart=("services", "internal", "endpoints", "no-plain-url"), slow=SLOW
)  # each is Placement's


@pytest.mark.parametrize("steps", MUTATIONS.rounds(), ids=by_names)
def test_breaking_what_steps_declare_fails_them_and_only_what_needs_them(
    workspace: Workspace, steps: tuple[str, ...]
) -> None:
    MUTATIONS.assert_noticed(workspace, steps)


def test_after_all_that_everything_is_well_again(workspace: Workspace) -> None:
    assert failed(workspace) == {}


# --- by hand -------------------------------------------------------------------------------------------------------


def test_what_is_told_typed_into_a_shell_passes_and_is_never_undone(lab: Lab) -> None:
    by_hand = [SESSION.step(name) for name in ("authority", "certificate", "horizon", "keystone")]
    workspace = open_workspace(lab)
    for step in by_hand:
        for command in step.kind.commands(workspace.context(step), step.params):
            subprocess.run(["sh", "-eu"], input=command.text(), text=True, check=True, capture_output=True, timeout=60)
    workspace = open_workspace(lab)  # who looks later finds the ports that were shown, in use by now

    def wrong() -> dict[str, str]:
        return {grade.id: grade.actual for grade in check(workspace, by_hand).grades if grade.status != "passed"}

    deadline = time.monotonic() + PATIENCE
    while wrong() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert wrong() == {}
    for step in by_hand:
        assert apply_step(workspace, journal_of(lab), step, "rest").outcome == "already"
    assert undo(workspace, journal_of(lab), by_hand, lambda step, detail: None) == 0
    assert {grade.status for grade in check(workspace, by_hand).grades} == {"passed"}


# --- the way there and back ----------------------------------------------------------------------------------------


def test_both_ways_lead_to_the_same_catalogue_and_undo_leaves_every_byte_as_it_was(lab: Lab) -> None:
    before = everything(lab)
    replay(lab, [step for step in STEPS if step.kind.leaves and step.id != "endpoints"])
    for draft in (".fronts.json.a1b2c3_d", "new.key"):  # what a killed writer left goes as well
        (https_of(lab).directory / draft).write_text("half a fi")
    left = {}
    endpoints = SESSION.step("endpoints")
    for via in ("rest", "cli"):
        replay(lab, [endpoints], via)
        workspace = open_workspace(lab)
        assert check(workspace, [endpoints]).grades[0].status == "passed", via
        left[via] = {row["id"]: row["url"] for row in workspace.admin.get("identity", "endpoints")["endpoints"]}
        undo(workspace, journal_of(lab), [endpoints], lambda step, detail: None)
        assert catalogue_of(lab) == {name: row for name, row in before.items() if "url" in row}, via
    assert left["cli"] == left["rest"]
    undo(open_workspace(lab), journal_of(lab), STEPS, lambda step, detail: None)
    assert everything(lab) == before
    assert journal_of(lab).entries(SESSION.name) == {}


@pytest.mark.parametrize("step", ["horizon", "endpoints"])
def test_killed_in_the_middle_of_a_step_undo_leaves_every_byte_as_it_was(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Horizon's: its file is written and Apache not told. The endpoints': one of several is changed."""
    monkeypatch.setattr(undoing, "IN_FLIGHT", 0.0)
    before = everything(lab)
    replay(lab, [before for before in STEPS[: STEPS.index(SESSION.step(step))] if before.kind.leaves])
    child = os.fork()
    if child == 0:
        try:
            killed_at(step)
            replay(lab, [SESSION.step(step)])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert check(open_workspace(lab), [SESSION.step(step)]).grades[0].status == "failed"
    undo(open_workspace(lab), journal_of(lab), STEPS, lambda step, detail: None)
    assert everything(lab) == before
    assert journal_of(lab).entries(SESSION.name) == {}


def killed_at(step: str) -> None:
    """This process is to end, as by kill -9, in the middle of the step."""
    send, changes = requests.Session.send, iter(range(100))

    def killed(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def send_first(session: requests.Session, request: Any, **options: Any) -> Any:
        if request.method == "PATCH" and next(changes) == 1:
            killed()
        return send(session, request, **options)

    def write_only(apache: OwnApache, script: str) -> None:
        apache.machine.script(script.partition("apache2 -f")[0].rpartition("\n")[0])
        killed()

    if step == "horizon":
        OwnApache._run = write_only  # type: ignore[assignment,method-assign]
    else:
        requests.Session.send = send_first  # type: ignore[assignment,method-assign]


def test_reset_ends_apache_and_puts_the_catalogue_and_the_logins_back(lab: Lab) -> None:
    before = everything(lab)
    replay(lab, [step for step in STEPS if step.id in ("authority", "certificate", "keystone", "logins")])
    assert processes(configuration_of(https_of(lab).apache.layout)) != []
    reset(lab, quiet)
    assert everything(lab) == before


def test_services_that_were_set_wrong_are_put_right_and_back(lab: Lab) -> None:
    """On an embedded cloud they are right from the start; where they are not, the step changes them and undo restores them."""
    home = home_of(lab)
    assert isinstance(home, EmbeddedHome)
    file = home.layout.conf / "cinder.conf"
    right = file.read_bytes()
    file.write_bytes(right.replace(b"interface = internal", b"interface = public"))
    try:
        before = everything(lab)
        step = SESSION.step("settings")
        replay(lab, [step])
        assert check(open_workspace(lab), [step]).grades[0].status == "passed"
        assert b"interface = internal" in file.read_bytes()
        undo(open_workspace(lab), journal_of(lab), [step], lambda step, detail: None)
        assert everything(lab) == before
    finally:
        file.write_bytes(right)
        supervision.order(home.layout, "restart", service="cinder")
        supervision.wait_until_running(home.layout, quiet, time.monotonic() + PATIENCE)


def test_before_the_session_the_fault_says_why_it_cannot_be_had(lab: Lab) -> None:
    fault = home_of(lab).faults()["expired-certificate"]
    assert fault.look().state == "not_applicable"
    assert "lab replay https-endpoints" in str(fault.why_not())
    with pytest.raises(NotServed, match="lab replay https-endpoints"):
        fault_of(home_of(lab), SESSION.fault("expired-certificate"))


def test_without_apache_the_steps_say_which_package_is_missing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_apache, "_program", lambda: None)
    grades = check(open_workspace(lab), STEPS[1:]).grades
    assert {grade.status for grade in grades} == {"not_applicable"}
    assert all("apache2" in grade.actual and "httpd" in grade.actual for grade in grades[:-1])
