"""Profile files → Profile: the package's own, the user's, and what the user's configuration lays over either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stacklab import places
from stacklab.deploy.localconf.render import known_values
from stacklab.deploy.profile.model import Mark, Part, PlacedFile, Profile
from stacklab.deploy.profile.settings import Settings
from stacklab.errors import LabError, NotServed, ProfileInvalid, UnknownName
from stacklab.machines.base import Machine
from stacklab.suggest import closest, closest_of
from stacklab.yamlfiles.complaints import validated
from stacklab.yamlfiles.yamlfile import Where, YamlFile

BASED_ON = "based_on"
"""The key of a profile file that names the profile which it changes; all its other keys then are optional."""


class _Config(Part):
    profiles: dict[str, dict[str, Any]] = {}
    deploy: Settings = Settings()


class _Layers:
    """Values of several files, later ones over earlier ones, that still know in which file and line each stands."""

    def __init__(self) -> None:
        self._files: list[tuple[YamlFile, Where]] = []
        self.value: dict[str, Any] = {}

    def lay(self, file: YamlFile, value: dict[str, Any], *, below: Where = (), mine: bool) -> None:
        """Lay `value`, which stands `below` that place of the file, over what is there.

        Mappings are merged; anything else replaces what it meets, and an empty value (null) takes it away. `mine`: the value is
        the user's. Either way, what an earlier layer's mark says of it is no longer true.
        """
        if mine and self._files:
            self._check_kinds(file, value.get("values"), below)
            given = value.get("marks")
            marks = {
                ".".join(path): Mark(how="yours", source=f"{file.path}:{file.line((*below, *path))}").model_dump()
                for path in _leaves(
                    {key: item for key, item in value.items() if key not in ("marks", "name", BASED_ON)}
                )
            }
            self._forget_marks(list(marks))
            value = {**value, "marks": {**marks, **(given if isinstance(given, dict) else {})}}
        elif self._files:
            self._forget_marks([".".join(path) for path in _leaves({k: v for k, v in value.items() if k != "marks"})])
        self._files.append((file, below))
        self.value = _merged(self.value, value)

    def _check_kinds(self, file: YamlFile, values: Any, below: Where) -> None:
        """A value is of the kind that it was. Raises ProfileInvalid."""
        known = self.value.get("values")
        if not isinstance(values, dict) or not isinstance(known, dict):
            return
        for key, item in values.items():
            wanted = _kind(known.get(key))
            if item is not None and key in known and not _fits(item, wanted):
                shown = item if isinstance(item, str | int) else f"a {_kind(item)}"
                raise file.error((*below, "values", key), f"has to be {KINDS[wanted]} (it is {shown!r})")

    def of_the_users(self, where: Where) -> bool:
        """Whether a file of the user's says something there."""
        return any(file.path.parent != _shipped() and file.holds((*below, *where)) for file, below in self._files)

    def _forget_marks(self, paths: list[str]) -> None:
        known = self.value.get("marks")
        if isinstance(known, dict):
            self.value["marks"] = {
                key: mark for key, mark in known.items() if not any(f"{key}.".startswith(f"{path}.") for path in paths)
            }

    @property
    def first(self) -> Path:
        """The file that all others are laid over."""
        return self._files[0][0].path

    def error(self, where: Where, problem: str, *, advice: str = "") -> LabError:
        """The error for something wrong at `where`, in the last file that says something there."""
        for end in range(len(where), -1, -1):
            for file, below in reversed(self._files):
                if end == 0 or file.holds((*below, *where[:end])):
                    return file.error((*below, *where), problem, advice=advice)
        raise AssertionError("no file was laid")


KINDS = {
    "bool": "true or false",
    "number": "a whole number",
    "mapping": "a mapping",
    "list": "a list",
    "text": "text",
}


def _kind(value: Any) -> str:
    kinds = {bool: "bool", int: "number", dict: "mapping", list: "list"}
    return kinds.get(type(value), "text")


def _fits(value: Any, wanted: str) -> bool:
    """A number may stand where text is wanted, and one name where a list of them is."""
    kind = _kind(value)
    return kind == wanted or (wanted, kind) in (("text", "number"), ("text", "bool"), ("list", "text"))


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    found = dict(under)
    for key, item in over.items():
        if item is None:
            found.pop(key, None)
        elif isinstance(item, dict) and isinstance(found.get(key), dict):
            found[key] = _merged(found[key], item)
        else:
            found[key] = item
    return found


