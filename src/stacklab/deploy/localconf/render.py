"""DevStack's local.conf: fragments of `local.conf.d/`, chosen by profile, session and `--with`, made into one file.

The file has two languages in it. Its `[[local|localrc]]` section is sourced by a shell, so every value there is quoted for one.
The sections for other files (`[[post-config|…]]`) are ini, but DevStack pastes each of their values between double quotes and
evaluates that (inc/meta-config), so only values that mean the same in both are let through.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.grading import MASK
from stacklab.deploy.prepare.forms import MachineFile, file_stage
from stacklab.deploy.prepare.internet import without_account
from stacklab.deploy.profile.model import OptionalService, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.stack.detached import STACK_USER
from stacklab.deploy.templates import checked_address, environment, fragment_directories
from stacklab.errors import LabError, ProfileInvalid
from stacklab.stages import Progress, Stage
from stacklab.suggest import closest

SECRETS: Final = ("admin", "database", "rabbit", "service", "swift-hash")
"""The lab's secrets that a local.conf can need, by the names that `Lab.secret` knows them by."""

HEADER: Final = "# Written by lab"
BEFORE: Final = "local.conf.before-lab"
"""How a local.conf that somebody else wrote is kept, beside ours."""

_SECTION = re.compile(r"^\[\[[^\]|]+\|[^\]]+\]\]$")
_WHY = re.compile(r"\A\{#\s*(.*?)\s*#\}", re.DOTALL)


@dataclass(frozen=True)
class Fragment:
    """One file of local.conf.d. `chosen`: by what; `why`: what it is for, its first comment."""

    name: str
    path: Path
    chosen: str
    why: str
    service: str | None = None


class _Quoted(str):
    """Text that may stand in the file as it is. Templates can print nothing else."""

    __slots__ = ()


def fragments(
    profile: Profile, settings: Settings, *, services: Iterable[str] = (), asked_by: Mapping[str, str] | None = None
) -> list[Fragment]:
    """What the local.conf is made of, in order. Raises UnknownName, NotServed, ProfileInvalid (no such fragment).

    `asked_by`: who asks for a service, where it is not `--with`.
    """
    chosen = profile.chosen(services, asked_by)
    names = [(name, f"profile {profile.name}") for name in profile.fragments]
    if "image_url" in profile.values and "images" not in profile.fragments:
        names.append(("images", "values.image_url"))
    if settings.proxy and "proxy" not in profile.fragments:
        names.append(("proxy", "deploy.proxy"))
    used = [_fragment(name, by, None, profile) for name, by in names]
    return used + [_fragment(name, by, name, profile) for name, by in chosen.items()]


def _fragment(name: str, by: str, service: str | None, profile: Profile) -> Fragment:
    for base in fragment_directories():
        path = base / f"{name}.j2"
        if path.is_file():
            why = _WHY.match(path.read_text(encoding="utf-8"))
            return Fragment(name, path, by, " ".join(why[1].split()) if why else "", service)
    files = [path.stem for base in fragment_directories() for path in base.glob("*.j2")]
    shipped = fragment_directories()[-1]
    raise ProfileInvalid(
        f"profile {profile.name}: there is no fragment '{name}' in {shipped}",
        advice=closest(name, sorted(stem for stem in files if not stem.startswith("_")), f"{shipped}"),
    )


def render(
    profile: Profile,
    settings: Settings,
    *,
    services: Iterable[str] = (),
    secrets: Mapping[str, str] | None = None,
    host_ip: str,
    asked_by: Mapping[str, str] | None = None,
) -> str:
    """The local.conf. `secrets` by the names of `SECRETS`; without them it is for showing, and has asterisks for passwords.

    `services`, `asked_by`: see `fragments`. Raises UnknownName, NotServed, and ProfileInvalid if a value is missing or cannot
    stand in the file; a message never shows the value itself, which may be a secret.
    """
    if secrets is None:
        secrets = dict.fromkeys(SECRETS, MASK)
        settings = settings.model_copy(update={"proxy": without_account(settings.proxy) if settings.proxy else None})
    filters = {"sh": _sh, "words": _words, "variable": _variable, "ini": _ini}
    jinja = environment(fragment_directories(), filters, _printed)
    common = {
        "v": profile.values,
        "cloud": profile.cloud,
        "settings": settings,
        "secrets": secrets,
        "host_ip": checked_address(host_ip),
        "git_base": _git_base(profile, settings),
        "no_proxy": ",".join(dict.fromkeys(["localhost", "127.0.0.1", host_ip, *settings.no_proxy])),
        "at": lambda url: without_account(settings.at(url)),
    }
    localrc: list[str] = []
    others: dict[str, list[str]] = {}
    for fragment in fragments(profile, settings, services=services, asked_by=asked_by):
        section = localrc
        section += ["", f"# {fragment.name}: {fragment.why or fragment.chosen}"]
        for line in _filled(jinja, fragment, common | _of_service(profile, fragment, settings)).splitlines():
            if _SECTION.match(line):
                section = others.setdefault(line, [])
            elif line.strip():
                section.append(line)
    first = f"{HEADER} for profile {profile.name}; the next lab up writes it again."
    lines = [first, "", "[[local|localrc]]", *localrc]
    for head, body in others.items():
        lines += ["", head, *body]
    return "\n".join(lines) + "\n"


