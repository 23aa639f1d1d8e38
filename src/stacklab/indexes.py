"""Where packages come from is the user's business: uv, and the pip of a machine that we deploy, are told what pip was told.

uv reads its own UV_* variables and configuration; many machines (and companies) are set up for pip alone. Names as in
https://pip.pypa.io/en/stable/topics/configuration/ and https://docs.astral.sh/uv/reference/environment/.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

# pip's option: uv's variable
NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
}
_ALSO = {"default-timeout": "timeout"}  # pip's other spelling
_COMMAS = {"find-links"}  # uv separates these with commas, the others with blanks


def for_uv(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with the UV_* variables that pip's settings imply; what uv was told itself stays."""
    result = dict(environment)
    for option, value in told_to_pip(environment).items():
        variable = NAMES.get(option)
        if variable and variable not in environment and value.split():
            result[variable] = ("," if option in _COMMAS else " ").join(value.split())
    if environment.get("PIP_NO_INDEX") and "UV_NO_INDEX" not in environment:
        result["UV_NO_INDEX"] = "1"
    return result


def told_to_pip(environment: Mapping[str, str]) -> dict[str, str]:
    """What pip on this host is configured with, by the names of its options; variables count more than files, as pip has it."""
    told = {**_from_files(environment), **_from_variables(environment)}
    return {_ALSO.get(option, option): value for option, value in told.items()}


def _from_variables(environment: Mapping[str, str]) -> dict[str, str]:
    prefix = "PIP_"
    return {
        name.removeprefix(prefix).lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith(prefix)
    }


def _from_files(environment: Mapping[str, str]) -> dict[str, str]:
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - HOME may be unset
    configuration = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", configuration / "pip" / "pip.conf"]
    chosen = environment.get("PIP_CONFIG_FILE")
    if chosen:
        files = [] if chosen == os.devnull else [*files, Path(chosen)]
    parser = configparser.RawConfigParser()
    parser.read(files, encoding="utf-8")
    told: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            told |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    return told