def _leaves(value: dict[str, Any]) -> list[tuple[str, ...]]:
    """The ways to everything that is no mapping (an empty one counts as a thing)."""
    found: list[tuple[str, ...]] = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            found += [(key, *rest) for rest in _leaves(item)]
        else:
            found.append((key,))
    return found


def misnamed() -> list[Path]:
    """Files in the user's `profiles/` that are no profiles, because their names end in .yml."""
    return sorted(_own().glob("*.yml"))


def _shipped() -> Path:
    return Path(__file__).parent / "data"


def _own() -> Path:
    return places.config_home() / "profiles"


def profile_names() -> list[str]:
    """The profiles there are: the package's and those of the user's `profiles/` directory."""
    return sorted({path.stem for base in (_shipped(), _own()) for path in base.glob("*.yaml")})


def load_profile(name: str) -> Profile:
    """The profile of this name, with what the user's configuration says of it. Raises UnknownName, ProfileInvalid."""
    file, config = _config()
    for key in config.profiles:
        if file is not None and key not in profile_names():
            raise file.error(
                ("profiles", key), f"there is no profile '{key}'", advice=closest(key, profile_names(), "lab profiles")
            )
    layers = _layers(name, file, config, ())
    if not layers.value.get("title") and layers.first.parent == _own() and (_shipped() / layers.first.name).is_file():
        raise layers.error(
            (),
            f"is a whole profile in place of lab's own '{layers.first.stem}', and has no title",
            advice=f"to change that one, add: {BASED_ON}: {layers.first.stem}",
        )
    layers.value["name"] = name
    profile = validated(Profile, layers.value, layers, ())
    _check(profile, layers)
    return profile


def load_settings() -> Settings:
    """`deploy:` of the user's configuration; the defaults without one. Raises ProfileInvalid."""
    return _config()[1].deploy


def _config() -> tuple[YamlFile | None, _Config]:
    path = places.config_home() / "config.yaml"
    if not path.exists():
        return None, _Config()
    file = YamlFile(path, invalid=ProfileInvalid, what="configuration file")
    if file.value is None:
        return file, _Config()
    if not isinstance(file.value, dict):
        raise file.error((), "a configuration is a mapping", advice="its keys: profiles, deploy")
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


def _layers(name: str, config_file: YamlFile | None, config: _Config, through: tuple[str, ...]) -> _Layers:
    """Everything that makes up a profile. `through`: the files that were already met on the way down."""
    path = next(
        (path for path in (_own() / f"{name}.yaml", _shipped() / f"{name}.yaml") if _usable(path, through)), None
    )
    if path is None:
        wrong = next((one for one in misnamed() if one.stem == name), None)
        advice = f"profiles end in .yaml: rename {wrong}" if wrong else closest(name, profile_names(), "lab profiles")
        raise UnknownName(f"there is no profile '{name}'", advice=advice)
    file = YamlFile(path, invalid=ProfileInvalid, what="profile")
    if not isinstance(file.value, dict):
        raise file.error((), "a profile is a mapping", advice=f"see {_shipped() / 'debian12-2026.1.yaml'}")
    value = dict(file.value)
    base = value.pop(BASED_ON, None)
    named = value.get("name", name)
    if named != name:
        raise file.error(("name",), f"is '{named}', but the file is {path.name}", advice="give both one name")
    layers = _Layers()
    if base is not None:
        try:
            layers = _layers(str(base), config_file, config, (*through, str(path)))
        except UnknownName as error:
            if str(base) in (name, *(Path(one).stem for one in through)):
                raise file.error(
                    (BASED_ON,),
                    "a profile cannot be based on itself"
                    + ("" if base == name else f": {base} is based on {name}, directly or not"),
                    advice=f"name one of: {', '.join(sorted(path.stem for path in _shipped().glob('*.yaml')))}",
                ) from error
            raise file.error((BASED_ON,), error.message, advice=error.advice) from error
    layers.lay(file, value, mine=base is not None and path.parent != _shipped())
    if config_file is not None and name in config.profiles and not (through and Path(through[-1]).stem == name):
        layers.lay(config_file, config.profiles[name], below=("profiles", name), mine=True)
    return layers


