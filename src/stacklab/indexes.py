"""Where packages come from is the user's business: uv, and the pip of a machine that we deploy, are told what pip was told.

uv reads its own UV_* variables and configuration; many machines (and companies) are set up for pip alone. Names as in
https://pip.pypa.io/en/stable/topics/configuration/ and https://docs.astral.sh/uv/reference/environment/.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from stacklab.errors import DownloadFailed

ADVICE = "look at: pip config list; or name an index: deploy: pip_index: in config.yaml"

# pip's option: uv's variable
NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
}
_SAME_HERE = ("proxy", "client-cert", "no-index")  # what else of pip's options says where packages come from
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


def for_both(
    environment: Mapping[str, str],
    *,
    index: str | None = None,
    ca_file: Path | None = None,
    at: Callable[[str], str] = str,
) -> dict[str, str]:
    """`environment` in which pip and uv ask the same places, and no file of pip's says anything else (constraints, say).

    `index` stands in the place of all that pip is told; else `at` gives the mirror of an address.
    """
    options = {name: value for name, value in told_to_pip(environment).items() if name in (*NAMES, *_SAME_HERE)}
    if index:
        options = {name: value for name, value in options.items() if name not in ("extra-index-url", "find-links")}
        options |= {"index-url": index}
    else:
        options["index-url"] = at(options.get("index-url") or pips_own())
        if extra := options.get("extra-index-url", "").split():
            options["extra-index-url"] = " ".join(map(at, extra))
    if ca_file:
        options["cert"] = str(ca_file)
    bare = {name: value for name, value in environment.items() if not name.startswith(("PIP_", "UV_"))}
    variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in options.items() if value.split()}
    return for_uv({**bare, **variables, "PIP_CONFIG_FILE": os.devnull})


def pips_own() -> str:
    """The index that pip has when nobody configures one: pip is asked, for it is not ours to know. Raises DownloadFailed."""
    ask = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise DownloadFailed(
            "no index of Python packages is configured, and pip is not here to be asked", advice=ADVICE
        )
    return done.stdout.strip()


def told_to_pip(environment: Mapping[str, str]) -> dict[str, str]:
    """What pip on this host is configured with, by the names of its options; variables count more than files, as pip has it."""
    options = {**_from_files(environment), **_from_variables(environment)}
    return {_ALSO.get(option, option): value for option, value in options.items()}


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
    options: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            options |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    return options
