"""What a session file may say in a step's `with:`: plain values, and references that are resolved, never pasted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$", max_length=60)]
# Not beginning with '-': to ssh and to the openstack client, which get names as arguments, that would be an option.
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f-\x9f/-][^\x00-\x1f\x7f-\x9f/]*$")
]


class Declaration(BaseModel):
    """Base of everything that is read from a session file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class StepRef(Declaration):
    """`{step: ID}`: whatever that earlier step declares."""

    step: Id
    """The id of the step."""


class SecretRef(Declaration):
    """`{secret: NAME}`: a password that the lab generated and keeps; it is never shown."""

    secret: Literal["learner"]
    """The name of the password."""


class AssetRef(Declaration):
    """`{asset: NAME}`: a file that the lab provides (`compressed-image` is the guest image after gzip)."""

    asset: Literal["guest-image", "compressed-image", "public-key", "private-key"]
    """The name of the file."""


Ref = StepRef | Name


@dataclass(frozen=True)
class Refers:
    """Marks a Ref field with the kinds it may point to; the loader checks it, and a bare name is looked up as the first."""

    kinds: tuple[str, ...]

    def __init__(self, *kinds: str) -> None:
        object.__setattr__(self, "kinds", kinds)


class Params(Declaration):
    """Base of every kind's parameters."""

    def references(self) -> list[tuple[str, StepRef, tuple[str, ...]]]:
        """Every StepRef in the parameters: (key, reference, kinds it may point to)."""
        references: list[tuple[str, StepRef, tuple[str, ...]]] = []
        for key, field in type(self).model_fields.items():
            allowed = next((m.kinds for m in _metadata(field) if isinstance(m, Refers)), ())
            value = getattr(self, key)
            references += [(key, item, allowed) for item in _flat(value) if isinstance(item, StepRef)]
            for item in _flat(value):
                if isinstance(item, Params):
                    references += item.references()
        return references


class NoParams(Params):
    """Nothing to choose: everything about it follows from the cloud."""


def _metadata(field: Any) -> list[Any]:
    """A field's markers, also those inside list[...] or Optional."""
    metadata = list(field.metadata)
    pending = [field.annotation]
    while pending:
        annotation = pending.pop()
        metadata += getattr(annotation, "__metadata__", ())
        pending += getattr(annotation, "__args__", ())
    return metadata


def _flat(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def shouted(*words: str) -> str:
    """`lab-net`, `id` → `LAB_NET_ID`: a shell variable's name."""
    return re.sub(r"[^A-Z0-9]+", "_", "_".join(words).upper())
