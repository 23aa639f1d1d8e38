"""Inside an instance: its console, and a login over SSH."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from stacklab.cloud.access import SshEndpoint
from stacklab.errors import MissingProgram, StepFailed
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import AssetRef, Name, Params, Ref, Refers
from stacklab.kinds.kind import Difference, Kind, mentions
from stacklab.kinds.narration import Command, Request

BOOT_SECONDS = 240
"""How long a guest may take to boot: seconds with KVM, up to a few minutes emulated on a busy machine."""

TRY_SECONDS = 20
"""How long one attempt to log in may take."""


def running(context: Context, ref: Ref) -> Thing:
    """The server that a reference means. Raises Absent, also for one that does not run."""
    server = context.thing(ref, "server")
    if server["status"] != "ACTIVE":
        raise Absent(f"a running instance ({server['name']} is {server['status']})")
    return server


class ConsoleParams(Params):
    """An instance, and what its log must say."""

    server: Annotated[Ref, Refers("server")]
    """The instance whose log is read."""
    contains: Annotated[str, Field(min_length=1)]
    """What must be in it."""


class ConsoleLog(Kind[ConsoleParams]):
    """The console log: what the guest wrote to its serial port while it booted."""

    name = "console"
    params = ConsoleParams
    words = "console log"
    menus = "Project ▸ Compute ▸ Instances ▸ (the instance) ▸ Log"
    leaves = False
    settle_seconds = BOOT_SECONDS
    settles_first = True

    def commands(self, context: Context, p: ConsoleParams) -> list[Command]:
        return [Command(("console", "log", "show", "--lines", "40", context.name_of(p.server)))]

    def requests(self, context: Context, p: ConsoleParams) -> list[Request]:
        server = context.id_of(p.server, "server")
        return [Request("POST", "compute", ("servers", server, "action"), {"os-getConsoleOutput": {"length": 40}})]

    def _log(self, context: Context, p: ConsoleParams, lines: str) -> str:
        server = running(context, p.server)
        body = {"os-getConsoleOutput": {"length": lines}}
        return str(context.admin.post("compute", "servers", server["id"], "action", body=body)["output"])

    def find_all(self, context: Context, p: ConsoleParams) -> Iterable[Thing]:
        return [{"name": "console log", "output": self._log(context, p, "2000")}]

    def compare(self, context: Context, p: ConsoleParams, thing: Thing) -> list[Difference]:
        if p.contains in thing["output"]:
            return []
        return [Difference("console log", f"contains {p.contains!r}", self.shown(thing))]

    def shown(self, thing: Thing) -> str:
        lines = [line.strip() for line in thing["output"].splitlines() if line.strip()]
        return f"last line: {lines[-1]!r}" if lines else "empty so far"

    def show_command(self, context: Context, p: ConsoleParams) -> Command:
        return self.commands(context, p)[0]

    def applicable(self, context: Context, p: ConsoleParams) -> str | None:
        return context.lacks("hypervisor")

    def expected(self, p: ConsoleParams) -> str:
        return f"the console log contains {p.contains!r}"


def pins(key: Path) -> Path:
    """Where the host keys of the instances that this private key opens are kept, a file for each."""
    return key.parent / "known_hosts"


def ssh_options(key: Path, server_id: str, endpoint: SshEndpoint) -> tuple[str, ...]:
    """ssh's options for an instance. Known hosts are kept for each instance, because the next one at the same port has
    another host key; the first key that an instance shows is pinned for its life."""
    known = pins(key) / server_id
    known.parent.mkdir(mode=0o700, exist_ok=True)
    pinned = ("-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={known}")
    quiet = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={TRY_SECONDS}", "-o", "LogLevel=ERROR")
    return ("-i", str(key), "-o", "IdentitiesOnly=yes", "-p", str(endpoint.port), *endpoint.through, *pinned, *quiet)


class LoginParams(Params):
    """A login, and what is run there."""

    server: Annotated[Ref, Refers("server")]
    """The instance."""
    address: Annotated[Ref, Refers("floating-ip")]
    """The floating IP by which it is reached."""
    key: AssetRef
    """The file with the private key."""
    user: Name | None = None
    """As whom; without it as the image's own user."""
    command: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """What is run there, a word each."""
    shows: str = ""
    """What must be in its output."""


