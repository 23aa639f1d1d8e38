"""What `lab` decided for this cloud, read from run/cloud.json below the cloud's home (the current directory)."""

import json
import os
from pathlib import Path

HOME = Path(os.environ.get("LABCLOUD_HOME", "."))


def read():
    """ports, urls and services, as `lab` wrote them."""
    return json.loads((HOME / "run" / "cloud.json").read_text())


def configuration(name):
    """The path of one of the cloud's configuration files, as a string."""
    return str(HOME / "conf" / name)