def _usable(path: Path, through: tuple[str, ...]) -> bool:
    # A user's profile may change the package's of the same name: met a second time, the name means the next one down.
    return path.is_file() and str(path) not in through


def _check(profile: Profile, layers: _Layers) -> None:
    """What spans more than one key. Raises ProfileInvalid."""
    placed: list[tuple[Where, list[PlacedFile]]] = [
        (("repositories",), profile.repositories),
        (("files",), profile.files),
    ]
    placed += [(("variants", key, "files"), variant.files) for key, variant in profile.variants.items()]
    for place, files in placed:
        for index, file in enumerate(files):
            _check_file(file, (*place, index), layers)
    for key, service in profile.services.items():
        for index, needed in enumerate(service.needs):
            if needed not in profile.services:
                raise layers.error(
                    ("services", key, "needs", index),
                    f"there is no service '{needed}' in this profile",
                    advice=closest_of(needed, profile.services, f"services of {profile.name}"),
                )
    _check_values(profile, layers)
    document = profile.model_dump()
    for path in profile.marks:
        if not _stands(document, path):
            raise layers.error(
                ("marks", path), "nothing stands at this path of the profile", advice="write it as in: box.url"
            )


def _check_values(profile: Profile, layers: _Layers) -> None:
    """What a user's file sets and nothing uses is a mistake, which would pass silently. Raises ProfileInvalid."""
    places_of: list[tuple[Where, dict[str, Any]]] = [(("values",), profile.values)]
    places_of += [(("variants", key, "values"), variant.values) for key, variant in profile.variants.items()]
    wrong: list[Where] = [
        (*place, key) for place, values in places_of for key in values if layers.of_the_users((*place, key))
    ]
    known = known_values() if wrong else set()
    for where in wrong:
        if where[-1] not in known:
            raise layers.error(
                where,
                "no fragment of local.conf uses such a value",
                advice=closest_of(str(where[-1]), sorted(known), "values that are used"),
            )


def _check_file(file: PlacedFile, where: Where, layers: _Layers) -> None:
    if (file.content is None) == (file.url is None):
        raise layers.error(where, "has to have either 'content' or 'url'", advice="exactly one of the two")
    if ".." in Path(file.path).parts:
        raise layers.error((*where, "path"), "leads out of its directory", advice="write an absolute path instead")


def _stands(document: Any, path: str) -> bool:
    """Whether a dotted path leads somewhere; a key may have dots itself."""
    if not path:
        return True
    if isinstance(document, dict):
        return any(
            path == key or (path.startswith(f"{key}.") and _stands(item, path[len(key) + 1 :]))
            for key, item in document.items()
        )
    if isinstance(document, list):
        first, _, rest = path.partition(".")
        return first.isdigit() and int(first) < len(document) and _stands(document[int(first)], rest)
    return False


def with_variants(profile: Profile, names: list[str]) -> Profile:
    """The profile with these variants on top of it. Raises NotServed for one that it does not have."""
    for name in names:
        variant = profile.variants.get(name)
        if variant is None:
            has = ", ".join(profile.variants) or "none"
            raise NotServed(f"profile {profile.name} has no variant '{name}'", advice=f"variants of it: {has}")
        profile = profile.model_copy(
            update={
                "fragments": [*profile.fragments, *(one for one in variant.fragments if one not in profile.fragments)],
                "values": {**profile.values, **variant.values},
                "files": [*profile.files, *(one for one in variant.files if one not in profile.files)],
                "packages": profile.packages.model_copy(
                    update={"install": [*profile.packages.install, *variant.packages]}
                ),
                "external_ids": {**profile.external_ids, **variant.external_ids},
            }
        )
    return profile


def chosen_variants(profile: Profile, settings: Settings) -> list[str]:
    """The variants that the configuration names, as far as this profile has them. Raises NotServed for what no profile has."""
    names = [name for name in settings.variants if name in profile.variants]
    others = [name for name in settings.variants if name not in profile.variants]
    for name in others:
        if not any(name in variants for variants in _variants_of_all()):
            with_variants(profile, [name])  # raises
    return names


def _variants_of_all() -> Iterator[Iterable[str]]:
    for name in profile_names():
        try:
            yield load_profile(name).variants
        except LabError:
            continue  # who asks for that profile hears of it


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
        names += [name for name in fitting if name not in names]
    return with_variants(profile, names)
