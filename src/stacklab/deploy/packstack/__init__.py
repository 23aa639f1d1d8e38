"""PackStack in DevStack's place: what the machine is to be like, the answer file, and packstack run like stack.sh."""

from __future__ import annotations

from stacklab.deploy.deployment import Deployment
from stacklab.deploy.packstack import answers, switching
from stacklab.deploy.prepare import preparation, source
from stacklab.deploy.stack import stacking
from stacklab.stages import Stage

__all__ = ["stages"]

NEEDLESS = ("user", "accounts", "pip")
"""Parts of the preparation that are for DevStack alone: PackStack works as root, and installs packages."""


def stages(deployment: Deployment) -> list[Stage]:
    """Everything from a machine that lets us in to one on which packstack has ended well."""
    return [
        *(stage for stage in preparation.stages(deployment) if stage.name not in NEEDLESS),
        *switching.stages(deployment),
        *source.file_stages(deployment),
        *answers.stages(deployment),
        *stacking.stages(deployment),
    ]