def _of_service(profile: Profile, fragment: Fragment, settings: Settings) -> dict[str, object]:
    if fragment.service is None:
        return {}
    service: OptionalService = profile.services[fragment.service]
    # As a mapping, so that `service["values"]` is the key and not the method of the same name.
    values: dict[str, object] = {"service": service.model_dump()}
    if service.plugin:
        values["plugin_url"] = f"{_git_base(profile, settings)}/{service.plugin}.git"
    return values


def _git_base(profile: Profile, settings: Settings) -> str:
    """GIT_BASE: DevStack puts /openstack/NAME.git after it, so a mirror has to keep that part."""
    base = str(profile.values.get("git_base", "")).rstrip("/")
    below = without_account(settings.at(f"{base}/openstack/"))
    if not below.endswith("/openstack/"):
        raise ProfileInvalid(
            f"the mirror of {base}/openstack/ has to end in /openstack/, too: DevStack writes that part itself",
            advice="deploy.mirrors in config.yaml",
        )
    return below.removesuffix("/openstack/")


# --- templates -----------------------------------------------------------------------------------------------------


def _filled(jinja: jinja2.Environment, fragment: Fragment, values: Mapping[str, Any]) -> str:
    try:
        return jinja.get_template(fragment.path.name).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise ProfileInvalid(f"{error.filename or fragment.path}:{error.lineno}: {error.message}") from error
    except (jinja2.TemplateError, LabError) as error:
        place = f"{fragment.path}:{_line(error)}"
        problem = getattr(error, "message", None) or str(error)
        raise ProfileInvalid(
            f"{place}: {problem}", advice=f"what it needs: values in the profile ({fragment.chosen})"
        ) from error


def _line(error: BaseException) -> int:
    """The line of the template in which it happened: Jinja makes frames of templates look like those of Python."""
    line, at = 1, error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename.endswith(".j2"):
            line = at.tb_lineno
        at = at.tb_next
    return line


def _printed(value: object) -> object:
    if not isinstance(value, _Quoted):
        raise ProfileInvalid("a value goes into local.conf without one of the filters sh, words, variable, ini")
    return value


def _text(value: object) -> str:
    """A value as DevStack writes it: truth is True and False."""
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises, and says what is missing
    if not isinstance(value, str | int):
        raise ProfileInvalid("a value for local.conf is neither text nor a number nor true or false")
    text = str(value)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ProfileInvalid("a value for local.conf has a line break or another control character in it")
    return text


def _sh(value: object) -> _Quoted:
    """For the right side of an assignment, and as an argument, in the localrc section: one shell word, whatever is in it."""
    return _Quoted(shlex.quote(_text(value)))


def _words(values: object) -> _Quoted:
    """Names of DevStack's services, as arguments of enable_service and disable_service."""
    names = [values] if isinstance(values, str) else values
    if not isinstance(names, list | tuple) or not all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", str(name)) for name in names):
        raise ProfileInvalid("names of DevStack's services are of a-z, 0-9 and '-'")
    return _Quoted(" ".join(str(name) for name in names))


def _variable(name: object) -> _Quoted:
    """The left side of an assignment."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
        raise ProfileInvalid(f"'{name}' cannot be the name of a variable")
    return _Quoted(name)


def _ini(value: object) -> _Quoted:
    """A value in a section for another file.

    DevStack reads it without `-r`, evaluates it between double quotes, and `iniset` echoes it unquoted and hands it to sed:
    nothing that a shell or sed takes for more than itself gets through, and no run of blanks.
    """
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.,:/@+=%-]+( [A-Za-z0-9_.,:/@+=%-]+)*", text):
        raise ProfileInvalid("a value in a section for another file has characters that DevStack's shell would change")
    return _Quoted(text)


# --- the stage -----------------------------------------------------------------------------------------------------


def stages(deployment: Deployment) -> list[Stage]:
    """local.conf on the machine, readable for the stack user alone. One that somebody else wrote stays beside it."""
    machine, path = deployment.machine, f"{deployment.profile.devstack.directory}/local.conf"
    saved = path.replace("local.conf", BEFORE)

    def files(progress: Progress) -> list[MachineFile]:
        secrets = {name: deployment.lab.secret(name) for name in SECRETS}
        text = render(
            deployment.profile, deployment.settings, services=deployment.services, secrets=secrets,
            host_ip=deployment.host_ip,
        )  # fmt: skip
        own = MachineFile(path, text.encode(), mode=0o600, owner=STACK_USER)
        there = machine.read(path)
        if there is None or there.startswith(HEADER.encode()):
            return [own]
        why = "the local.conf that somebody else wrote"
        return [MachineFile(saved, there, mode=0o600, owner=STACK_USER, why=why), own]

    return [file_stage(machine, "local-conf", "DevStack's local.conf", files, detail=path)]
