"""One lab's own cloud: made from the template, given its secrets and ports, kept up with both."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from stacklab.errors import HomeUnavailable, LabDamaged, NotEnoughSpace, StageFailed
from stacklab.files import disk_error, precious_exists, read_precious, write_atomic, write_precious
from stacklab.homes.embedded import config, mirror, software, supervision, template
from stacklab.homes.embedded.layout import DATA, DATABASES, Layout
from stacklab.homes.embedded.ovn import chosen, find_network
from stacklab.homes.embedded.services import PORT_NAMES, USERS, choose_ports
from stacklab.lab import Lab
from stacklab.stages import Progress


class Cloud:
    """The files of one lab's cloud."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.layout = Layout(lab.home_directory)
        self.notes: list[str] = []

    @property
    def exists(self) -> bool:
        return precious_exists(self.layout.made_file)

    @property
    def made(self) -> dict[str, Any]:
        """What the cloud was made as; empty while there is none. Raises LabDamaged."""
        return dict(read_precious(self.layout.made_file) or {})

    @property
    def ports(self) -> dict[str, int]:
        return dict(self.made.get("ports", {}))

    def passwords(self) -> dict[str, str]:
        """Every secret of this cloud by name; generated the first time."""
        return {name: self.lab.secret(name) for name in ("admin", "learner", "swift_hash", "dashboard", *USERS)}

    # --- making ----------------------------------------------------------------------------------------------------

    def why_ready(self) -> str | None:
        """Why nothing needs making: it is made, with this software, its files are as they were made, and it runs or can."""
        made = self.made
        if not made or self._damaged():
            return None
        if supervision.is_running(self.layout):
            return "it runs"
        self.check_software(made)
        if made != {**made, **self._wanted(self.ports)} or choose_ports(PORT_NAMES, self.ports)[1]:
            return None
        return "made already; its ports are free"

    def check_software(self, made: dict[str, object]) -> None:
        """A cloud's databases belong to the software that made them."""
        if made.get("requirements") != software.requirements_key():
            raise HomeUnavailable(
                f"the cloud of lab '{self.lab.name}' was made by another version of OpenStack's software",
                advice="lab destroy, then lab up, makes it anew: what was made in it is lost then",
            )

    def _wanted(self, ports: dict[str, int]) -> dict[str, object]:
        """What made.json says of a cloud that is up to date."""
        return {
            "requirements": software.requirements_key(),
            "environment": software.key(),
            "configuration": self._configuration_key(),
            "ports": ports,
            "network": chosen(self.layout),
        }

    def note(self, **values: object) -> None:
        """Put `values` into made.json."""
        write_precious(self.layout.made_file, {**self.made, **values})

    def make(self, progress: Progress) -> str:
        """Make the cloud, or bring the one that is there up to date with its ports and configuration."""
        try:
            return (
                self._repair(progress) if self.exists and supervision.is_running(self.layout) else self._make(progress)
            )
        except OSError as error:
            raise disk_error(error, self.layout.home) from error

    def _repair(self, progress: Progress) -> str:
        """Of a cloud that runs: what others than its services read. Those have read their configuration, and keep it."""
        if not self._keys_are_whole():
            self.personalise(self.passwords())
        damaged = self._damaged()
        for path in damaged:
            config.write(path, self._files()[path])
        return f"written anew: {', '.join(str(path.relative_to(self.layout.home)) for path in damaged) or 'keys'}"

    def _make(self, progress: Progress) -> str:
        self.layout.make()
        made = self.made
        new = not made
        chosen, replaced = choose_ports(PORT_NAMES, self.ports, seconds=2)
        for name in replaced:
            self.notes.append(
                f"port {self.ports[name]} of {name} is taken by another program; it is {chosen[name]} now"
            )
        if new:
            mirror.remove(self.layout.checkpoints)
            self.copy_template(progress)
        else:
            self.note(configuration=None, ports=chosen)  # until all of it is written, nothing is up to date
        progress("giving it its own passwords, keys and addresses")
        passwords = self.passwords()
        self._write_files(made, chosen, passwords)
        self.personalise(passwords)
        self.note(**self._wanted(chosen))
        software.register(software.environments(), self.layout.home)
        # not before: until now this cloud may have needed the environment before
        software.prune_environments(software.environments(), keep=software.key())
        if replaced:
            return "; ".join(self.notes[-len(replaced) :])
        return "a new cloud with secrets of its own" if new else "its configuration is up to date"

    def _write_files(self, made: dict[str, Any], ports: dict[str, int], passwords: dict[str, str]) -> None:
        """All of them where something that they hold has changed; else what is damaged, and what was edited stays."""
        all_of_them = made != {**made, **self._wanted(ports)}
        for path, text in config.files(self.layout, software.path(), ports, passwords).items():
            if all_of_them or config.is_damaged(path, text):
                config.write(path, text)

    def copy_template(self, progress: Progress) -> None:
        """Databases as they were first made, and nothing in them; what is here goes."""
        progress("copying the template")
        for name in ("db", *DATA):
            mirror.remove(self.layout.home / name)
        self.layout.make()
        template.copy_to(self.layout.db, progress)

    def personalise(self, passwords: dict[str, str]) -> None:
        """Runs with the cloud's Python, which has bcrypt; the passwords go through a pipe."""
        users = {name: passwords[name] for name in ("admin", *USERS)}
        python = software.path() / "bin" / "python"
        result = subprocess.run(
            [python, "-m", "labcloud.personalise"], input=json.dumps({"passwords": users}).encode(),
            env=config.process_environment(self.layout, software.path()), cwd=self.layout.home, capture_output=True,
            check=False, timeout=120,
        )  # fmt: skip
        if result.returncode:
            complaint = result.stderr.decode(errors="replace").strip()
            if "database or disk is full" in complaint or "No space left" in complaint:
                raise NotEnoughSpace(
                    "the disk is full; the cloud was not changed",
                    advice="free some space and run the same command again",
                )
            self.check_databases()
            raise StageFailed(
                f"the cloud could not be given its passwords and addresses: {complaint.splitlines()[-1:]}"
            )

    # --- what may be damaged ---------------------------------------------------------------------------------------

    def check_databases(self) -> None:
        """Raises LabDamaged where a database cannot be read: only a checkpoint has its content."""
        for name in DATABASES:
            path = self.layout.db / name
            try:
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
                    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                    trouble = answer if answer != "ok" else "" if tables else "it is empty"
            except sqlite3.Error as error:
                trouble = str(error)
            if trouble:
                raise LabDamaged(
                    f"the database {path} is damaged ({trouble})",
                    advice="lab reset puts it back as it was at the start, lab goto as it was at a place that was saved; "
                    "what was made since is lost then, and nothing else is left to come back from",
                )

    def put_back_compute_id(self) -> None:
        """Nova's service for instances does not start with another id than the one that the database knows it by."""
        with closing(
            sqlite3.connect(f"file:{self.layout.db / 'nova_cell1.db'}?mode=ro", uri=True, timeout=60)
        ) as connection:
            known = connection.execute("SELECT uuid FROM compute_nodes WHERE deleted = 0").fetchall()
        path = self.layout.home / "nova" / "compute_id"
        if len(known) == 1 and (not path.exists() or path.read_bytes().decode(errors="replace").strip() != known[0][0]):
            write_atomic(path, known[0][0])

    def _files(self) -> dict[Path, str]:
        return config.files(self.layout, software.path(), self.ports, self.passwords())

    def _damaged(self) -> list[Path]:
        """Files that can be made again and are damaged; a service that runs has read its own, so they can wait."""
        if not self._keys_are_whole():
            return [self.layout.home / "keys"]
        running = supervision.is_running(self.layout)
        wanted = {
            path: text
            for path, text in self._files().items()
            if not (running and path.is_relative_to(self.layout.conf))
        }
        return [path for path, text in wanted.items() if config.is_damaged(path, text)]

    def _keys_are_whole(self) -> bool:
        """Keystone's: what is no key would make it refuse everybody."""
        for name in ("fernet", "credential"):
            for number in ("0", "1"):
                try:
                    key = (self.layout.home / "keys" / name / number).read_bytes()
                    if len(base64.b64decode(key, altchars=b"-_", validate=True)) != 32:
                        return False
                except (FileNotFoundError, binascii.Error):
                    return False
        return True

    def put_back_configuration(self) -> list[str]:
        """Write every configuration file anew that is not as `make` wrote it; returns the services that read those.

        Nothing is touched where `make` itself would now write something else: then it is for `lab up` to do.
        """
        made = self.made
        if made != {**made, **self._wanted(self.ports)}:
            return []
        changed = {path: text for path, text in self._files().items() if not config.is_as_made(path, text)}
        for path, text in changed.items():
            config.write(path, text)
        return sorted({config.reader_of(path) for path in changed if path.is_relative_to(self.layout.conf)})

    def _configuration_key(self) -> str:
        """Changes when a rendered file would: other templates of ours, another place, QEMU come or gone."""
        machine = f"{config.find_hypervisor()} {find_network(self.layout)}"
        digest = hashlib.sha256(f"{self.layout.home} {software.path()} {machine}".encode())
        for source in sorted(Path(config.TEMPLATES).glob("*.j2")):
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]
