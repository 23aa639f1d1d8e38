"""Vagrant for one lab, through python-vagrant: what it says becomes progress, what it refuses becomes one of our errors.

Vagrant runs in a session of its own, with its output in a file. A `lab` that is killed (-9, a lost terminal) may leave one at
work; the next command ends it, found by its process number and its start time, before it begins anything of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import vagrant

from stacklab.deploy.profile.model import Box
from stacklab.download import without_password
from stacklab.errors import DownloadFailed, LabError, MissingProgram, NotEnoughSpace, VmFailed
from stacklab.files import read_derivable, write_json
from stacklab.lab import Lab
from stacklab.stages import Progress
from stacklab.waiting import looks

INSTALL = "sudo apt-get install -y vagrant vagrant-libvirt"
PROVIDER = "libvirt"
MACHINE = "vm"
"""The VM's name inside the Vagrantfile."""
POLL = 0.3
PATIENCE = 15
"""Seconds that Vagrant gets to end by itself after Ctrl-C."""
BOX_SECONDS, UP_SECONDS, DESTROY_SECONDS = 7200, 2700, 600
Idle = Callable[[], str | None]


class Vagrant:
    """Vagrant for one lab: its Vagrantfile, its `.vagrant` and its log lie in the lab's home directory."""

    def __init__(self, lab: Lab) -> None:
        self.directory = lab.home_directory
        self.log = self.directory / "vagrant.log"
        self._note = self.directory / "vagrant.json"
        """The Vagrant that runs, if one does: its process number and when it started."""
        self._program = _Program(self)

    # --- what is there ---------------------------------------------------------------------------------------------

    @property
    def home(self) -> Path:
        """Where Vagrant keeps boxes (VAGRANT_HOME, else ~/.vagrant.d)."""
        return Path(os.environ.get("VAGRANT_HOME") or "~/.vagrant.d").expanduser()

    @property
    def data(self) -> Path:
        """What Vagrant knows of this lab's VM: its id, its key."""
        return self.directory / ".vagrant" / "machines" / MACHINE / PROVIDER

    def check(self, seconds: float = DESTROY_SECONDS) -> str:
        """The versions of Vagrant and its libvirt plugin, by asking it (seconds). Raises MissingProgram, VmFailed."""
        program = self._program.heard_by(seconds=seconds)
        plugins, version = {plugin.name: plugin.version for plugin in program.plugin_list()}, program.version()
        if "vagrant-libvirt" in plugins:
            return f"Vagrant {version}, vagrant-libvirt {plugins['vagrant-libvirt'].split(',')[0]}"
        raise MissingProgram("Vagrant's libvirt plugin is not installed", advice=INSTALL)

    def box(self, name: str, version: str) -> Path | None:
        """Where this version of a box lies in Vagrant's store, or None. Reads the store: asking Vagrant takes seconds."""
        folder = self._box_folder(name) / version
        # since 2.4 there is a folder for the architecture in between
        for description in sorted(
            [*folder.glob(f"{PROVIDER}/metadata.json"), *folder.glob(f"*/{PROVIDER}/metadata.json")]
        ):
            return description.parent
        return None

    def stored_version(self, box: Box) -> str | None:
        """The version of this box in Vagrant's store, if it is there; the newest, where any will do."""
        there = sorted(path.name for path in self._box_folder(box.name).glob("*") if self.box(box.name, path.name))
        return next((version for version in reversed(there) if box.version in (None, version)), None)

    def _box_folder(self, name: str) -> Path:
        return self.home / "boxes" / name.replace("/", "-VAGRANTSLASH-")

    def key(self) -> Path:
        """The private key that lets in: Vagrant's own for this VM, else the well-known one of a box whose key was kept."""
        own = self.data / "private_key"
        return own if own.exists() else self.home / "insecure_private_key"

    # --- doing -----------------------------------------------------------------------------------------------------

    def add_box(self, box: Box, progress: Progress) -> None:
        """Fetch a box into Vagrant's store. Raises VmFailed, DownloadFailed.

        What has a URL gets exactly the version and must have the checksum that are wanted: both go through a catalogue of
        one entry, as Vagrant takes no version for a file. A URL that is a catalogue itself (.json) is used as it is.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        source = box.url
        if box.url and not box.url.endswith(".json"):
            entry = {"name": PROVIDER, "url": box.url}
            if box.sha256:
                entry |= {"checksum_type": "sha256", "checksum": box.sha256}
            source = str(self.directory / "box.json")
            versions = [{"version": box.version or "0", "providers": [entry]}]
            write_json(Path(source), {"name": box.name, "versions": versions})
        began = time.time()

        def so_far() -> str | None:
            parts = [path.stat() for path in (self.home / "tmp").glob("box*") if path.is_file()]
            size = sum(part.st_size for part in parts if part.st_mtime >= began)
            return f"{size / 1e6:.0f} MB of the box so far" if size else None

        options = ["--box-version", box.version] if box.version else []
        try:
            program = self._program.heard_by(progress, BOX_SECONDS, so_far, options)
            program.box_add(box.name, source, provider=PROVIDER, force=True)
        except DownloadFailed as error:
            place = without_password(box.url) if box.url else "where Vagrant looks up names"
            raise DownloadFailed(
                f"the box {box.name} could not be fetched from {place}: {without_password(error.message)}",
                advice="lab up … --box PATH|URL takes one that you have; lab prefetch PROFILE --only box fetches it "
                f"beforehand; lab doctor --on libvirt looks at the way to it; Vagrant's log: {self.log}",
            ) from error

    def up(self, progress: Progress, idle: Idle) -> None:
        """Create the VM and wait for its SSH. What is half made when this fails stays, to be looked at and gone on with."""
        self._program.heard_by(progress, UP_SECONDS, idle, ["--no-destroy-on-error"]).up(provider=PROVIDER)

    def destroy(self, progress: Progress) -> None:
        """Remove the VM that `.vagrant` knows of, and Vagrant's notes on it."""
        self._program.heard_by(progress).destroy()

    def end(self) -> None:
        """End the Vagrant that a killed `lab` left at work, and nothing that only has its process number by now."""
        note = read_derivable(self._note)
        if note and started(int(note["pid"])) == note["started"]:
            _end(int(note["pid"]), lambda: started(int(note["pid"])) != note["started"])
        self._note.unlink(missing_ok=True)

    # --- the program -----------------------------------------------------------------------------------------------

    def _environment(self, directory: Path) -> dict[str, str]:
        """Vagrant reads `directory`'s Vagrantfile whatever the user's own settings say, and asks nobody for newer versions."""
        others = ("VAGRANT_VAGRANTFILE", "VAGRANT_DOTFILE_PATH")
        return {name: value for name, value in os.environ.items() if name not in others} | {
            "VAGRANT_CWD": str(directory),
            "VAGRANT_DEFAULT_PROVIDER": PROVIDER,
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
        }

    def ask(self, words: Sequence[str], seconds: float) -> str:
        """What a question about no VM is answered. It may come before the lab has a directory."""
        directory = self.directory if self.directory.is_dir() else Path("/")
        try:
            return subprocess.run(
                [_installed(), *words], cwd=directory, env=self._environment(directory), stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=seconds, check=True,
            ).stdout  # fmt: skip
        except subprocess.TimeoutExpired:
            trouble = f"vagrant {words[0]} did not answer within {seconds:.0f} s"
        except (subprocess.CalledProcessError, OSError) as error:
            trouble = f"vagrant does not run: {error}"
        raise VmFailed(trouble, advice="vagrant --version shows what it says")

    def run(self, words: Sequence[str], progress: Progress, seconds: float, idle: Idle) -> None:
        """Run it to its end. `idle` has something to tell whenever Vagrant is silent for a while."""
        what = " ".join(words[:2]) if words[0] == "box" else words[0]
        command = [_installed(), *words, "--machine-readable"]
        self.end()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log.open("ab") as output:
            output.write(f"\n# {time.strftime('%F %T')} vagrant {what}\n".encode())
            output.flush()
            heard = _Output(self.log, output.tell(), progress)
            process = subprocess.Popen(
                command, cwd=self.directory, env=self._environment(self.directory), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            write_json(self._note, {"pid": process.pid, "started": started(process.pid)})
            status = self._follow(process, heard, seconds, idle, what)
        except BaseException:
            _end(process.pid, lambda: process.poll() is not None)
            process.wait()
            raise
        finally:
            self._note.unlink(missing_ok=True)
        if status:
            raise self._error(what, status, heard)

    def _follow(self, process: subprocess.Popen[bytes], heard: _Output, seconds: float, idle: Idle, what: str) -> int:
        listened = time.monotonic()
        for status in looks(process.poll, seconds, POLL):
            if heard.read():
                listened = time.monotonic()
            if status is not None:
                return status
            if time.monotonic() - listened > 2:
                listened = time.monotonic()
                heard.tell(idle())
        raise VmFailed(
            f"vagrant {what} did not end within {seconds / 60:.0f} minutes; it last said: {heard.last or 'nothing'}",
            advice=f"its log: {self.log}; the same command goes on",
        )

    def _error(self, what: str, status: int, heard: _Output) -> LabError:
        """What a failed Vagrant said, in one line."""
        if "No space left" in " ".join(heard.trouble):
            return NotEnoughSpace(
                f"vagrant {what}: no space left on the disk", advice=f"free some space, then go on; its log: {self.log}"
            )
        advice = f"its log: {self.log}; the same command goes on"
        if what == "box add" and (why := not_fetched(heard.trouble)):
            return DownloadFailed(why, advice=advice)
        words = " ".join(list(dict.fromkeys(heard.trouble))[:4])
        words = words or f"it ended with status {status}; it last said: {heard.last or 'nothing'}"
        return VmFailed(f"vagrant {what}: {words if len(words) <= 300 else f'{words[:299]}…'}", advice=advice)


class _Program(vagrant.Vagrant):
    """python-vagrant, which knows Vagrant's commands and reads its answers; how they are run is ours."""

    def __init__(self, ours: Vagrant) -> None:
        super().__init__(root=str(ours.directory))  # type: ignore[no-untyped-call]
        self.ours = ours

    def heard_by(
        self,
        progress: Progress = lambda detail: None,
        seconds: float = DESTROY_SECONDS,
        idle: Idle = lambda: None,
        options: Sequence[str] = (),
    ) -> Any:
        """Who hears of the next commands, how long each may take, and options that python-vagrant lacks."""
        self.progress, self.seconds, self.idle, self.options = progress, seconds, idle, options
        return self

    def _run_vagrant_command(self, args: Sequence[str | None]) -> str:
        return self.ours.ask([word for word in args if word is not None], self.seconds)

    def _call_vagrant_command(self, args: Sequence[str | None]) -> None:
        words = [*(word for word in args if word is not None), *self.options]
        self.ours.run(words, self.progress, self.seconds, self.idle)


class _Output:
    """Vagrant's machine-readable output in a file: `time,target,ui,kind,text` and `time,,error-exit,class,text`."""

    def __init__(self, log: Path, offset: int, progress: Progress) -> None:
        self.log, self.offset, self.progress = log, offset, progress
        self.trouble: list[str] = []
        self.last = ""

    def read(self) -> bool:
        """Pass on the lines that are new; whether there were some."""
        with self.log.open("rb") as file:
            file.seek(self.offset)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        self.offset += sum(map(len, lines))
        for line in lines:
            self._hear(line.decode(errors="replace").rstrip("\n"))
        return bool(lines)

    def _hear(self, line: str) -> None:
        parts = line.split(",", 4)
        if len(parts) < 4 or not parts[0].isdigit():
            if line.strip() and not line.startswith("#"):
                self.trouble.append(line.strip())
            return
        text = ",".join(parts[4:]).replace("%!(VAGRANT_COMMA)", ",").replace("\\n", "\n").replace("\\r", "").strip()
        if parts[2] == "ui" and parts[3] == "error":
            self.trouble += [part.strip() for part in text.splitlines() if part.strip()]
        elif parts[2] == "ui" and text:
            # "==> vm: Creating…", "    vm: SSH address…"
            words = text.splitlines()[0].removeprefix("==>").strip().removeprefix(f"{MACHINE}:").strip()
            if not words.startswith(("--", "Warning:")):
                self.tell(words)

    def tell(self, text: str | None) -> None:
        """Report this, unless it is nothing new."""
        if text and text != self.last:
            self.last = text
            self.progress(text)


def not_fetched(lines: Sequence[str]) -> str | None:
    """Why Vagrant could not download something, without its words around that; None: that is not what it complains of.

    The words are Vagrant's (templates/locales/en.yml: downloader_error, box_add_short_not_found); the reason is curl's.
    """
    text = " ".join(dict.fromkeys(lines))
    for words, before in (("while downloading the remote file", "try again."), ("in the remote catalog", "Error: ")):
        if words in text:
            return text.partition(before)[2].strip() or "Vagrant does not say why"
    return None


def started(pid: int) -> int | None:
    """When a process began (clock ticks since boot), or None if it is gone or only waits to be buried."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])


def _installed() -> str:
    program = shutil.which("vagrant")
    if program is None:
        raise MissingProgram("vagrant is not installed", advice=INSTALL)
    return program


def _end(pid: int, ended: Callable[[], bool]) -> None:
    """End Vagrant (the leader of its session) and what it started: Ctrl-C first, as Vagrant cleans up on that."""
    for number, seconds in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, 5)):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        if any(looks(ended, seconds, 0.1)):
            return
