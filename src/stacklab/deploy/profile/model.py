"""A profile: a distribution, an OpenStack release, and how DevStack (or PackStack) puts the one on the other. Data, never code.

The files are `data/<name>.yaml`; `load` reads them and lays the user's own over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stacklab.errors import NotServed, UnknownName
from stacklab.suggest import closest_of


class Part(BaseModel):
    """A piece of a profile: nothing in it may be misspelt."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Box(Part):
    """The Vagrant box. `url`: where `vagrant box add` finds it if it is not at hand; `user`: who can log in and become root."""

    name: str
    version: str | None = None
    url: str | None = None
    sha256: str | None = None
    user: str = "vagrant"


class Size(Part):
    """What the VM gets. Memory in MiB, disk in GiB; `least_memory`: below it DevStack does not come up."""

    cpus: int = 2
    memory: int = 6144
    least_memory: int = 4096
    disk: int = 60
    least_disk: int = 10
    """Free before stack.sh: DevStack used 6 GB on Debian 12; images and volumes come on top."""


class PlacedFile(Part):
    """A file that is put on the machine. Exactly one of `content` and `url` says what is in it.

    A path that is not absolute is below DevStack's directory (`files/…`: what stack.sh would else download itself). `url`
    is fetched by the host, so that its cache and its certificates count, and checked against `sha256` where that is known.
    """

    path: str
    content: str | None = None
    url: str | None = None
    sha256: str | None = None
    mode: int = 0o644
    why: str

    @field_validator("path")
    @classmethod
    def _below(cls, path: str) -> str:
        if ".." in PurePosixPath(path).parts:
            raise ValueError("leads out of its directory")
        return path

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.content is None) == (self.url is None):
            raise ValueError("has to have either 'content' or 'url'")
        return self


class WantedPackages(Part):
    """What the distribution's package manager does, in this order: `remove`, `upgrade`, `install`."""

    remove: list[str] = []
    upgrade: bool = False
    install: list[str] = []


class DevStack(Part):
    """Where DevStack comes from. `drop`: words that are taken out of its lists, by file below its directory."""

    repo: str
    ref: str
    directory: str = "/opt/stack/devstack"
    drop: dict[str, list[str]] = {}


class Switched(Part):
    """Units of the distribution's that are switched `off` before the deployment, and then those that are switched `on`."""

    off: list[str] = []
    on: list[str] = []


class PackStack(Part):
    """How PackStack runs. `timeout`: seconds that Puppet gives one command of its own."""

    timeout: int = 900


class OptionalService(Part):
    """An optional service that `--with` can ask for. Either it is served, or `refused` says why not.

    Its fragment in local.conf.d has its name. `plugin`, `ref`: where DevStack's plugin for it comes from; None: DevStack has
    it itself. `values`: variables of DevStack or of the plugin, by their names there; for PackStack, answers. `needs`: services
    that come with it.
    """

    title: str
    plugin: str | None = None
    ref: str | None = None
    values: dict[str, str] = {}
    needs: list[str] = []
    refused: str | None = None


Values = dict[str, str | int | bool | list[str] | dict[str, str]]
"""What fragments refer to, by names of our own."""


class Variant(Part):
    """The same profile on another kind of machine: what is laid on top of it.

    `when`: what the machine is for this to be right without being asked for ("container": systemd-detect-virt says so); None:
    only when the user's configuration names it. `packages` are installed after the profile's; `external_ids` are set in
    Open vSwitch's database before stack.sh runs.
    """

    title: str
    why: str
    when: Literal["container"] | None = None
    fragments: list[str] = []
    values: Values = {}
    files: list[PlacedFile] = []
    packages: list[str] = []
    external_ids: dict[str, str] = {}


class Units(Part):
    """How the distribution and DevStack call the services.

    `storage`: the iSCSI daemons that Cinder needs. `devstack`: in stack.sh's order, without `devstack@` and `.service`.
    `openstack`: those of OpenStack's services that have names of their own, where packages brought them (PackStack).
    `watch_seconds`: how long one must stay up before it counts: the course's network agent fails again within a minute.
    """

    apache: str
    memcached: str
    database: str
    queue: str
    switch: list[str]
    libvirt: str
    storage: list[str] = []
    network_agent: str
    devstack: list[str]
    openstack: list[str] = []
    watch_seconds: int = Field(75, gt=0)


class CloudAddresses(Part):
    """What the finished cloud looks like from outside. `floating_range` is what br-ex carries.

    `identity`, `dashboard`: what comes after http://HOST_IP, a path or a port and a path. `service_project`: the project that
    the services' own accounts are in.
    """

    identity: str = "/identity"
    dashboard: str = "/dashboard/"
    floating_range: str = "172.24.4.0/24"
    gateway: str = "172.24.4.1"
    bridge: str = "br-ex"
    service_project: str = "service"


class Recovery(Part):
    """What a reboot loses on this release (facts, not code). `loops`: LVM volume groups on loop files, by backing file."""

    loops: dict[str, str] = {}
    sysctl: dict[str, str] = {}
    masquerade: bool = True
    start_instances: bool = True


class Selinux(Part):
    """Whether the distribution enforces SELinux, and what DevStack needs of it. `config`: the file that decides at boot."""

    config: str = "/etc/selinux/config"
    module: str | None = None
    """Type enforcement rules of the targeted module (source text), the alternative to permissive mode."""
    booleans: list[str] = []


