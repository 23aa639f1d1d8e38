"""Vagrant, in one thin module around python-vagrant: what it says becomes progress, what it refuses becomes one of our errors.

Vagrant runs in a session of its own with its output in a file, so that it survives a `lab` that dies (kill -9, a lost
terminal): the next `lab up` finds it at work and follows it. Ctrl-C ends it, too.
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

from stacklab.download import without_password
from stacklab.errors import DownloadFailed, MissingProgram, NotEnoughSpace, VmFailed
from stacklab.files import read_json, write_json
from stacklab.lab import Lab
from stacklab.stages import Progress

INSTALL = "sudo apt-get install -y vagrant vagrant-libvirt"
PROVIDER = "libvirt"
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
        self._note = self.directory / "vagrant.json"  # the Vagrant that runs, if one does
        self._program: Any = _Program(self)  # python-vagrant is not typed

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
        if shutil.which("vagrant") is None:
            raise MissingProgram("vagrant is not installed", advice=INSTALL)
        self._program.order(lambda _: None, seconds)
        try:
            plugins = {one.name: one.version for one in self._program.plugin_list()}
            version = self._program.version()
        except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
            raise VmFailed(f"vagrant does not run: {error}", advice="vagrant --version shows what it says") from error
        if "vagrant-libvirt" not in plugins:
            raise MissingProgram("Vagrant's libvirt plugin is not installed", advice=INSTALL)
        return f"Vagrant {version}, vagrant-libvirt {plugins['vagrant-libvirt'].split(',')[0]}"

    def box(self, name: str, version: str) -> Path | None:
        """Where this version of a box lies in Vagrant's store, or None. Reads the store: asking Vagrant takes seconds."""
        folder = self.home / "boxes" / name.replace("/", "-VAGRANTSLASH-") / version
        # since 2.4 there is a folder for the architecture in between
        found = sorted([*folder.glob(f"{PROVIDER}/metadata.json"), *folder.glob(f"*/{PROVIDER}/metadata.json")])
        return found[0].parent if found else None

    def box_versions(self, name: str) -> list[str]:
        """The versions of a box in Vagrant's store."""
        folder = self.home / "boxes" / name.replace("/", "-VAGRANTSLASH-")
        return sorted(path.name for path in folder.glob("*") if self.box(name, path.name))

    # --- doing -----------------------------------------------------------------------------------------------------

    def add_box(
        self, name: str, version: str | None, url: str | None, checksum: str | None, progress: Progress
    ) -> None:
        """Fetch a box into Vagrant's store. `url` None: from where Vagrant looks up names. Raises VmFailed, DownloadFailed.

        What `url` names gets exactly the `version` and must have the SHA-256 `checksum` (if given): both go through a
        catalogue of one entry, as Vagrant takes no version for a file. A `url` that is a catalogue itself (.json) is used
        as it is.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        source = url
        if url and not url.endswith(".json"):
            entry: dict[str, Any] = {"name": PROVIDER, "url": url}
            if checksum:
                entry |= {"checksum_type": "sha256", "checksum": checksum}
            catalogue = self.directory / "box.json"
            write_json(catalogue, {"name": name, "versions": [{"version": version or "0", "providers": [entry]}]})
            source = str(catalogue)
        began = time.time()

        def so_far() -> str | None:
            parts = [path.stat() for path in (self.home / "tmp").glob("box*") if path.is_file()]
            size = sum(one.st_size for one in parts if one.st_mtime >= began)
            return f"{size / 1e6:.0f} MB of the box so far" if size else None

        self._program.order(progress, BOX_SECONDS, so_far, ["--box-version", version] if version else [])
        try:
            self._program.box_add(name, source, provider=PROVIDER, force=True)
        except DownloadFailed as error:
            place = without_password(url) if url else "where Vagrant looks up names"
            raise DownloadFailed(
                f"the box {name} could not be fetched from {place}: {without_password(error.message)}",
                advice="lab up … --box PATH|URL takes one that you have; lab prefetch PROFILE --only box fetches it "
                f"beforehand; lab doctor --on libvirt looks at the way to it; Vagrant's log: {self.log}",
            ) from error

    def up(self, progress: Progress, idle: Idle) -> None:
        """Create the VM and wait for its SSH. What is half made when this fails stays, to be looked at and gone on with."""
        self._program.order(progress, UP_SECONDS, idle, ["--no-destroy-on-error"])
        self._program.up(provider=PROVIDER)

    def destroy(self, progress: Progress) -> None:
        """Remove the VM that `.vagrant` knows of, and Vagrant's notes on it."""
        self._program.order(progress, DESTROY_SECONDS)
        self._program.destroy()

    def has_key(self) -> bool:
        """Whether Vagrant has given the VM a key of its own."""
        return (self.data / "private_key").exists()

    def key(self) -> Path:
        """The private key that lets in: Vagrant's own for this VM, else the well-known one of a box whose key was kept."""
        own = self.data / "private_key"
        return own if own.exists() else self.home / "insecure_private_key"

    # --- a Vagrant that runs on ------------------------------------------------------------------------------------

    def at_work(self) -> str | None:
        """What a Vagrant that an earlier `lab` started is still doing ("up", "box add", …), or None."""
        note = read_json(self._note)
        if note and _started(int(note["pid"])) == note["started"]:
            return str(note["what"])
        return None

    def follow(self, progress: Progress, seconds: float, idle: Idle = lambda: None) -> None:
        """Wait for the end of a Vagrant that is at work, passing on what it says. How it ended cannot be told."""
        note = read_json(self._note)
        if note and self.at_work():
            _Follower(self.log, int(note["offset"]), progress, idle).until(
                lambda: None if self.at_work() else 0, seconds, f"vagrant {note['what']}"
            )

    def end(self) -> None:
        """End a Vagrant that is at work: asked first, then told."""
        note = read_json(self._note)
        if note and self.at_work():
            _end(int(note["pid"]), lambda: self.at_work() is None)
        self._note.unlink(missing_ok=True)

    def _begin(self, what: str, process: subprocess.Popen[bytes], offset: int) -> None:
        write_json(self._note, {"what": what, "pid": process.pid, "started": _started(process.pid), "offset": offset})


