"""The cloud's own network namespace: where Open vSwitch, OVN and the guests are. It needs no root.

The supervisor holds it open, so it lives exactly as long as the cloud; whoever belongs into it enters by nsenter.
"""

import os
import subprocess

VARIABLE = "LABCLOUD_NAMESPACE"


def make():
    """Make one, and say in the environment of all services where it is. Raises OSError, CalledProcessError."""
    argv = ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec", "ip link set lo up; echo made; cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
        if maker.stdout.readline() != b"made\n":
            raise OSError("no network namespace can be made: unshare --user --map-root-user --net fails")
        held = [os.open(f"/proc/{maker.pid}/ns/{kind}", os.O_RDONLY) for kind in ("user", "net")]
        maker.stdin.close()
    os.environ[VARIABLE] = " ".join(f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in held)


def entering():
    """The words before a command that is to run in it; none where the cloud has no such namespace."""
    where = os.environ.get(VARIABLE)
    if not where:
        return []
    user, net = where.split()
    return ["nsenter", "--preserve-credentials", f"--user={user}", f"--net={net}"]
