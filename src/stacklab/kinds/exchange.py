"""One operation, three ways into the cloud: HTTP and JSON by hand, the client, Horizon. The way is what they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Annotated, Any, Literal

from pydantic import Field

from stacklab.errors import CloudRefused, CloudUnreachable, LabError
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import Params, Ref, Refers, SecretRef
from stacklab.kinds.kind import Difference, Kind
from stacklab.kinds.narration import Command, Request
from stacklab.kinds.resources import RESOURCES, Resource

SECONDS = 60
DOMAIN = "default"


_IN_CATALOGUES: dict[str, tuple[tuple[str, ...], str]] = {
    "networks": (("network",), "/v2.0"),
    "servers": (("compute",), "/v2.1"),
    "volumes": (("block-storage", "volumev3"), "/v3"),
}
"""What catalogues call the service that has them, and the version that its address there may lack."""


def _listed(p: ExchangeParams) -> Resource:
    return RESOURCES[p.at.removesuffix("s")]


class ExchangeParams(Params):
    """A list, and the way of asking for it."""

    by: Literal["http", "client", "dashboard"]
    """The way: plain HTTP, the client, or Horizon."""
    at: Literal["networks", "servers", "volumes"]
    """What is listed."""
    user: Annotated[Ref, Refers("user")]
    """Who asks."""
    project: Annotated[Ref, Refers("project")]
    """For which project."""
    password: SecretRef
    """With which password."""
    shows: list[Annotated[Ref, Refers("network", "server", "volume")]] = Field(min_length=1)
    """What the list must have in it."""


class Exchange(Kind[ExchangeParams]):
    """A list, asked for in one way from the login on, whatever way the other steps are done in."""

    name = "exchange"
    params = ExchangeParams
    expects = "{title} can be listed, and show what they should"
    leaves = False
    own_way = True

    def title(self, p: ExchangeParams) -> str:
        way = {"http": "HTTP alone", "client": "the client", "dashboard": "Horizon"}[p.by]
        return f"the {p.at}, by {way}"

    def horizon(self, p: ExchangeParams) -> str:
        if p.by != "dashboard":
            return "(this step does without)"
        return f"log in, then Project ▸ {_listed(p).menu}"

    def commands(self, context: Context, p: ExchangeParams) -> list[Command]:
        if p.by != "client":
            return []
        return [Command(("--debug", *_listed(p).list(), "-f", "value", "-c", "Name"))]

    def requests(self, context: Context, p: ExchangeParams) -> list[Request]:
        if p.by != "http":
            return []
        try:
            at = f"{_versioned(context.user.auth_url, '/v3')}/auth/tokens"
        except (Absent, LabError):
            at = None
        return [self._login(context, p, at), Request("GET", _listed(p).service, (_listed(p).path,))]

    def _login(self, context: Context, p: ExchangeParams, at: str | None) -> Request:
        domain = {"id": DOMAIN}
        user = {"name": context.name_of(p.user), "domain": domain, "password": context.secret(p.password)}
        scope = {"project": {"name": context.name_of(p.project), "domain": domain}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        saved = ("TOKEN", "x-subject-token")
        path = ("auth", "tokens") if at is None else ()
        return Request("POST", "identity", path, body, at=at, token=False, saves_header=saved)

    def run(self, context: Context, p: ExchangeParams) -> None:
        for line in self._asked(context, p)["told"]:
            context.say(line)

    def find_all(self, context: Context, p: ExchangeParams) -> Iterable[Thing]:
        try:
            return [self._asked(context, p)]
        except CloudRefused as error:
            # Whether it was refused or somebody broke over it: the operation does not work now, and that is the answer.
            return [{"name": p.at, "rows": set(), "told": [], "refused": error.message, "shows": []}]

    def _asked(self, context: Context, p: ExchangeParams) -> Thing:
        rows, lines = {"http": _by_http, "client": _by_client, "dashboard": _by_dashboard}[p.by](self, context, p)
        return {
            "name": p.at,
            "rows": rows,
            "told": lines,
            "refused": None,
            "shows": [context.name_of(ref) for ref in p.shows],
        }

    def compare(self, context: Context, p: ExchangeParams, thing: Thing) -> list[Difference]:
        if thing["refused"]:
            return [Difference(self.title(p), "an answer", thing["refused"])]
        listed = _listing(thing["rows"])
        names = [context.name_of(ref) for ref in p.shows]
        return [Difference(p.at, f"{name} is listed", listed) for name in names if name not in thing["rows"]]

    def shown(self, thing: Thing) -> str:
        # A page of Horizon has more cells than names.
        return f"it shows {_listing(set(thing['shows']) & thing['rows'])}"

    def show_command(self, context: Context, p: ExchangeParams) -> Command:
        return Command(_listed(p).list())

    def applicable(self, context: Context, p: ExchangeParams) -> str | None:
        return "this cloud has no dashboard" if p.by == "dashboard" and not context.dashboard() else None


def _listing(rows: Iterable[str]) -> str:
    return ", ".join(sorted(row for row in rows if row)) or "nothing"


def _versioned(url: str, version: str) -> str:
    base = url.rstrip("/")
    return base if re.search(r"/v\d[\d.]*(/|$)", base) else base + version


def _by_http(kind: Exchange, context: Context, p: ExchangeParams) -> tuple[set[str], list[str]]:
    """Both requests, sent by a plain HTTP library: no client of OpenStack's has a part in it."""
    login = kind.requests(context, p)[0]
    answer = _send(context, login.method, str(login.at), login.headers(), login.content({}))
    token = answer.json()["token"]
    address = _address_in(token["catalog"], p)
    lines = [
        f"POST {login.at}: HTTP {answer.status_code}, a token for {token['user']['name']} in {token['project']['name']} "
        f"until {token['expires_at']}",
        f"its catalogue: {_listing(service['name'] for service in token['catalog'])}",
    ]
    url = f"{address}/{_listed(p).path}"
    headers = {"Accept": "application/json", "X-Auth-Token": answer.headers["X-Subject-Token"]}
    listed = _send(context, "GET", url, headers, None)
    rows = {str(row["name"]) for row in listed.json()[p.at]}
    return rows, [*lines, f"GET {url}: HTTP {listed.status_code}, {_listing(rows)}"]


