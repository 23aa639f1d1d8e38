"""One lab's own cloud: made from the template, given its secrets and ports, kept up with both."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from stacklab.errors import HomeUnavailable, NotEnoughSpace, StageFailed
from stacklab.files import disk_error, read_json, write_atomic, write_json
from stacklab.homes.embedded import config, ports, shared, software, supervision, template
from stacklab.homes.embedded.layout import Layout
from stacklab.homes.embedded.services import PORT_NAMES, USERS
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
        return self.layout.made_file.exists()

    @property
    def ports(self) -> dict[str, int]:
        return dict(read_json(self.layout.ports_file) or {})

    def passwords(self) -> dict[str, str]:
        """Every secret of this cloud by name; generated the first time."""
        return {name: self.lab.secret(name) for name in ("admin", "learner", "swift_hash", "dashboard", *USERS)}

    def why_ready(self) -> str | None:
        """Why nothing needs making: it is made, with this software, and runs or finds its ports free."""
        made = read_json(self.layout.made_file)
        if made is None:
            return None
        if supervision.is_running(self.layout):
            return "it runs" if self.layout.clouds_file.exists() else None
        self.check_software(made)
        if made != self._made() or ports.choose(PORT_NAMES, self.ports)[1]:
            return None
        return "made already; its ports are free"

    def check_software(self, made: dict[str, object]) -> None:
        """A cloud's databases belong to the software that made them."""
        if made.get("requirements") != software.requirements_key():
            raise HomeUnavailable(
                f"the cloud of lab '{self.lab.name}' was made by another version of OpenStack's software",
                advice="lab destroy, then lab up, makes it anew",
            )

    def _made(self) -> dict[str, object]:
        """What made.json says of a cloud that is up to date."""
        return {
            "requirements": software.requirements_key(),
            "environment": software.key(),
            "configuration": self._configuration_key(),
            "ports": self.ports,
        }

    def make(self, progress: Progress) -> str:
        """Make the cloud, or bring the one that is there up to date with its ports and configuration."""
        try:
            return self._make(progress)
        except OSError as error:
            raise disk_error(error, self.layout.home) from error

    def _make(self, progress: Progress) -> str:
        if self.exists and supervision.is_running(self.layout):
            passwords = self.passwords()
            config.write_clouds_file(self.layout, self.ports, passwords["admin"], passwords["learner"])
            return f"{self.layout.clouds_file} was gone; it is written anew"
        self.layout.make()
        new = not self.exists
        chosen, replaced = ports.choose_patiently(PORT_NAMES, self.ports)
        for name in replaced:
            self.notes.append(
                f"port {self.ports[name]} of {name} is taken by another program; it is {chosen[name]} now"
            )
        if new:
            progress("copying the template")
            self._copy_template(progress)
        write_json(self.layout.ports_file, chosen)
        progress("giving it its own passwords, keys and addresses")
        passwords = self.passwords()
        config.write_configuration(self.layout, software.path(), chosen, passwords)
        self.personalise(passwords)
        config.write_clouds_file(self.layout, chosen, passwords["admin"], passwords["learner"])
        write_json(self.layout.made_file, self._made())
        shared.register(software.environments(), self.layout.home)
        # not before: until now this cloud may have needed the environment before
        shared.prune_environments(software.environments(), keep=software.key())
        if replaced:
            return "; ".join(self.notes[-len(replaced) :])
        return "a new cloud with secrets of its own" if new else "its configuration is up to date"

    def put_back_configuration(self) -> list[str]:
        """Write every configuration file anew that is not as `make` wrote it; returns the services that read those.

        Nothing is touched where `make` itself would now write something else: then it is for `lab up` to do.
        """
        if read_json(self.layout.made_file) != self._made():
            return []
        wanted = config.rendered(self.layout, software.path(), self.ports, self.passwords())
        changed = [path for path, text in wanted.items() if not path.exists() or path.read_bytes() != text.encode()]
        for path in changed:
            write_atomic(path, wanted[path], mode=0o600)
        return sorted({config.reader_of(path) for path in changed})

    def _copy_template(self, progress: Progress) -> None:
        """What is here without made.json is what an interrupted run left: nobody used it yet."""
        for name in ("db", "keys", "images", "volumes", "nova", "swift", "checkpoints"):
            shutil.rmtree(self.layout.home / name, ignore_errors=True)
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
            said = result.stderr.decode(errors="replace").strip()
            if "database or disk is full" in said or "No space left" in said:
                raise NotEnoughSpace(
                    "the disk is full; the cloud was not changed",
                    advice="free some space and run the same command again",
                )
            raise StageFailed(f"the cloud could not be given its passwords and addresses: {said.splitlines()[-1:]}")

    def _configuration_key(self) -> str:
        """Changes when a rendered file would: other templates of ours, another place, QEMU come or gone."""
        hypervisor = config.find_hypervisor()
        digest = hashlib.sha256(f"{self.layout.home} {software.path()} {hypervisor}".encode())
        for source in sorted(Path(config.TEMPLATES).glob("*.j2")):
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]
