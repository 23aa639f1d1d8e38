"""Kinds of steps, by the names that session files use."""

from __future__ import annotations

from typing import Any

from stacklab.kinds import (
    answer_file,
    catalogue,
    certificates,
    component,
    compute,
    departure,
    deployed,
    exchange,
    identity,
    image,
    inside,
    instance,
    large_object,
    local_conf,
    look,
    network,
    objects,
    quota,
    repair,
    roles,
    security_group,
    shell,
    terms,
    tls_check,
    tls_front,
    volume,
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
        local_conf,
        answer_file,
        departure,
        exchange,
        large_object,
        objects,
        certificates,
        tls_front,
        inside,
        catalogue,
        tls_check,
    )
    for kind in module.KINDS
}