def _address_in(catalogue: list[dict[str, Any]], p: ExchangeParams) -> str:
    """The service's public address as the token's catalogue has it. Raises CloudRefused."""
    types, version = _IN_CATALOGUES[p.at]
    for service in catalogue:
        for endpoint in service["endpoints"]:
            if service["type"] in types and endpoint["interface"] == "public":
                return _versioned(endpoint["url"], version)
    raise CloudRefused(f"the token's catalogue has no public endpoint of type {' or '.join(types)}", status=404)


def _send(context: Context, method: str, url: str, headers: dict[str, str], body: Any) -> Any:
    import requests

    try:
        answer = requests.request(method, url, headers=headers, json=body, timeout=SECONDS, verify=context.user.verify)
    except requests.RequestException as error:
        raise CloudUnreachable(f"{method} {url}: {error}", advice="lab status shows what runs") from error
    if answer.status_code >= 400:
        raise CloudRefused(f"{method} {url}: HTTP {answer.status_code} {answer.reason}", status=answer.status_code)
    return answer


_NO_ANSWER = re.compile(r"Unable to establish connection|Failed to contact|Failed to discover|Connection refused")


def _by_client(kind: Exchange, context: Context, p: ExchangeParams) -> tuple[set[str], list[str]]:
    """The client, and the addresses that it says it asked: the first is the only one that it was told."""
    from stacklab.kinds import client

    result = client.run(kind.commands(context, p)[0], {}, context.user.clouds_file, context.user.name)
    if result.status != 0:
        asked = [
            line
            for line in result.complaint.splitlines()
            if re.search(r"HTTP \d|[A-Z]\w*(Error|Exception|Failure)\b", line)
        ]
        message = asked[-1] if asked else f"the client ended with status {result.status}"
        if _NO_ANSWER.search(result.complaint):
            raise CloudUnreachable(message, advice="lab status shows what runs")
        raise CloudRefused(message, status=400)
    return set(result.output.split("\n")) - {""}, [*_asked_of(result.complaint), result.output.strip()]


def _asked_of(debug: str) -> list[str]:
    """The requests that the client's --debug tells of, in order."""
    pattern = r"REQ: curl .*?-X (?P<method>\w+) (?P<url>\S+)|Making authentication request to (?P<login>\S+)"
    asked = [
        f"POST {match['login']}" if match["login"] else f"{match['method']} {match['url']}"
        for match in re.finditer(pattern, debug)
    ]
    return [f"it asked: {line}" for line in dict.fromkeys(asked)]


def _by_dashboard(kind: Exchange, context: Context, p: ExchangeParams) -> tuple[set[str], list[str]]:
    """A login to Horizon, and the page that has the list."""
    address, page = context.dashboard(), _listed(p).page
    user, password = context.name_of(p.user), context.secret(p.password).value
    with visiting(address, user, password, context.user.verify) as visit:
        cells = set(visit.cells(page))
    wanted = {context.name_of(ref) for ref in p.shows}
    return cells, [f"{address.rstrip('/')}{page} shows {_listing(wanted & cells)}"]


PAGE_SECONDS = 120
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
                method, url, data=data, headers={"Referer": url}, timeout=PAGE_SECONDS, allow_redirects=method == "GET"
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


KINDS: list[Kind[Any]] = [Exchange()]
