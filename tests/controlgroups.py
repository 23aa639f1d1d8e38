"""Control groups of the machine, which come and go while one looks."""

from __future__ import annotations

import os
from pathlib import Path


def control_groups(prefix: str) -> list[Path]:
    """Those whose name begins so. By os.walk, because rglob raises when a directory goes while it looks."""
    return [Path(inner) for inner, _, _ in os.walk("/sys/fs/cgroup") if Path(inner).name.startswith(prefix)]
