"""Kinds of steps, by the names that session files use."""

from __future__ import annotations

from typing import Any

from stacklab.kinds import (
    catalogue,
    component,
    compute,
    deployed,
    exchange,
    identity,
    image,
    instance,
    large_object,
    look,
    network,
    objects,
    quota,
    repair,
    roles,
    security_group,
    shell,
    terms,
    tls,
    tls_check,
    volume,
    written,
)
from stacklab.kinds.kind import Kind

KINDS: dict[str, Kind[Any]] = {
    kind.name: kind
    for module in (
        identity,
        quota,
        network,
        security_group,
        image,
        compute,
        volume,
        look,
        instance,
        repair,
        component,
        shell,
        terms,
        roles,
        deployed,
        written,
        exchange,
        large_object,
        objects,
        tls,
        catalogue,
        tls_check,
    )
    for kind in module.KINDS
}
