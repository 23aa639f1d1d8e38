"""What Tempest expects to find in a cloud, made where it is missing; and what the cloud says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stacklab.kinds.context import Asset
from tests.tempest.scratch import House

ROLE = "ResellerAdmin"  # Swift's proxy has this name by default, and nobody makes the role; DevStack does
IMAGES = ("tempest", "tempest-alternative")
NETWORK = "public"
FLAVORS = ("m1.micro", "cirros256")  # 128 and 256 MiB: enough for both guest images


@dataclass(frozen=True)
class Facts:
    """Ids and abilities, as tempest.conf names them."""

    images: tuple[str, ...]
    image_file: Path
    image_format: str
    login: str
    flavors: tuple[str, ...]
    network: str
    network_name: str
    role: str
    region: str
    network_extensions: list[str]
    volume_extensions: list[str]
    object_apis: list[str]
    pools: list[str]
    newest: dict[str, str]


def prepare(house: House) -> Facts:
    """Make what is missing and look at the rest."""
    sdk, image = house.admin.sdk, house.assets.by_name()["guest-image"]()
    if sdk.identity.find_role(ROLE) is None:
        sdk.identity.create_role(name=ROLE)
    network, flavors = sdk.network.find_network(NETWORK), {flavor.name: flavor.id for flavor in sdk.compute.flavors()}
    assert network is not None
    objects = sdk.session.get(f"{_address(house)}/info").json()
    return Facts(
        images=tuple(_image(house, name, image) for name in IMAGES),
        image_file=image.path,
        image_format=image.attributes["disk_format"],
        login=house.assets.login_user,
        flavors=tuple(flavors[name] for name in FLAVORS),
        network=network.id,
        network_name=NETWORK,
        role=ROLE,
        region=str(sdk.config.get_region_name()),
        network_extensions=[extension.alias for extension in sdk.network.extensions()],
        volume_extensions=[extension.alias for extension in sdk.block_storage.extensions()],
        object_apis=sorted(set(objects) - {"swift"}),
        pools=[pool.capabilities["volume_backend_name"] for pool in sdk.block_storage.backend_pools()],
        newest={name: _newest(house, name) for name in ("compute", "placement", "block-storage")},
    )


def _image(house: House, name: str, image: Asset) -> str:
    sdk = house.admin.sdk
    found = sdk.image.find_image(name)
    if found is None:
        found = sdk.image.create_image(
            name=name,
            filename=str(image.path),
            container_format="bare",
            visibility="public",
            allow_duplicates=True,
            disk_format=image.attributes["disk_format"],
        )
    return str(found.id)


def _newest(house: House, service: str) -> str:
    """The highest microversion; Tempest knows some that no release has yet, so "latest" would promise too much."""
    data = house.admin.sdk.session.get_endpoint_data(service_type=service, interface="public")
    assert data is not None
    assert data.max_microversion is not None
    return ".".join(map(str, data.max_microversion))


def _address(house: House) -> str:
    return house.admin.endpoint("object-store").partition("/v1/")[0]
