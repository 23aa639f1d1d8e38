"""Profile files → Profile: the package's own, the user's, and what the user's configuration lays over either."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stacklab import places
from stacklab.deploy.profile.model import Part, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.deploy.templates import known_values
from stacklab.errors import LabError, NotServed, ProfileInvalid, UnknownName
from stacklab.machines.base import Machine
from stacklab.suggest import closest, closest_of
from stacklab.yamlfiles.complaints import validated
from stacklab.yamlfiles.yamlfile import Where, YamlFile

BASED_ON = "based_on"
"""The key of a profile file that names the profile which it changes; all its other keys then are optional."""
SHIPPED = Path(__file__).parent / "data"
_PROXY = re.compile(r"https?://([^/@\s]*@)?([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?/?")


class _Config(Part):
    profiles: dict[str, dict[str, Any]] = {}
    deploy: Settings = Settings()
    trust: list[Path] = []


class _Layers:
    """Values of several files, later ones over earlier ones, that still know in which file and line each stands."""

    def __init__(self) -> None:
        self._files: list[tuple[YamlFile, Where]] = []
        self.value: dict[str, Any] = {}

    def lay(self, file: YamlFile, value: dict[str, Any], below: Where = ()) -> None:
        """Lay `value`, which stands `below` that place of the file, over what is there."""
        if self._files and "tested" not in value:
            value = {**value, "tested": f"{self.value.get('tested')} (before {file.path} changed it)"}
        self._files.append((file, below))
        self.value = _merged(self.value, value)

    def error(self, where: Where, problem: str, *, advice: str = "") -> LabError:
        """The error for something wrong at `where`, in the last file that says something there."""
        for end in range(len(where), 0, -1):
            for file, below in reversed(self._files):
                if file.holds((*below, *where[:end])):
                    return file.error((*below, *where), problem, advice=advice)
        file, below = self._files[-1]
        return file.error((*below, *where), problem, advice=advice)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged; anything else replaces what it meets, and an empty value (null) takes it away."""
    result = {key: item for key, item in under.items() if over.get(key, "") is not None}
    for key, item in over.items():
        if isinstance(item, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], item)
        elif item is not None:
            result[key] = item
    return result


def _paths() -> dict[str, list[Path]]:
    """The files of every profile, by name: the package's, the user's, or by mistake both."""
    paths: dict[str, list[Path]] = {}
    for base in (SHIPPED, places.config_home() / "profiles"):
        for path in base.glob("*.yaml"):
            paths.setdefault(path.stem, []).append(path)
    return paths


def profile_names() -> list[str]:
    """The profiles there are: the package's and those of the user's `profiles/` directory."""
    return sorted(_paths())


def load_profile(name: str) -> Profile:
    """The profile of this name, with what the user's configuration says of it. Raises UnknownName, ProfileInvalid."""
    file, config = _config()
    for key in config.profiles:
        if file is not None and key not in profile_names():
            advice = closest(key, profile_names(), "lab profiles")
            raise file.error(("profiles", key), f"there is no profile '{key}'", advice=advice)
    layers = _layers(name, file, config, ())
    layers.value["name"] = name
    profile = validated(Profile, layers.value, layers, ())
    _check(profile, layers)
    return profile


def load_settings() -> Settings:
    """`deploy:` of the user's configuration; the defaults without one. Raises ProfileInvalid."""
    return _config()[1].deploy


def trusted_directories() -> list[Path]:
    """`trust:` of the user's configuration: directories whose sessions may run what they hold. Raises ProfileInvalid."""
    return [path.expanduser().absolute() for path in _config()[1].trust]


def _config() -> tuple[YamlFile | None, _Config]:
    path = places.config_home() / "config.yaml"
    if not path.exists():
        return None, _Config()
    file = YamlFile(path, invalid=ProfileInvalid, what="configuration file")
    value = {} if file.value is None else file.value
    if not isinstance(value, dict):
        raise file.error((), "a configuration is a mapping", advice="its keys: profiles, deploy, trust")
    config = validated(_Config, value, file, ())
    if config.deploy.proxy and not _PROXY.fullmatch(config.deploy.proxy):
        # not shown: there may be a password in it
        raise file.error(("deploy", "proxy"), "is no address of an HTTP proxy", advice="write it as http://HOST:PORT")
    return file, config


