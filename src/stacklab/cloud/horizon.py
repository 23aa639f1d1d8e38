"""Horizon's login page: where it is, and whether what answers there is one."""

from __future__ import annotations

from stacklab.errors import CloudUnreachable

LOGIN = "auth/login/"
"""Below Horizon's address."""

SECONDS = 60
"""The first page after a start is slow: Horizon compiles its templates and asks for the catalogue."""


def login_url(dashboard: str) -> str:
    """The address of the login page."""
    return f"{dashboard.rstrip('/')}/{LOGIN}"


def login_page(dashboard: str, verify: bool | str = True) -> tuple[bool, str]:
    """Whether Horizon shows its login page, and what was seen: "HTTP 200, with a login form". `verify`: as requests has it.

    Raises CloudUnreachable if nothing answers.
    """
    import requests

    url = login_url(dashboard)
    try:
        answer = requests.get(url, timeout=SECONDS, verify=verify)
    except requests.RequestException as error:
        raise CloudUnreachable(
            f"{url}: no answer ({type(error).__name__})", advice="lab status shows what runs"
        ) from error
    shown = answer.status_code == 200 and 'name="password"' in answer.text
    return shown, f"HTTP {answer.status_code}, {'with' if shown else 'without'} a login form"