class FileEntry(Part):
    """A value in a service's file of oslo.config's kind. `unit`: DevStack's, which reads it when it starts."""

    file: str
    section: str
    key: str
    unit: str


class AddressPlace(Part):
    """Where the cloud's network keeps the machine's address: an external id of Open vSwitch, or an entry.

    `agent`: the program that depends on it, as `openstack network agent list` calls its binary.
    """

    external_id: str | None = None
    entry: FileEntry | None = None
    agent: str

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.external_id is None) == (self.entry is None):
            raise ValueError("has to have either 'external_id' or 'entry'")
        return self


class Breakable(Part):
    """What can be broken on purpose, and where it is on this release; what is not named cannot be broken.

    `compute`: nova-compute's unit. `heartbeats`: the database where Nova keeps when it was last heard of, on a release on which
    it takes Nova many minutes to notice that it does not run. `password`: Cinder's, for checking tokens. `store`: Glance's
    directory. `network`: see AddressPlace. `time`: units that keep the clock right, whichever of them the machine has.
    """

    compute: str = "n-cpu"
    heartbeats: str | None = None
    password: FileEntry | None = None
    store: FileEntry | None = None
    network: AddressPlace | None = None
    time: list[str] = ["chronyd", "chrony", "ntpd", "ntpsec", "systemd-timesyncd"]


class Profile(Part):
    """See the module. `tested`: what has been run of it; comments in the file say how sure each fact is."""

    name: str
    title: str
    summary: str
    tested: str = "nothing that lab knows of"
    family: Literal["debian", "redhat"]
    distribution: str
    """ID and VERSION_ID of /etc/os-release, joined: "debian 12", "centos 7"."""
    release: str
    deployed_by: Literal["devstack", "packstack"] = "devstack"
    usual_minutes: int
    box: Box
    size: Size = Size()
    repositories: list[PlacedFile] = []
    packages: WantedPackages = WantedPackages()
    files: list[PlacedFile] = []
    switched: Switched = Switched()
    pip_constraints: list[str] = []
    locale: str = "en_US.utf8"
    devstack: DevStack
    packstack: PackStack = PackStack()
    fragments: list[str]
    """Names in local.conf.d that this profile always uses, in order, without `.j2`."""
    values: Values = {}
    """What those fragments may refer to."""
    services: dict[str, OptionalService] = {}
    external_ids: dict[str, str] = {}
    """Open vSwitch settings (`ovs-vsctl set open . external-ids:KEY=VALUE`) that must stand before stack.sh runs."""
    variants: dict[str, Variant] = {}
    units: Units
    cloud: CloudAddresses = CloudAddresses()
    recovery: Recovery = Recovery()
    selinux: Selinux | None = None
    faults: Breakable = Breakable()

    @property
    def program(self) -> Literal["stack", "packstack"]:
        """What makes the cloud on the machine; see `stack.detached`."""
        return "stack" if self.deployed_by == "devstack" else "packstack"

    @property
    def served(self) -> list[str]:
        """The optional services that can be had: what each of them needs is served, too."""

        def able(name: str) -> bool:
            try:
                return name in self.chosen([name])
            except (UnknownName, NotServed):
                return False

        return [name for name in self.services if able(name)]

    def chosen(self, services: Iterable[str], asked_by: Mapping[str, str] | None = None) -> dict[str, str]:
        """These services and those that they need, which stand before them, each with who wants it.

        `asked_by`: where it is not `--with`. Raises UnknownName, NotServed.
        """
        chosen: dict[str, str] = {}

        def add(name: str, by: str, through: tuple[str, ...]) -> None:
            if name in chosen or name in through:
                return
            service = self.services.get(name)
            if service is None:
                raise UnknownName(
                    f"profile {self.name} knows no service '{name}'",
                    advice=closest_of(name, self.served, f"services of {self.name}"),
                )
            if service.refused is not None:
                for_whom = f" (for {through[-1]})" if through else ""
                raise NotServed(
                    f"profile {self.name} cannot serve {name}{for_whom}: {' '.join(service.refused.split())}",
                    advice=f"lab profiles {self.name} lists what it can",
                )
            for needed in service.needs:
                add(needed, f"{name} needs it", (*through, name))
            chosen[name] = by

        for name in services:
            add(name, (asked_by or {}).get(name, "--with"), ())
        return chosen

    def with_variants(self, names: Iterable[str]) -> Profile:
        """The profile with these variants on top of it. Raises NotServed for one that it does not have."""
        profile = self
        for name in names:
            variant = self.variants.get(name)
            if variant is None:
                known = ", ".join(self.variants) or "none"
                raise NotServed(f"profile {self.name} has no variant '{name}'", advice=f"variants of it: {known}")
            packages = profile.packages
            changed = {
                "fragments": list(dict.fromkeys([*profile.fragments, *variant.fragments])),
                "values": {**profile.values, **variant.values},
                "files": [*profile.files, *(file for file in variant.files if file not in profile.files)],
                "packages": packages.model_copy(update={"install": [*packages.install, *variant.packages]}),
                "external_ids": {**profile.external_ids, **variant.external_ids},
            }
            profile = profile.model_copy(update=changed)
        return profile
