"""A real browser that is looked over its shoulder: what it was answered, what its console said, what the page complains of."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

# --no-sandbox: as root (in CI) Chromium refuses to start with one. The rest keeps it off the network but for Horizon.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1400,1000",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOW = "to enable this test run: scripts/system-packages test"

EXPLAINED = (
    # what is said, and above it why that is no fault of this cloud's
    # Horizon's page of hypervisors draws a pie for dedicated CPUs even where, as nearly everywhere, there are none: 0 of 0.
    # It is drawn for a second, so a quick reader has left the page meanwhile.
    r"<path> attribute d: Expected number, .*NaN",
)


class Browser:
    """One person's browser at one Horizon. `complaints` gathers what went wrong on every page that was opened."""

    def __init__(self, address: str, profile: Path) -> None:
        self.address = address.rstrip("/")
        self.complaints: list[str] = []
        self._unanswered: set[str] = set()
        self._dropped = 0
        self._page = "/"
        # named, so that selenium has nothing to look for (or to download)
        browser, driver = program(*BROWSERS), program("chromedriver")
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver: Any = webdriver.Chrome(options=options, service=Service(executable_path=driver))
        self.driver.set_page_load_timeout(180)

    def quit(self) -> None:
        self.driver.quit()

    # --- going somewhere -------------------------------------------------------------------------------------------

    def open(self, page: str) -> None:
        """Go to a page of Horizon, wait until it has all it asked for, and listen to what it says."""

        def go() -> None:
            self._page = page
            self.driver.get(f"{self.address}{page}")
            self.settle()

        self.undisturbed(go)

    def undisturbed(self, work: Callable[[], None], tries: int = 20) -> None:
        """Do something; anew where the machine's network changed meanwhile, with what was complained of forgotten.

        Chromium drops what is under way whenever an interface comes or goes (net::ERR_NETWORK_CHANGED), even on loopback, and
        the tests with machines beside these make and remove interfaces.
        """
        for last in (*[False] * (tries - 1), True):
            complaints, dropped = len(self.complaints), self._dropped
            try:
                work()
                self._listen()
            except (AssertionError, WebDriverException):
                self._listen()
                if last or self._dropped == dropped:
                    raise
            if last or self._dropped == dropped:
                return
            del self.complaints[complaints:]
            self._dropped = dropped  # this one is made good

    def settle(self, seconds: float = 120) -> None:
        """Wait until no request has been under way for a moment: pages fetch most of their content after they are there."""
        deadline = time.monotonic() + seconds
        calm = time.monotonic()
        while time.monotonic() - calm < 0.4:
            if self._listen():
                calm = time.monotonic()
            assert time.monotonic() < deadline, f"{self._page} still waits for {sorted(self._unanswered)}"
            time.sleep(0.1)
        alerts = [alert.text.strip() for alert in self.all(".alert-danger, .toast.alert-danger")]
        self.complaints += [f"{self._page}: it alerts: {text}" for text in alerts if text]

    def login(self, user: str, password: str) -> None:
        """Fill in the login form, as nobody yet."""

        def fill_in() -> None:
            self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
            self.open("/auth/login/")
            self.one("#id_username").send_keys(user)
            self.one("#id_password").send_keys(password)
            self.one("#loginBtn").click()
            self.settle()

        self.undisturbed(fill_in)

    # --- looking ---------------------------------------------------------------------------------------------------

    @property
    def page(self) -> str:
        """Where we are, without the address of Horizon."""
        return str(self.driver.current_url).removeprefix(self.address)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    @property
    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.one("body").text)

    def shows(self, words: str) -> bool:
        return words in self.text

    def cells(self) -> set[str]:
        """What the page's tables hold, read at one moment: a page may draw them anew at any other."""
        seen = "[...document.querySelectorAll('td')].filter(cell => cell.offsetParent)"
        return set(self.driver.execute_script(f"return {seen}.map(cell => cell.innerText.trim())"))

    def menu(self) -> list[str]:
        """Every page that the menu at the side leads to, unfolded or not."""
        links = [str(link.get_attribute("href")) for link in self.all("#sidebar-accordion a[href]")]
        pages = {link.removeprefix(self.address) for link in links if "#" not in link}
        return sorted(page for page in pages if page.startswith("/"))

    def wait_for(self, what: Callable[[], object], seconds: float = 120) -> None:
        deadline, dropped = time.monotonic() + seconds, self._dropped

        def come() -> object:
            try:
                return what()
            except StaleElementReferenceException:  # the page was drawn anew while it was looked at
                return False

        while not come():
            self._listen()
            assert time.monotonic() < deadline, f"it did not come on {self.page}:\n{self.text}"
            assert self._dropped == dropped, "what was asked for was dropped"
            time.sleep(0.1)

    # --- listening -------------------------------------------------------------------------------------------------

    def _listen(self) -> bool:
        """Read what the browser recorded; True if a request began, ended or is under way."""
        moved = False
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            moved |= self._heard(event["method"], event["params"])
        for entry in self.driver.get_log("browser"):
            if entry["level"] == "SEVERE":
                self._complain(entry["message"])
        return moved or bool(self._unanswered)

    def _heard(self, method: str, told: dict[str, Any]) -> bool:
        if method == "Network.requestWillBeSent":
            if not told["request"]["url"].startswith("data:"):
                self._unanswered.add(told["requestId"])
        elif method in ("Network.loadingFinished", "Network.loadingFailed"):
            self._unanswered.discard(told["requestId"])
            self._dropped += told.get("errorText") == "net::ERR_NETWORK_CHANGED"
        elif method == "Network.responseReceived" and told["response"]["status"] >= 400:
            self._complain(f"HTTP {told['response']['status']} from {told['response']['url']}")
        elif method == "Page.frameNavigated" and "parentId" not in told["frame"]:
            self._unanswered.clear()  # what the page before still waited for, nobody waits for now
        return method.startswith("Network.")

    def _complain(self, said: str) -> None:
        if not any(re.search(words, said) for words in EXPLAINED):
            self.complaints.append(f"{self._page}: {said}")


def program(*names: str) -> str:
    """The first of these programs that is installed; skips the test if none is."""
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip(f"{' or '.join(names)} is not installed; {HOW}")
    return found
