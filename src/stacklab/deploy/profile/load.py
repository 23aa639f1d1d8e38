"""Profile files → Profile: the package's own, the user's, and what the user's configuration lays over either."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stacklab import places
from stacklab.deploy.profile.model import Part, PlacedFile, Profile
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
KINDS = {bool: "true or false", int: "a whole number", dict: "a mapping", list: "a list", str: "text"}


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
        if file.path.parent != SHIPPED and self._files:
            self._check_kinds(file, value.get("values"), below)
            if "tested" not in value:
                value = {**value, "tested": f"{self.value.get('tested')} (before {file.path} changed it)"}
        self._files.append((file, below))
        self.value = _merged(self.value, value)

    def _check_kinds(self, file: YamlFile, values: Any, below: Where) -> None:
        """A value is of the kind that it was. Raises ProfileInvalid."""
        known = self.value.get("values")
        if not isinstance(values, dict) or not isinstance(known, dict):
            return
        for key, item in values.items():
            expected, given = type(known.get(key)), type(item)
            # A number may stand where text is wanted, and one name where a list of them is.
            fits = given is expected or (expected, given) in ((str, int), (str, bool), (list, str))
            if item is not None and key in known and not fits:
                shown = repr(item) if isinstance(item, str | int) else KINDS.get(given, "something else")
                raise file.error((*below, "values", key), f"has to be {KINDS[expected]} (it is {shown})")

    def of_the_users(self, where: Where) -> bool:
        """Whether a file of the user's says something there."""
        return any(file.path.parent != SHIPPED and file.holds((*below, *where)) for file, below in self._files)

    def error(self, where: Where, problem: str, *, advice: str = "") -> LabError:
        """The error for something wrong at `where`, in the last file that says something there."""
        for end in range(len(where), -1, -1):
            for file, below in reversed(self._files):
                if end == 0 or file.holds((*below, *where[:end])):
                    return file.error((*below, *where), problem, advice=advice)
        raise AssertionError("no file was laid")


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged; anything else replaces what it meets, and an empty value (null) takes it away."""
    result = {key: item for key, item in under.items() if over.get(key, "") is not None}
    for key, item in over.items():
        if isinstance(item, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], item)
        elif item is not None:
            result[key] = item
    return result


def _own() -> Path:
    return places.config_home() / "profiles"


def profile_names() -> list[str]:
    """The profiles there are: the package's and those of the user's `profiles/` directory."""
    return sorted({path.stem for base in (SHIPPED, _own()) for path in base.glob("*.yaml")})


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
    if file.value is None:
        return file, _Config()
    if not isinstance(file.value, dict):
        raise file.error((), "a configuration is a mapping", advice="its keys: profiles, deploy, trust")
    config = validated(_Config, file.value, file, ())
    proxy = config.deploy.proxy
    if proxy is not None and not _is_proxy(proxy):
        # not shown: there may be a password in it
        raise file.error(("deploy", "proxy"), "is no address of an HTTP proxy", advice="write it as http://HOST:PORT")
    return file, config


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number, half an IPv6 address
        return False


def _layers(name: str, config_file: YamlFile | None, config: _Config, through: tuple[Path, ...]) -> _Layers:
    """Everything that makes up a profile. `through`: the files that were already met on the way down.

    A user's profile may change the package's of the same name: met a second time, the name means the next one down.
    """
    paths = [base / f"{name}.yaml" for base in (_own(), SHIPPED)]
    path = next((path for path in paths if path.is_file() and path not in through), None)
    if path is None:
        misnamed = _own() / f"{name}.yml"
        advice = closest(name, profile_names(), "lab profiles")
        if misnamed.exists():
            advice = f"profiles end in .yaml: rename {misnamed}"
        raise UnknownName(f"there is no profile '{name}'", advice=advice)
    file = YamlFile(path, invalid=ProfileInvalid, what="profile")
    if not isinstance(file.value, dict):
        raise file.error((), "a profile is a mapping", advice=f"see {SHIPPED / 'debian12-2026.1.yaml'}")
    value = dict(file.value)
    base = value.pop(BASED_ON, None)
    if value.get("name", name) != name:
        raise file.error(("name",), f"is '{value['name']}', but the file is {path.name}", advice="give both one name")
    if base is None and "title" not in value and path == paths[0] and paths[1].is_file():
        raise file.error(
            (),
            f"is a whole profile in place of lab's own '{name}', and has no title",
            advice=f"to change that one, add: {BASED_ON}: {name}",
        )
    layers = _Layers() if base is None else _base(str(base), file, config_file, config, (*through, path))
    layers.lay(file, value)
    if config_file is not None and name in config.profiles and not (through and through[-1].stem == name):
        layers.lay(config_file, config.profiles[name], below=("profiles", name))
    return layers


def _base(
    base: str, file: YamlFile, config_file: YamlFile | None, config: _Config, through: tuple[Path, ...]
) -> _Layers:
    """The layers that `file` is based on. Raises ProfileInvalid if there are none, or the file is among them itself."""
    try:
        return _layers(base, config_file, config, through)
    except UnknownName as error:
        problem, advice = error.message, error.advice
        if base in (path.stem for path in through):
            name = file.path.stem
            problem = "a profile cannot be based on itself"
            problem += "" if base == name else f": {base} is based on {name}, directly or not"
            advice = f"name one of: {', '.join(sorted(path.stem for path in SHIPPED.glob('*.yaml')))}"
        raise file.error((BASED_ON,), problem, advice=advice) from error


def _check(profile: Profile, layers: _Layers) -> None:
    """What spans more than one key. Raises ProfileInvalid."""
    placed: list[tuple[Where, PlacedFile]] = []
    variants = [(("variants", key, "files"), variant.files) for key, variant in profile.variants.items()]
    for place, files in [(("repositories",), profile.repositories), (("files",), profile.files), *variants]:
        placed += [((*place, index), file) for index, file in enumerate(files)]
    for where, file in placed:
        if (file.content is None) == (file.url is None):
            raise layers.error(where, "has to have either 'content' or 'url'", advice="exactly one of the two")
        if ".." in Path(file.path).parts:
            raise layers.error((*where, "path"), "leads out of its directory", advice="write an absolute path instead")
    for key, service in profile.services.items():
        for index, needed in enumerate(service.needs):
            if needed not in profile.services:
                advice = closest_of(needed, profile.services, f"services of {profile.name}")
                problem = f"there is no service '{needed}' in this profile"
                raise layers.error(("services", key, "needs", index), problem, advice=advice)
    # What a user's file sets and nothing uses is a mistake, which would pass silently.
    values: list[Where] = [("values", key) for key in profile.values]
    values += [("variants", name, "values", key) for name, item in profile.variants.items() for key in item.values]
    theirs = [where for where in values if layers.of_the_users(where)]
    known = known_values() if theirs else set()
    for where in theirs:
        if where[-1] not in known:
            advice = closest_of(str(where[-1]), sorted(known), "values that are used")
            raise layers.error(where, "no fragment of local.conf uses such a value", advice=advice)


def chosen_variants(profile: Profile, settings: Settings) -> list[str]:
    """The variants that the configuration names, as far as this profile has them. Raises NotServed for what no profile has."""
    for name in settings.variants:
        if name not in profile.variants and not any(name in other.variants for other in _readable_profiles()):
            profile.with_variants([name])  # raises
    return [name for name in settings.variants if name in profile.variants]


def _readable_profiles() -> list[Profile]:
    """All but the broken ones: who asks for one of those hears of it."""
    profiles = []
    for name in profile_names():
        try:
            profiles.append(load_profile(name))
        except LabError:
            continue
    return profiles


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
