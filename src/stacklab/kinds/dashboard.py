"""Horizon, used as a browser uses it: the login form is filled in, and a page is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

from stacklab.errors import CloudRefused, CloudUnreachable

SECONDS = 120
"""How long one page may take: the first one after a start is slow."""


class Page(HTMLParser):
    """What of a page is looked at: hidden fields of forms, the text of table cells, whether it asks for a password."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}
        self.cells: list[str] = []
        self.asks_password = False
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "input" and known.get("type") == "hidden" and known.get("name"):
            self.hidden.setdefault(str(known["name"]), known.get("value") or "")
        self.asks_password |= tag == "input" and known.get("name") == "password"
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


class Visit:
    """Somebody who is logged in to Horizon."""

    def __init__(self, address: str, browser: Any) -> None:
        self._address = address.rstrip("/")
        self._browser = browser

    def _ask(self, method: str, page: str, data: dict[str, str] | None = None) -> Any:
        import requests

        url = f"{self._address}{page}"
        try:
            # Django wants to know where a form was filled in.
            answer = self._browser.request(
                method, url, data=data, headers={"Referer": url}, timeout=SECONDS, allow_redirects=method == "GET"
            )
        except requests.RequestException as error:
            raise CloudUnreachable(f"{url}: {error}", advice="lab status shows what runs") from error
        if answer.status_code >= 400:
            raise CloudRefused(f"{url}: HTTP {answer.status_code} {answer.reason}", status=answer.status_code)
        return answer

    def login(self, user: str, password: str) -> None:
        """Fill in the form. Raises CloudRefused, CloudUnreachable."""
        form = Page(self._ask("GET", "/auth/login/").text)
        if not form.asks_password:
            raise CloudRefused(f"{self._address}/auth/login/ has no form for a password")
        answer = self._ask("POST", "/auth/login/", {**form.hidden, "username": user, "password": password})
        if not answer.is_redirect and Page(answer.text).asks_password:
            raise CloudRefused(f"Horizon does not let {user} in", status=401)

    def cells(self, page: str) -> list[str]:
        """The text of all table cells of a page, in order. Raises CloudRefused, CloudUnreachable."""
        read = Page(self._ask("GET", page).text)
        if read.asks_password:
            raise CloudRefused(f"Horizon asks for a login before it shows {page}", status=401)
        return [" ".join(cell.split()) for cell in read.cells]

    def logout(self) -> None:
        """End the visit, so that Horizon forgets the token. Raises CloudRefused, CloudUnreachable."""
        form = {"csrfmiddlewaretoken": self._browser.cookies.get("csrftoken", "")}
        self._ask("POST", "/auth/logout/", form)


@contextmanager
def visiting(address: str, user: str, password: str, verify: bool | str) -> Iterator[Visit]:
    """Log in to Horizon, and out again. Raises CloudRefused, CloudUnreachable."""
    import requests

    with requests.Session() as browser:
        browser.verify = verify
        visit = Visit(address, browser)
        visit.login(user, password)
        yield visit
        visit.logout()
