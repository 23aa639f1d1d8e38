"""Nova: key pairs, flavors, servers, and volumes attached to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from stacklab.kinds.declaration import AssetRef, Name, Params, Ref, Refers, shouted
from stacklab.kinds.kind import Difference, Kind, Scene, Thing, differing
from stacklab.kinds.narration import Command, Later, Request
from stacklab.kinds.wait import until

VERSION = "2.47"
"""Shows a server's flavor in full; the newest that Pike has is 2.53."""

KEY_PAIRS_VERSION = "2.10"
"""The first in which an admin may look at another user's key pairs."""

BOOT_SECONDS = 600
"""How long a server may take to become ACTIVE; emulated guests on a busy laptop have been seen to need minutes."""


class KeyPairParams(Params):
    name: Name
    public_key: AssetRef


class KeyPair(Kind[KeyPairParams]):
    """A key pair: the public half is put into an instance, the private half opens it."""

    name = "key-pair"
    params = KeyPairParams

    def title(self, p: KeyPairParams) -> str:
        return f"key pair {p.name}"

    def horizon(self, p: KeyPairParams) -> str:
        return f"Project ▸ Compute ▸ Key Pairs ▸ Import Public Key: Key Pair Name {p.name}, Key Type SSH Key, the file"

    def commands(self, scene: Scene, p: KeyPairParams) -> list[Command]:
        return [Command(("keypair", "create", "--public-key", str(scene.asset(p.public_key).path), p.name))]

    def _public_key(self, scene: Scene, p: KeyPairParams) -> str:
        return scene.asset(p.public_key).path.read_text(encoding="utf-8").strip()

    def requests(self, scene: Scene, p: KeyPairParams) -> list[Request]:
        path = scene.asset(p.public_key).path
        key = self._public_key(scene, p) if path.exists() else Later("PUBLIC_KEY")
        return [Request("POST", "compute", ("os-keypairs",), {"keypair": {"name": p.name, "public_key": key}})]

    def create(self, scene: Scene, p: KeyPairParams) -> None:
        scene.who.sdk.compute.create_keypair(name=p.name, public_key=self._public_key(scene, p))

    def candidates(self, scene: Scene, p: KeyPairParams) -> Iterable[Thing]:
        return _key_pairs(scene, p.name)

    def keep(self, scene: Scene, p: KeyPairParams, thing: Thing) -> Thing:
        return {"name": thing["name"], "user": thing["user"], "fingerprint": thing["fingerprint"]}

    def remove(self, scene: Scene, thing: Thing) -> bool:
        path = ("os-keypairs", thing["name"])
        query = {"version": KEY_PAIRS_VERSION, "user_id": thing["user"]}
        owned = scene.admin.get("compute", "os-keypairs", **query)["keypairs"]
        # The learner may have replaced the lab's key pair by one of the same name: that one is not ours.
        if not any(one["keypair"]["fingerprint"] == thing["fingerprint"] for one in owned):
            return False
        return scene.admin.delete("compute", *path, **query)

    def look(self, scene: Scene, p: KeyPairParams) -> Command:
        return Command(("keypair", "show", p.name))

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']} ({thing['fingerprint']})"

    def named(self, scene: Scene, name: str) -> Thing | None:
        return next(iter(_key_pairs(scene, name)), None)


def _key_pairs(scene: Scene, name: str) -> list[Thing]:
    # A key pair has no id: it is known by its name and its owner.
    user = scene.user_id()
    found = scene.admin.get("compute", "os-keypairs", version=KEY_PAIRS_VERSION, user_id=user)["keypairs"]
    return [one["keypair"] | {"user": user} for one in found if one["keypair"]["name"] == name]


class FlavorParams(Params):
    name: Name
    vcpus: Annotated[int, Field(ge=1)]
    ram: Annotated[int, Field(ge=1)]  # MiB
    disk: Annotated[int, Field(ge=0)]  # GiB


