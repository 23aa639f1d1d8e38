"""Horizon in a real browser, as the administrator and as the learner sees it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from stacklab.cloud.access import LEARNER
from stacklab.course.load import load_session
from stacklab.lab import Lab
from stacklab.replay.apply import apply_step
from stacklab.replay.bringup import reset
from stacklab.replay.current import home_of, journal_of, workspace_at
from tests.embedded.browser import BROWSERS, Browser, program

SECTIONS = {  # of the launch dialog
    "Details", "Source", "Flavor", "Networks", "Network Ports", "Security Groups", "Key Pair", "Configuration",
    "Server Groups", "Scheduler Hints", "Metadata",
}  # fmt: skip


@pytest.fixture(scope="module")
def course(request: pytest.FixtureRequest) -> Lab:
    """The learner with an account, a network, and all that an instance is put together from."""
    program(*BROWSERS)
    program("chromedriver")
    running: Lab = request.getfixturevalue("running")  # now: no cloud is brought up for a test that is skipped
    reset(running, lambda detail: None)
    session = load_session("session4")
    desk = workspace_at(home_of(running), running, session, lambda text: None)
    for exercise in ("project", "network", "ingredients"):
        for step in session.select(exercise, None):
            apply_step(desk, journal_of(running), step, "rest")
    return running


@pytest.fixture(scope="module")
def opened(course: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all these tests: starting it takes longer than most of them."""
    address = home_of(course).access().dashboard
    assert address
    browser = Browser(address, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(opened: Browser) -> Iterator[Browser]:
    """Every test ends with this: nothing that it opened complained."""
    opened.complaints.clear()
    yield opened
    assert not opened.complaints, "\n".join(opened.complaints)


def login(browser: Browser, lab: Lab, who: str) -> None:
    """With the user name and password that `lab password` prints."""
    browser.login("admin" if who == "admin" else LEARNER["learner"], lab.secret(who))
    assert browser.page.startswith("/project/")


def test_every_page_of_the_learners_menu_opens_without_a_complaint(browser: Browser, course: Lab) -> None:
    login(browser, course, "learner")
    pages = browser.menu()
    assert {"/project/instances/", "/project/images/", "/project/network_topology/", "/identity/"} < set(pages)
    for page in pages:
        browser.open(page)
        assert browser.page.rstrip("/") == page.rstrip("/")
        assert browser.one("h1").text, page


def test_the_admin_has_an_admin_panel_and_the_learner_has_not(browser: Browser, course: Lab) -> None:
    login(browser, course, "admin")
    assert {"/admin/instances/", "/admin/hypervisors/"} < set(browser.menu())
    browser.open("/admin/hypervisors/")
    assert "lab" in {cell.text for cell in browser.all("#hypervisors td")}
    login(browser, course, "learner")
    assert not [page for page in browser.menu() if page.startswith("/admin")]


def test_the_learner_who_goes_there_all_the_same_sees_nothing(browser: Browser, course: Lab) -> None:
    login(browser, course, "learner")
    browser.open("/admin/hypervisors/")  # Horizon opens any page; it is the services that refuse to tell
    assert "lab" not in browser.cells()
    assert all("it alerts: Error: Unable to" in said for said in browser.complaints)
    assert browser.complaints
    browser.complaints.clear()


def test_the_identity_pages_show_who_there_is(browser: Browser, course: Lab) -> None:
    login(browser, course, "admin")
    browser.open("/identity/")
    assert {"admin", "service", LEARNER["learner_project"]} <= browser.cells()
    browser.open("/identity/users/")
    assert {"admin", "nova", LEARNER["learner"]} <= browser.cells()
    login(browser, course, "learner")
    browser.open("/identity/")
    assert LEARNER["learner_project"] in browser.cells()
    assert "service" not in browser.cells()


def test_a_project_has_its_network_and_image(browser: Browser, course: Lab) -> None:
    login(browser, course, "learner")

    def images() -> None:
        browser.open("/project/images/")
        browser.wait_for(lambda: {"lab-image", "Active"} <= browser.cells())  # JavaScript draws this page

    browser.undisturbed(images)
    browser.open("/project/networks/")
    assert "lab-net" in browser.cells()
    browser.open("/project/instances/")
    assert "No items to display." in browser.text


def test_the_network_topology_is_drawn(browser: Browser, course: Lab) -> None:
    login(browser, course, "learner")
    expected = {"lab-net", "10.4.0.0/24", "public", "Router"}
    drawn = "return [...document.querySelectorAll('svg text')].map(one => one.textContent.trim())"

    def topology() -> None:
        browser.open("/project/network_topology/")
        browser.wait_for(lambda: expected <= set(browser.driver.execute_script(drawn)))

    browser.undisturbed(topology)


def test_the_launch_dialog_opens_with_all_its_sections(browser: Browser, course: Lab) -> None:
    login(browser, course, "learner")

    def sections() -> dict[str, Any]:
        return {link.text.rstrip(" *"): link for link in browser.all(".wizard-nav a, .wizard-nav-item")}

    def look() -> None:
        browser.open("/project/instances/")
        browser.one("#instances__action_launch-ng").click()
        browser.settle()
        browser.wait_for(lambda: set(sections()) == SECTIONS)
        for name, holds in (("Source", "lab-image"), ("Flavor", "lab.tiny"), ("Networks", "lab-net")):
            sections()[name].click()
            browser.wait_for(partial(browser.shows, holds))
        browser.settle()

    browser.undisturbed(look)


def test_a_wrong_password_is_refused(browser: Browser) -> None:
    browser.login(LEARNER["learner"], "not the password")
    assert browser.page.startswith("/auth/login/")
    assert [said for said in browser.complaints if "Invalid credentials" in said]
    assert len(browser.complaints) == 1
    browser.complaints.clear()


def test_whoever_logs_out_is_out(browser: Browser, course: Lab) -> None:
    def out() -> None:
        login(browser, course, "learner")
        browser.open("/project/")
        browser.driver.execute_script("document.querySelector('form[action=\"/auth/logout/\"]').submit()")
        browser.settle()

    browser.undisturbed(out)
    browser.open("/project/instances/")
    assert browser.page.startswith("/auth/login/")