def _layers(name: str, config_file: YamlFile | None, config: _Config, through: tuple[str, ...]) -> _Layers:
    """Everything that makes up a profile. `through`: the profiles that are based on it."""
    paths = _paths().get(name, [])
    if not paths:
        raise UnknownName(f"there is no profile '{name}'", advice=closest(name, profile_names(), "lab profiles"))
    file = YamlFile(paths[-1], invalid=ProfileInvalid, what="profile")
    if not isinstance(file.value, dict):
        raise file.error((), "a profile is a mapping", advice=f"see {SHIPPED / 'debian12-2026.1.yaml'}")
    if len(paths) > 1:
        advice = f"changes to it go into config.yaml, below profiles: {name}:; or give yours another name"
        raise file.error((), f"lab has a profile '{name}' of its own", advice=advice)
    value = dict(file.value)
    base = value.pop(BASED_ON, None)
    if value.get("name", name) != name:
        raise file.error(
            ("name",), f"is '{value['name']}', but the file is {paths[-1].name}", advice="give both one name"
        )
    layers = _Layers()
    if base is not None:
        chain = (*through, name)
        if base in chain:
            problem = f"a profile cannot be based on itself: {' → '.join([*chain, base])}"
            raise file.error((BASED_ON,), problem, advice=f"name one of: {', '.join(profile_names())}")
        try:
            layers = _layers(str(base), config_file, config, chain)
        except UnknownName as error:
            raise file.error((BASED_ON,), error.message, advice=error.advice) from error
    layers.lay(file, value)
    if config_file is not None and name in config.profiles:
        layers.lay(config_file, config.profiles[name], below=("profiles", name))
    return layers


def _check(profile: Profile, layers: _Layers) -> None:
    """What spans more than one key. Raises ProfileInvalid."""
    for key, service in profile.services.items():
        for index, needed in enumerate(service.needs):
            if needed not in profile.services:
                advice = closest_of(needed, profile.services, f"services of {profile.name}")
                problem = f"there is no service '{needed}' in this profile"
                raise layers.error(("services", key, "needs", index), problem, advice=advice)
    # What nothing uses is a mistake, which would pass silently.
    values: list[Where] = [("values", key) for key in profile.values]
    values += [("variants", name, "values", key) for name, item in profile.variants.items() for key in item.values]
    known = sorted(known_values())
    for where in values:
        if where[-1] not in known:
            advice = closest_of(str(where[-1]), known, "values that are used")
            raise layers.error(where, "no fragment of local.conf uses such a value", advice=advice)


def chosen_variants(profile: Profile, settings: Settings) -> list[str]:
    """The variants that the configuration names, as far as this profile has them. Raises NotServed for what no profile has."""
    for name in settings.variants:
        if name not in profile.variants and not any(name in load_profile(other).variants for other in profile_names()):
            profile.with_variants([name])  # raises
    return [name for name in settings.variants if name in profile.variants]


def profile_for(machine: Machine, profile: Profile, settings: Settings) -> Profile:
    """The profile as this machine needs it: with the variants that the configuration names, and those that fit the machine.

    Raises NotServed if the machine is a container and the profile has no variant for that, MachineUnreachable.
    """
    names = chosen_variants(profile, settings)
    kind = machine.run("systemd-detect-virt", "--container", check=False)
    if kind.ok and kind.out.strip() not in ("", "none"):
        fitting = [name for name, variant in profile.variants.items() if variant.when == "container"]
        if not fitting:
            raise NotServed(
                f"{machine.name} is a container ({kind.out.strip()}), and profile {profile.name} needs a machine of its own",
                advice="use a virtual machine, or a profile with a variant for containers: lab profiles",
            )
        names = list(dict.fromkeys([*names, *fitting]))
    return profile.with_variants(names)