class Flavor(Kind[FlavorParams]):
    """A flavor: how large an instance is."""

    name = "flavor"
    params = FlavorParams

    def title(self, p: FlavorParams) -> str:
        return f"flavor {p.name}"

    def horizon(self, p: FlavorParams) -> str:
        return f"Admin ▸ Compute ▸ Flavors ▸ Create Flavor: {p.name}, VCPUs {p.vcpus}, RAM {p.ram} MB, Disk {p.disk} GB"

    def commands(self, scene: Scene, p: FlavorParams) -> list[Command]:
        size = ("--vcpus", str(p.vcpus), "--ram", str(p.ram), "--disk", str(p.disk))
        return [Command(("flavor", "create", *size, p.name))]

    def requests(self, scene: Scene, p: FlavorParams) -> list[Request]:
        flavor = {"name": p.name, "vcpus": p.vcpus, "ram": p.ram, "disk": p.disk}
        return [Request("POST", "compute", ("flavors",), {"flavor": flavor})]

    def create(self, scene: Scene, p: FlavorParams) -> None:
        scene.who.sdk.compute.create_flavor(name=p.name, vcpus=p.vcpus, ram=p.ram, disk=p.disk)

    def candidates(self, scene: Scene, p: FlavorParams) -> Iterable[Thing]:
        return _flavors(scene, p.name)

    def compare(self, scene: Scene, p: FlavorParams, thing: Thing) -> list[Difference]:
        return differing([(key, getattr(p, key), thing[key]) for key in ("vcpus", "ram", "disk")])

    def remove(self, scene: Scene, thing: Thing) -> bool:
        return scene.admin.delete("compute", "flavors", thing["id"])

    def look(self, scene: Scene, p: FlavorParams) -> Command:
        return Command(("flavor", "show", p.name))

    def named(self, scene: Scene, name: str) -> Thing | None:
        return next(iter(_flavors(scene, name)), None)


def _flavors(scene: Scene, name: str) -> list[Thing]:
    found = scene.admin.get("compute", "flavors", "detail", is_public="None")["flavors"]
    return [flavor for flavor in found if flavor["name"] == name]


class ServerParams(Params):
    name: Name
    image: Annotated[Ref, Refers("image")]
    flavor: Annotated[Ref, Refers("flavor")]
    networks: list[Annotated[Ref, Refers("network")]] = Field(min_length=1)
    key_pair: Annotated[Ref, Refers("key-pair")] | None = None
    security_groups: list[Annotated[Ref, Refers("security-group")]] = []


class Server(Kind[ServerParams]):
    """A server (an instance): image, flavor, networks, key and security groups come together."""

    name = "server"
    params = ServerParams

    def title(self, p: ServerParams) -> str:
        return f"instance {p.name}"

    def horizon(self, p: ServerParams) -> str:
        return (
            f"Project ▸ Compute ▸ Instances ▸ Launch Instance: Instance Name {p.name}; Source (Create New Volume: No); "
            "Flavor; Networks; Security Groups; Key Pair"
        )

    def commands(self, scene: Scene, p: ServerParams) -> list[Command]:
        key = ("--key-name", scene.called(p.key_pair)) if p.key_pair else ()
        words = (
            *("server", "create", "--image", scene.called(p.image), "--flavor", scene.called(p.flavor)),
            *(word for network in p.networks for word in ("--network", scene.called(network))),
            *(word for group in p.security_groups for word in ("--security-group", scene.called(group))),
            *key,
        )
        return [Command((*words, "--wait", p.name))]

    def requests(self, scene: Scene, p: ServerParams) -> list[Request]:
        server: dict[str, object] = {
            "name": p.name,
            "imageRef": scene.id_of(p.image, "image"),
            "flavorRef": scene.id_of(p.flavor, "flavor"),
            "networks": [{"uuid": scene.id_of(network, "network")} for network in p.networks],
        } | self._optional(scene, p)
        later = Later(shouted(p.name, "id"))
        return [
            Request("POST", "compute", ("servers",), {"server": server}, saves={later.name: ("server", "id")}),
            Request("GET", "compute", ("servers", later), until=(("server", "status"), "ACTIVE")),
        ]

    def _optional(self, scene: Scene, p: ServerParams) -> dict[str, object]:
        """The parts of the request that the session may leave out."""
        found: dict[str, object] = {"key_name": scene.called(p.key_pair)} if p.key_pair else {}
        if p.security_groups:
            found["security_groups"] = [{"name": scene.called(group)} for group in p.security_groups]
        return found

    def create(self, scene: Scene, p: ServerParams) -> None:
        scene.who.sdk.compute.create_server(
            name=p.name,
            image_id=scene.thing(p.image, "image")["id"],
            flavor_id=scene.thing(p.flavor, "flavor")["id"],
            networks=[{"uuid": scene.thing(network, "network")["id"]} for network in p.networks],
            **self._optional(scene, p),
        )

    def settle_seconds(self, p: ServerParams) -> float:
        return BOOT_SECONDS

    def candidates(self, scene: Scene, p: ServerParams) -> Iterable[Thing]:
        return find_servers(scene, p.name)

    def compare(self, scene: Scene, p: ServerParams, thing: Thing) -> list[Difference]:
        right = thing["image"] and thing["image"]["id"] == scene.thing(p.image, "image")["id"]
        image = scene.called(p.image) if right else "another one" if thing["image"] else "none (it boots from a volume)"
        found = differing(
            [
                ("status", "ACTIVE", _status(thing)),
                ("image", scene.called(p.image), image),
                ("flavor", scene.called(p.flavor), thing["flavor"]["original_name"]),
                ("key pair", scene.called(p.key_pair) if p.key_pair else None, thing["key_name"]),
            ]
        )
        networks = {scene.called(network) for network in p.networks}
        if networks - set(thing["addresses"]):
            found.append(Difference("networks", _listing(networks), _listing(thing["addresses"])))
        groups = {scene.called(group) for group in p.security_groups}
        actual = {group["name"] for group in thing.get("security_groups", [])}
        if groups - actual:
            found.append(Difference("security groups", _listing(groups), _listing(actual)))
        return found

    def remove(self, scene: Scene, thing: Thing) -> bool:
        removed = scene.admin.delete("compute", "servers", thing["id"])
        if removed:
            path = ("servers", thing["id"])
            until(lambda: scene.admin.gone("compute", *path), f"instance {thing['name']} to be deleted", seconds=120)
        return removed

    def look(self, scene: Scene, p: ServerParams) -> Command:
        return Command(("server", "show", p.name))

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']} is {thing['status']}"

    def named(self, scene: Scene, name: str) -> Thing | None:
        return next(iter(find_servers(scene, name)), None)


