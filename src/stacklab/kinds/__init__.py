"""Kinds of steps, by the names that session files use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from stacklab.kinds.kind import Kind

MODULES = (
    *("identity", "quota", "network", "security_group", "image", "compute", "volume", "look", "instance", "repair"),
    *("component", "shell", "terms", "roles", "deployed", "written", "exchange", "large_object", "objects"),
    *("tls", "catalogue", "tls_check"),
)
"""Those of this room that have kinds."""

KINDS: dict[str, Kind[Any]] = {
    kind.name: kind for module in MODULES for kind in import_module(f"{__name__}.{module}").KINDS
}