MACHINE = "vm"
"""The VM's name inside the Vagrantfile."""


class _Program(vagrant.Vagrant):
    """python-vagrant with another way of running the program: see the module."""

    def __init__(self, ours: Vagrant) -> None:
        super().__init__(root=str(ours.directory))  # type: ignore[no-untyped-call]
        self.ours = ours
        self.order(lambda _: None, DESTROY_SECONDS)
        self.env = {
            **{
                key: value
                for key, value in os.environ.items()
                if key not in ("VAGRANT_VAGRANTFILE", "VAGRANT_DOTFILE_PATH")
            },
            "VAGRANT_CWD": str(ours.directory),
            "VAGRANT_DEFAULT_PROVIDER": PROVIDER,
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
        }

    def order(self, progress: Progress, seconds: float, idle: Idle = lambda: None, options: Sequence[str] = ()) -> None:
        """How the next command is run: who hears of it, for how long at most, and options that python-vagrant does not know."""
        self.progress, self.seconds, self.idle, self.options = progress, seconds, idle, list(options)

    def _run_vagrant_command(self, args: Sequence[str | None]) -> str:
        make: Any = self._make_vagrant_command
        # A question about no VM may come before the lab has a directory.
        root = self.root if Path(self.root).is_dir() else "/"
        try:
            return subprocess.run(
                make(args), cwd=root, env={**self.env, "VAGRANT_CWD": root}, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=self.seconds, check=True,
            ).stdout  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise VmFailed(
                f"vagrant {args[0]} did not answer within {self.seconds:.0f} s",
                advice="vagrant --version shows what it says",
            ) from error

    def _call_vagrant_command(self, args: Sequence[str | None]) -> None:
        words = [word for word in args if word is not None]
        what = " ".join(words[:2]) if words[0] == "box" else words[0]
        if shutil.which("vagrant") is None:
            raise MissingProgram("vagrant is not installed", advice=INSTALL)
        make: Any = self._make_vagrant_command
        command = make([*words, *self.options, "--machine-readable"])
        log = self.ours.log
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("ab") as output:
            output.write(f"\n# {time.strftime('%F %T')} vagrant {what}\n".encode())
            output.flush()
            offset = output.tell()
            process = subprocess.Popen(
                command, cwd=self.root, env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self.ours._begin(what, process, offset)
        follower = _Follower(log, offset, self.progress, self.idle)
        try:
            status = follower.until(process.poll, self.seconds, f"vagrant {what}")
        except BaseException:
            _end(process.pid, lambda: process.poll() is not None)
            process.wait()
            raise
        finally:
            self.ours._note.unlink(missing_ok=True)
        if status:
            raise follower.error(what, status)


class _Follower:
    """Reads Vagrant's machine-readable output from a file: `time,target,ui,kind,text` and `time,,error-exit,class,text`."""

    def __init__(self, log: Path, offset: int, progress: Progress, idle: Idle) -> None:
        self.log, self.offset, self.progress, self.idle = log, offset, progress, idle
        self.trouble: list[str] = []
        self._told = ""

    def until(self, ended: Callable[[], int | None], seconds: float, what: str) -> int:
        """Wait until `ended` gives a status, which is returned. Raises VmFailed after `seconds`."""
        deadline = time.monotonic() + seconds
        looked = time.monotonic()
        while True:
            status = ended()
            if self._read():
                looked = time.monotonic()
            if status is not None:
                return status
            if time.monotonic() > deadline:
                raise VmFailed(
                    f"{what} did not end within {seconds / 60:.0f} minutes; it last said: {self._told or 'nothing'}",
                    advice=f"its log: {self.log}; the same command goes on",
                )
            if time.monotonic() - looked > 2:
                looked = time.monotonic()
                self._tell(self.idle())
            time.sleep(POLL)

    def _read(self) -> bool:
        with self.log.open("rb") as file:
            file.seek(self.offset)
            lines = file.readlines()
        whole = [line for line in lines if line.endswith(b"\n")]
        self.offset += sum(map(len, whole))
        for line in whole:
            self._hear(line.decode(errors="replace").rstrip("\n"))
        return bool(whole)

    def _hear(self, line: str) -> None:
        parts = line.split(",", 4)
        if len(parts) < 4 or not parts[0].isdigit():
            if line.strip() and not line.startswith("#"):
                self.trouble.append(line.strip())
            return
        text = ",".join(parts[4:]).replace("%!(VAGRANT_COMMA)", ",").replace("\\n", "\n").replace("\\r", "")
        if parts[2] == "ui" and parts[3] == "error":
            self.trouble += [one.strip() for one in text.splitlines() if one.strip()]
        elif parts[2] == "ui" and text.strip():
            # "==> vm: Creating…", "    vm: SSH address…"
            said = text.strip().splitlines()[0].removeprefix("==>").strip().removeprefix(f"{MACHINE}:").strip()
            if said and not said.startswith(("--", "Warning:")):
                self._tell(said)

    def _tell(self, text: str | None) -> None:
        if text and text != self._told:
            self._told = text
            self.progress(text)

    def error(self, what: str, status: int) -> Exception:
        """What a failed Vagrant said, in one line."""
        said = (
            " ".join(list(dict.fromkeys(self.trouble))[:4])
            or f"it ended with status {status}; it last said: {self._told or 'nothing'}"
        )
        if "No space left" in " ".join(self.trouble):
            return NotEnoughSpace(
                f"vagrant {what}: no space left on the disk", advice=f"free some space, then go on; its log: {self.log}"
            )
        if what == "box add" and (why := not_fetched(self.trouble)):
            return DownloadFailed(why, advice=f"its log: {self.log}; the same command goes on")
        brief = said if len(said) <= 300 else f"{said[:299]}…"
        return VmFailed(f"vagrant {what}: {brief}", advice=f"its log: {self.log}; the same command goes on")


def not_fetched(lines: Sequence[str]) -> str | None:
    """Why Vagrant could not download something, without its words around that; None: that is not what it complains of.

    The words are Vagrant's (templates/locales/en.yml: downloader_error, box_add_short_not_found); the reason is curl's.
    """
    text = " ".join(dict.fromkeys(lines))
    for words, before in (("while downloading the remote file", "try again."), ("in the remote catalog", "Error: ")):
        if words in text:
            return text.partition(before)[2].strip() or "Vagrant does not say why"
    return None


def _started(pid: int) -> int | None:
    """When a process began (clock ticks since boot), or None if it is gone or only waits to be buried."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] == "Z" else int(words[19])


def _end(pid: int, ended: Callable[[], bool]) -> None:
    """End Vagrant (the leader of its session) and what it started: Ctrl-C first, as Vagrant cleans up on that."""
    for number, seconds in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, 5)):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if ended():
                return
            time.sleep(0.1)