class Login(Kind[LoginParams]):
    """A login over SSH with the private half of the key pair."""

    name = "login"
    params = LoginParams
    words = "login over SSH"
    menus = "(not in Horizon: a terminal on your machine)"
    leaves = False

    def _ssh(self, context: Context, p: LoginParams) -> tuple[str, ...]:
        """The ssh command, words apart. On paper, before there is a server, with the variables of its address."""
        key = context.asset(p.key)
        user = p.user or key.attributes.get("login_user", "cirros")
        server = context.thing(p.server, "server")
        # Where something else stands for the floating IP, there must be one for it to stand for.
        context.thing(p.address, "floating-ip")
        endpoint = context.ssh_endpoint(server["id"])
        if endpoint is None:
            raise Absent("a way into the instance from this machine")
        return (*ssh_options(key.path, server["id"], endpoint), f"{user}@{endpoint.host}", shlex.join(p.command))

    def commands(self, context: Context, p: LoginParams) -> list[Command]:
        try:
            return [Command(self._ssh(context, p), program="ssh")]
        except Absent:
            key = context.asset(p.key)
            user = p.user or key.attributes.get("login_user", "cirros")
            return [Command(("-i", str(key.path), f"{user}@FLOATING-IP", shlex.join(p.command)), program="ssh")]

    def requests(self, context: Context, p: LoginParams) -> list[Request]:
        return []

    def run(self, context: Context, p: LoginParams) -> None:
        running(context, p.server)
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            result = self._try(context, p)
            if result.returncode == 0:
                endpoint = context.ssh_endpoint(context.thing(p.server, "server")["id"])
                if endpoint and endpoint.why:
                    context.say(f"(by {endpoint.host}:{endpoint.port}, {endpoint.why})")
                context.say(result.stdout.strip())
                return
            if "Host key verification failed" in result.stderr:
                raise StepFailed(
                    "the instance shows another host key than at its first login",
                    advice="a guest whose power was cut while it made its keys has new ones; "
                    f"if that is so: rm {shlex.quote(str(pins(context.asset(p.key).path)))}/*",
                )
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"no login within {BOOT_SECONDS} s: {_last_line(result.stderr)}", advice="look at the console log"
                )
            time.sleep(2)

    def _try(self, context: Context, p: LoginParams) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", *self._ssh(context, p)]
        try:
            return subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=2 * TRY_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, 255, "", f"no answer within {2 * TRY_SECONDS} s")
        except FileNotFoundError as error:
            raise MissingProgram(
                "ssh is not installed", advice="install the package openssh-client (or openssh-clients)"
            ) from error

    def find_all(self, context: Context, p: LoginParams) -> Iterable[Thing]:
        running(context, p.server)
        result = self._try(context, p)
        return [
            {"name": "login", "status": result.returncode, "output": result.stdout, "said": _last_line(result.stderr)}
        ]

    def compare(self, context: Context, p: LoginParams, thing: Thing) -> list[Difference]:
        if thing["status"] != 0:
            return [
                Difference("login", f"'{shlex.join(p.command)}' runs", f"status {thing['status']}: {thing['said']}")
            ]
        if not mentions(thing["output"], p.shows):
            return [Difference("output", f"contains {p.shows!r}", thing["output"].strip())]
        return []

    def shown(self, thing: Thing) -> str:
        return str(thing["output"].strip())

    def show_command(self, context: Context, p: LoginParams) -> Command:
        return Command(("ssh", context.name_of(p.server), "--", *p.command), program="lab")

    def applicable(self, context: Context, p: LoginParams) -> str | None:
        return context.lacks("hypervisor") or context.lacks("data_path")

    def expected(self, p: LoginParams) -> str:
        return f"the key opens the instance, and '{shlex.join(p.command)}' runs in it"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "(it said nothing)")


KINDS: list[Kind[Any]] = [ConsoleLog(), Login()]
