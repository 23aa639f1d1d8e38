"""This machine, as the same `Machine` that a machine at the other end of SSH is."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from stacklab.errors import CommandFailed, SudoRefused
from stacklab.files import disk_error, write_atomic
from stacklab.machines.base import COMMAND_SECONDS, Finished, shown


class LocalMachine:
    """See `stacklab.machines.base.Machine`. Nothing is ever done as anybody but the user who runs us."""

    name = "this machine"

    def run(
        self,
        *argv: str,
        user: str | None = None,
        given: str | bytes | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = COMMAND_SECONDS,
        check: bool = True,
    ) -> Finished:
        self._only_us(user)
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if given is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # so that its children can be ended with it
            )
        except (FileNotFoundError, PermissionError) as error:
            done = Finished(shown(argv), 127, "", f"{argv[0]}: {error.strerror}")
            return self._checked(done) if check else done
        try:
            out, err = process.communicate(given.encode() if isinstance(given, str) else given, timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, 9)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandFailed(f"'{shown(argv)}' did not end within {seconds:.0f} s on {self.name}") from error
            raise
        status = process.returncode if process.returncode >= 0 else 128 - process.returncode
        texts = (out.decode(errors="replace"), err.decode(errors="replace"))
        done = Finished(shown(argv), status, *texts, time.monotonic() - began)
        return self._checked(done) if check else done

    def script(
        self, text: str, *arguments: str, user: str | None = None, seconds: float = COMMAND_SECONDS, check: bool = True
    ) -> Finished:
        return self.run("sh", "-eu", "-s", "--", *arguments, user=user, given=text, seconds=seconds, check=check)

    def put(self, path: str, content: str | bytes, *, mode: int = 0o644, owner: str = "root") -> None:
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, content, mode=mode)
        except OSError as error:
            raise disk_error(error, target) from error

    def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        try:
            with Path(path).open("rb") as file:
                file.seek(offset)
                return file.read(-1 if limit is None else limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CommandFailed(f"cannot read {path}: {error.strerror}") from error

    def close(self) -> None:
        """There is no connection."""

    def has(self, program: str) -> bool:
        """Whether a program can be found."""
        return shutil.which(program) is not None

    def _only_us(self, user: str | None) -> None:
        if user == "root" and os.geteuid() != 0:
            raise SudoRefused(f"{self.name}: nothing is done as root here")

    def _checked(self, done: Finished) -> Finished:
        if not done.ok:
            last = (done.err or done.out).strip().splitlines()[-1:]
            said = f": {last[0]}" if last else ""
            raise CommandFailed(
                f"'{done.command}' ended with status {done.status} on {self.name}{said}",
                status=done.status,
                said=done.err,
            )
        return done