def _status(server: Thing) -> str:
    """The status, with what Nova says went wrong."""
    fault = server.get("fault", {}).get("message")
    return f"{server['status']} ({fault})" if fault else str(server["status"])


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def find_servers(scene: Scene, name: str) -> list[Thing]:
    """Servers of this name in the project of the one who acts."""
    query = {"all_tenants": "1", "project_id": scene.project_id()}
    # Nova reads `name` as a regular expression, so the project's few servers are compared here.
    found = scene.admin.get("compute", "servers", "detail", version=VERSION, **query)["servers"]
    return [server for server in found if server["name"] == name]


class AttachmentParams(Params):
    server: Annotated[Ref, Refers("server")]
    volume: Annotated[Ref, Refers("volume")]


class Attachment(Kind[AttachmentParams]):
    """A volume attached to a server: the guest sees another disk."""

    name = "attachment"
    params = AttachmentParams

    def title(self, p: AttachmentParams) -> str:
        return "volume attachment"

    def horizon(self, p: AttachmentParams) -> str:
        return "Project ▸ Volumes ▸ Volumes ▸ (the volume's menu) Manage Attachments: Attach to Instance"

    def commands(self, scene: Scene, p: AttachmentParams) -> list[Command]:
        return [Command(("server", "add", "volume", scene.called(p.server), scene.called(p.volume)))]

    def requests(self, scene: Scene, p: AttachmentParams) -> list[Request]:
        server, volume = scene.id_of(p.server, "server"), scene.id_of(p.volume, "volume")
        body = {"volumeAttachment": {"volumeId": volume}}
        return [
            Request("POST", "compute", ("servers", server, "os-volume_attachments"), body),
            Request("GET", "block-storage", ("volumes", volume), until=(("volume", "status"), "in-use")),
        ]

    def create(self, scene: Scene, p: AttachmentParams) -> None:
        server, volume = scene.thing(p.server, "server")["id"], scene.thing(p.volume, "volume")["id"]
        scene.who.sdk.compute.create_volume_attachment(server, volume_id=volume)

    def candidates(self, scene: Scene, p: AttachmentParams) -> Iterable[Thing]:
        server, volume = scene.thing(p.server, "server"), scene.thing(p.volume, "volume")
        found = scene.admin.get("compute", "servers", server["id"], "os-volume_attachments")["volumeAttachments"]
        attached = {"server": server["id"], "volume": volume["id"], "status": volume["status"]}
        return [attached | {"device": one["device"]} for one in found if one["volumeId"] == volume["id"]]

    def compare(self, scene: Scene, p: AttachmentParams, thing: Thing) -> list[Difference]:
        return differing([("volume status", "in-use", thing["status"])])

    def keep(self, scene: Scene, p: AttachmentParams, thing: Thing) -> Thing:
        return {"server": thing["server"], "volume": thing["volume"]}

    def remove(self, scene: Scene, thing: Thing) -> bool:
        volume = thing["volume"]
        removed = scene.admin.delete("compute", "servers", thing["server"], "os-volume_attachments", volume)
        if removed:
            until(lambda: _detached(scene, volume), "the volume to be detached", seconds=120)
        return removed

    def look(self, scene: Scene, p: AttachmentParams) -> Command:
        return Command(("server", "volume", "list", scene.called(p.server)))

    def shown(self, thing: Thing) -> str:
        return f"attached as {thing['device']}, the volume is {thing['status']}"

    def expected(self, p: AttachmentParams) -> str:
        return "the volume is attached to the server"


def _detached(scene: Scene, volume: str) -> bool:
    found = scene.admin.get("block-storage", "volumes", "detail", all_tenants="1")["volumes"]
    return not any(one["id"] == volume and one["status"] not in ("available", "error") for one in found)


KINDS: list[Kind[Any]] = [KeyPair(), Flavor(), Server(), Attachment()]
