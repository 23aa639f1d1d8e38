"""Talking to a service on the machine's loopback: the first bytes it answers prove more than an open port or a process."""

from __future__ import annotations

from dataclasses import dataclass

from stacklab.conditions.fixes.fix import probe
from stacklab.machines.base import Machine

ANSWER_SECONDS = 10

# bash alone can do it, and every supported distribution has bash: neither curl nor netcat need be there.
SAY = r"""exec 3<>"/dev/tcp/127.0.0.1/$0" || exit 7
printf "$1" >&3
head -c "$2" <&3 | od -An -v -tx1"""


@dataclass(frozen=True)
class Talk:
    """`say`: what opens the conversation (printf's format); `answer`: how the answer begins; `what`: who answers."""

    port: int
    say: str
    answer: bytes
    what: str
    length: int = 0

    def hold(self, machine: Machine) -> tuple[bool, str]:
        """Whether it answered as it should, and what happened, in words."""
        count = self.length or len(self.answer)
        argv = ("timeout", str(ANSWER_SECONDS), "bash", "-c", SAY, str(self.port), self.say, str(count))
        done = probe(machine, *argv)
        if done.status == 124:
            return False, f"nothing came from port {self.port} within {ANSWER_SECONDS} s"
        said = bytes.fromhex("".join(done.out.split()))
        if not said:
            return False, f"nobody answers on port {self.port}"
        if not said.startswith(self.answer):
            return False, f"port {self.port} answered {said!r}, which is not {self.what}"
        return True, f"{self.what} answers on port {self.port}"


HTTP = Talk(80, r"HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n", b"HTTP/1.", "HTTP")
MEMCACHED = Talk(11211, r"version\r\n", b"VERSION", "memcached")
AMQP = Talk(5672, r"AMQP\x00\x00\x09\x01", b"\x01\x00\x00", "AMQP")
"""AMQP 0-9-1: the protocol header; a broker opens with a method frame (type 1) on channel 0."""

MYSQL = Talk(3306, "", b"", "the database", length=5)
"""The server speaks first. Any greeting will do: an error packet ("host not allowed") comes from a living server, too."""


def http_status(machine: Machine, path: str) -> int | None:
    """The status of GET `path` on port 80; None if nothing came that is HTTP."""
    count = len("HTTP/1.1 200")
    # The path goes through printf's format: a percent sign must be doubled.
    say = f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n".replace("%", "%%")
    done = probe(machine, "timeout", "60", "bash", "-c", SAY, "80", say, str(count), seconds=90)
    said = bytes.fromhex("".join(done.out.split())).decode(errors="replace").split()
    return int(said[1]) if len(said) == 2 and said[0].startswith("HTTP/") and said[1].isdigit() else None
