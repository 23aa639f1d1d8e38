"""Nova: key pairs, flavors, servers, and volumes attached to them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from stacklab.errors import StepFailed
from stacklab.kinds.context import Context, Thing
from stacklab.kinds.declaration import AssetRef, Name, Params, Ref, Refers, shouted
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.named import NamedKind, NamedParams
from stacklab.kinds.narration import Command, Later, Request
from stacklab.waiting import NotYet, until

VERSION = "2.47"
"""Shows a server's flavor in full; the newest that Pike has is 2.53."""

KEY_PAIRS_VERSION = "2.10"
"""The first in which an admin may look at another user's key pairs."""

BOOT_SECONDS = 600
"""How long a server may take to become ACTIVE; emulated guests on a busy laptop have been seen to need minutes."""


class KeyPairParams(Params):
    """A key pair, of a public key that is there."""

    name: Name
    """Its name."""
    public_key: AssetRef
    """The file with the public key."""


class KeyPair(Kind[KeyPairParams]):
    """A key pair: the public half is put into an instance, the private half opens it."""

    name = "key-pair"
    params = KeyPairParams
    words = "key pair {name}"
    menus = "Project ▸ Compute ▸ Key Pairs ▸ Import Public Key: Key Pair Name {name}, Key Type SSH Key, the file"
    tells = "{name} ({fingerprint})"

    def commands(self, context: Context, p: KeyPairParams) -> list[Command]:
        return [Command(("keypair", "create", "--public-key", str(context.asset(p.public_key).path), p.name))]

    def _public_key(self, context: Context, p: KeyPairParams) -> str:
        return context.asset(p.public_key).path.read_text(encoding="utf-8").strip()

    def requests(self, context: Context, p: KeyPairParams) -> list[Request]:
        path = context.asset(p.public_key).path
        key = self._public_key(context, p) if path.exists() else Later("PUBLIC_KEY")
        return [Request("POST", "compute", ("os-keypairs",), {"keypair": {"name": p.name, "public_key": key}})]

    def find_all(self, context: Context, p: KeyPairParams) -> Iterable[Thing]:
        return _key_pairs(context, p.name)

    def undo_data(self, context: Context, p: KeyPairParams, thing: Thing) -> Thing:
        return {"name": thing["name"], "user": thing["user"], "fingerprint": thing["fingerprint"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        path = ("os-keypairs", thing["name"])
        query = {"version": KEY_PAIRS_VERSION, "user_id": thing["user"]}
        owned = context.admin.get("compute", "os-keypairs", **query)["keypairs"]
        # The learner may have replaced the lab's key pair by one of the same name: that one is not ours.
        if not any(row["keypair"]["fingerprint"] == thing["fingerprint"] for row in owned):
            return False
        return context.admin.delete("compute", *path, **query)

    def show_command(self, context: Context, p: KeyPairParams) -> Command:
        return Command(("keypair", "show", p.name))

    def named(self, context: Context, name: str) -> Thing | None:
        return next(iter(_key_pairs(context, name)), None)


def _key_pairs(context: Context, name: str) -> list[Thing]:
    # A key pair has no id: it is known by its name and its owner.
    user = context.user_id()
    rows = context.admin.get("compute", "os-keypairs", version=KEY_PAIRS_VERSION, user_id=user)["keypairs"]
    return [row["keypair"] | {"user": user} for row in rows if row["keypair"]["name"] == name]


class FlavorParams(NamedParams):
    """How large an instance of this flavor is."""

    vcpus: Annotated[int, Field(ge=1, le=256)]
    """How many processors."""
    ram: Annotated[int, Field(ge=1, le=1 << 21)]  # MiB
    """Memory in MiB."""
    disk: Annotated[int, Field(ge=0, le=16384)]  # GiB
    """The root disk in GiB; 0: as large as the image."""


class Flavor(NamedKind[FlavorParams]):
    """A flavor: how large an instance is."""

    name = "flavor"
    params = FlavorParams
    menus = "Admin ▸ Compute ▸ Flavors ▸ Create Flavor: {name}, VCPUs {vcpus}, RAM {ram} MB, Disk {disk} GB"

    def query(self, context: Context, name: str) -> dict[str, str]:
        return {"is_public": "None"}  # those of all projects; they cannot be asked for by name

    def commands(self, context: Context, p: FlavorParams) -> list[Command]:
        size = ("--vcpus", str(p.vcpus), "--ram", str(p.ram), "--disk", str(p.disk))
        return [Command(("flavor", "create", *size, p.name))]

    def requests(self, context: Context, p: FlavorParams) -> list[Request]:
        flavor = {"name": p.name, "vcpus": p.vcpus, "ram": p.ram, "disk": p.disk}
        return [Request("POST", "compute", ("flavors",), {"flavor": flavor})]

    def compare(self, context: Context, p: FlavorParams, thing: Thing) -> list[Difference]:
        sizes = [(key, getattr(p, key), thing[key]) for key in ("vcpus", "ram", "disk")]
        more = [("ephemeral", 0, thing["OS-FLV-EXT-DATA:ephemeral"]), ("swap", 0, thing["swap"] or 0)]
        return differing([*sizes, *more, ("public", True, thing["os-flavor-access:is_public"])])


class ServerParams(NamedParams):
    """What an instance is made of."""

    image: Annotated[Ref, Refers("image")]
    """The image that it starts from."""
    flavor: Annotated[Ref, Refers("flavor")]
    """How large it is."""
    networks: list[Annotated[Ref, Refers("network")]] = Field(min_length=1)
    """The networks that it has a port in."""
    key_pair: Annotated[Ref, Refers("key-pair")] | None = None
    """The key pair whose public half is put into it."""
    security_groups: list[Annotated[Ref, Refers("security-group")]] = []
    """What may come in."""


class Server(NamedKind[ServerParams]):
    """A server (an instance): image, flavor, networks, key and security groups come together."""

    name = "server"
    params = ServerParams
    tells = "{name} is {status}"
    settle_seconds = BOOT_SECONDS
    version = VERSION
    gone_within = 120

    def query(self, context: Context, name: str) -> dict[str, str]:
        # Nova reads `name` as a regular expression, so the project's few servers are compared here.
        return {"all_tenants": "1", "project_id": context.project_id()}

    def horizon(self, p: ServerParams) -> str:
        return (
            f"Project ▸ Compute ▸ Instances ▸ Launch Instance: Instance Name {p.name}; Source (Create New Volume: No); "
            "Flavor; Networks; Security Groups; Key Pair"
        )

    def commands(self, context: Context, p: ServerParams) -> list[Command]:
        key = ("--key-name", context.name_of(p.key_pair)) if p.key_pair else ()
        words = (
            *("server", "create", "--image", context.name_of(p.image), "--flavor", context.name_of(p.flavor)),
            *(word for network in p.networks for word in ("--network", context.name_of(network))),
            *(word for group in p.security_groups for word in ("--security-group", context.name_of(group))),
            *key,
        )
        return [Command((*words, "--wait", p.name))]

    def requests(self, context: Context, p: ServerParams) -> list[Request]:
        server: dict[str, object] = {
            "name": p.name,
            "imageRef": context.id_of(p.image, "image"),
            "flavorRef": context.id_of(p.flavor, "flavor"),
            "networks": [{"uuid": context.id_of(network, "network")} for network in p.networks],
        } | self._optional(context, p)
        later = Later(shouted(p.name, "id"))
        return [
            Request("POST", "compute", ("servers",), {"server": server}, saves={later.name: ("server", "id")}),
            Request("GET", "compute", ("servers", later), until=(("server", "status"), "ACTIVE")),
        ]

    def _optional(self, context: Context, p: ServerParams) -> dict[str, object]:
        """The parts of the request that the session may leave out."""
        more: dict[str, object] = {"key_name": context.name_of(p.key_pair)} if p.key_pair else {}
        if p.security_groups:
            more["security_groups"] = [{"name": context.name_of(group)} for group in p.security_groups]
        return more

    def compare(self, context: Context, p: ServerParams, thing: Thing) -> list[Difference]:
        right = thing["image"] and thing["image"]["id"] == context.thing(p.image, "image")["id"]
        image = (
            context.name_of(p.image) if right else "another one" if thing["image"] else "none (it boots from a volume)"
        )
        differences = differing(
            [
                ("status", "ACTIVE", _status(thing)),
                ("image", context.name_of(p.image), image),
                ("flavor", context.name_of(p.flavor), thing["flavor"]["original_name"]),
                ("key pair", context.name_of(p.key_pair) if p.key_pair else None, thing["key_name"]),
            ]
        )
        networks = {context.name_of(network) for network in p.networks}
        if networks - set(thing["addresses"]):
            differences.append(Difference("networks", _listing(networks), _listing(thing["addresses"])))
        groups = {context.name_of(group) for group in p.security_groups}
        actual = {group["name"] for group in thing.get("security_groups", [])}
        if groups - actual:
            differences.append(Difference("security groups", _listing(groups), _listing(actual)))
        return differences


def _status(server: Thing) -> str:
    """The status, with what Nova says went wrong."""
    fault = server.get("fault", {}).get("message")
    return f"{server['status']} ({fault})" if fault else str(server["status"])


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


class AttachmentParams(Params):
    """A server and a volume."""

    server: Annotated[Ref, Refers("server")]
    """The instance that gets another disk."""
    volume: Annotated[Ref, Refers("volume")]
    """The volume that becomes it."""


class Attachment(Kind[AttachmentParams]):
    """A volume attached to a server: the guest sees another disk."""

    name = "attachment"
    params = AttachmentParams
    words = "volume attachment"
    menus = "Project ▸ Volumes ▸ Volumes ▸ (the volume's menu) Manage Attachments: Attach to Instance"
    tells = "attached as {device}, the volume is {status}"
    expects = "the volume is attached to the server"

    def commands(self, context: Context, p: AttachmentParams) -> list[Command]:
        return [Command(("server", "add", "volume", context.name_of(p.server), context.name_of(p.volume)))]

    def requests(self, context: Context, p: AttachmentParams) -> list[Request]:
        server, volume = context.id_of(p.server, "server"), context.id_of(p.volume, "volume")
        body = {"volumeAttachment": {"volumeId": volume}}
        return [
            Request("POST", "compute", ("servers", server, "os-volume_attachments"), body),
            Request("GET", "block-storage", ("volumes", volume), until=(("volume", "status"), "in-use")),
        ]

    def find_all(self, context: Context, p: AttachmentParams) -> Iterable[Thing]:
        server, volume = context.thing(p.server, "server"), context.thing(p.volume, "volume")
        attachments = context.admin.get("compute", "servers", server["id"], "os-volume_attachments")[
            "volumeAttachments"
        ]
        attached = {"server": server["id"], "volume": volume["id"], "status": volume["status"]}
        return [attached | {"device": row["device"]} for row in attachments if row["volumeId"] == volume["id"]]

    def compare(self, context: Context, p: AttachmentParams, thing: Thing) -> list[Difference]:
        return differing([("volume status", "in-use", thing["status"])])

    def undo_data(self, context: Context, p: AttachmentParams, thing: Thing) -> Thing:
        return {"server": thing["server"], "volume": thing["volume"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        volume = thing["volume"]
        removed = context.admin.delete("compute", "servers", thing["server"], "os-volume_attachments", volume)
        if removed:
            until(
                lambda: _detached(context, volume) or NotYet("it is attached still"),
                "the volume's release",
                seconds=120,
                every=0.5,
                error=StepFailed,
            )
        return removed

    def show_command(self, context: Context, p: AttachmentParams) -> Command:
        return Command(("server", "volume", "list", context.name_of(p.server)))


def _detached(context: Context, volume: str) -> bool:
    rows = context.admin.get("block-storage", "volumes", "detail", all_tenants="1")["volumes"]
    return not any(row["id"] == volume and row["status"] not in ("available", "error") for row in rows)


GONE_SECONDS = 180
"""How long Nova may take to delete a server; a guest that is still booting lets go of a volume late."""


class ServerGoneParams(Params):
    """A server that is deleted, and what stays of it."""

    server: Annotated[Ref, Refers("server")]
    """The instance that is deleted."""
    keeps: Annotated[Ref, Refers("volume")]
    """The volume that outlives it."""


class ServerGone(Kind[ServerGoneParams]):
    """A server is deleted. Nova remembers it, and an administrator can list it; its volume is free for another one."""

    name = "server-gone"
    params = ServerGoneParams
    words = "deletion of the instance"
    menus = "Project ▸ Compute ▸ Instances ▸ (the instance's menu) Delete Instance"
    expects = "the instance was there and is deleted, and the volume is still there"
    settle_seconds = GONE_SECONDS

    def commands(self, context: Context, p: ServerGoneParams) -> list[Command]:
        return [
            Command(("server", "delete", "--wait", context.name_of(p.server))),
            Command(("volume", "show", context.name_of(p.keeps))),
        ]

    def requests(self, context: Context, p: ServerGoneParams) -> list[Request]:
        volume = context.id_of(p.keeps, "volume")
        return [
            Request("DELETE", "compute", ("servers", context.id_of(p.server, "server"))),
            Request("GET", "block-storage", ("volumes", volume), until=(("volume", "status"), "available")),
        ]

    def find_all(self, context: Context, p: ServerGoneParams) -> Iterable[Thing]:
        volume, name = context.thing(p.keeps, "volume"), context.name_of(p.server)
        if Server().by_name(context, name):
            return []
        # Only one that is younger than the volume can have had it: an earlier replay's, which was undone, does not count.
        deleted = [
            server for server in _deleted(context, name) if _moment(server["created"]) >= _moment(volume["created_at"])
        ]
        return [{"name": name, "ids": {server["id"] for server in deleted}, "volume": volume}] if deleted else []

    def compare(self, context: Context, p: ServerGoneParams, thing: Thing) -> list[Difference]:
        volume = thing["volume"]
        holding = {attachment.get("server_id") for attachment in volume.get("attachments", [])} & thing["ids"]
        if volume["status"] in ("available", "in-use") and not holding:
            return []
        return [Difference("volume", f"{volume['name']} is free for another instance", volume["status"])]

    def undo_data(self, context: Context, p: ServerGoneParams, thing: Thing) -> Thing:
        return {"name": thing["name"]}

    def remove(self, context: Context, thing: Thing) -> bool:
        return False  # there is nothing left of it

    def show_command(self, context: Context, p: ServerGoneParams) -> Command:
        return Command(("server", "list", "--deleted", "--all-projects", "--name", context.name_of(p.server)))

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']} is deleted, {thing['volume']['name']} is {thing['volume']['status']}"


def _deleted(context: Context, name: str) -> list[Thing]:
    """Servers of this name in the acting project that Nova remembers as deleted; only an admin may ask."""
    query = {"all_tenants": "1", "project_id": context.project_id(), "deleted": "true"}
    rows = context.admin.get("compute", "servers", "detail", version=VERSION, **query)["servers"]
    return [row for row in rows if row["name"] == name]


def _moment(text: str) -> datetime:
    """Nova writes a Z after its times, Cinder does not; both mean UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.replace(microsecond=0)  # Nova's are whole seconds


KINDS: list[Kind[Any]] = [KeyPair(), Flavor(), Server(), Attachment(), ServerGone()]
