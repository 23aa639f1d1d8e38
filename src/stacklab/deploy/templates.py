"""The templates that a deployment's files are made from: where they are, how they are filled, what values they refer to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacklab import places
from stacklab.errors import ProfileInvalid

if TYPE_CHECKING:
    import jinja2

ANSWER_TEMPLATES = Path(__file__).parent / "packstack"
"""Where the template of PackStack's answer file is."""
_REFERENCE = re.compile(r"""\bv(?:\.|\[["'])([A-Za-z_]\w*)""")
"""How a template refers to a value of the profile: v.NAME, v["NAME"]."""


def fragment_directories() -> list[Path]:
    """Where fragments of local.conf are: the user's own come first."""
    return [places.config_home() / "local.conf.d", places.course_data() / "local.conf.d"]


def known_values() -> set[str]:
    """The keys of a profile's `values:` that mean something: templates, or lab itself, refer to them."""
    directories = [*fragment_directories(), ANSWER_TEMPLATES]
    texts = [path.read_text(encoding="utf-8") for base in directories for path in base.glob("*.j2")]
    return {"git_base", *(name for text in texts for name in _REFERENCE.findall(text))}


def checked_address(host_ip: str) -> str:
    """The machine's address as it may stand in a file. Raises ProfileInvalid."""
    try:
        return str(ipaddress.IPv4Address(host_ip))
    except ValueError as error:
        problem = f"'{host_ip}' is no IPv4 address, and the cloud's endpoints carry one"
        raise ProfileInvalid(problem, advice="the machine's static address") from error


def environment(
    directories: Sequence[Path], filters: Mapping[str, Callable[..., Any]], finalize: Callable[[Any], Any] | None = None
) -> jinja2.Environment:
    """Jinja for files that are no HTML: a value that is missing is an error, and the filters see to what may stand there."""
    import jinja2  # here, because reading a profile should not pay for it

    made = jinja2.Environment(  # noqa: S701 -- no HTML; the filters let nothing through that means something else
        loader=jinja2.FileSystemLoader(directories),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    made.filters = dict(filters)
    return made
