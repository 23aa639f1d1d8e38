"""Files that the lab provides to steps: the key pair and the guest image."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

from stacklab.errors import LabDamaged
from stacklab.files import disk_error, write_atomic
from stacklab.images import find_image
from stacklab.kinds.context import Asset
from stacklab.kinds.instance import pins
from stacklab.lab import ImageRecord, Lab
from stacklab.stages import Progress, Stage


class Assets:
    """A lab's files, by the names that session files use."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.private_key = lab.directory / "keys" / "lab-key"
        self.public_key = lab.directory / "keys" / "lab-key.pub"

    def by_name(self) -> dict[str, Callable[[], Asset]]:
        """What `{asset: NAME}` may name."""
        return {
            "guest-image": self._guest_image,
            "compressed-image": self._compressed_image,
            "public-key": lambda: Asset(self.public_key, {}),
            "private-key": lambda: Asset(self.private_key, {"login_user": self.login_user}),
        }

    def stages(self, image: str | None) -> list[Stage]:
        """The part of `lab up` that provides them; `image` is what the user gave (a path or URL)."""
        return [
            Stage("key-pair", "a key pair for instances", self._has_keys, self._make_keys, 1),
            Stage(
                "guest-image",
                "an image for instances",
                lambda: self._has_image(image),
                lambda p: self._find_image(image, p),
                20,
            ),
        ]

    def forget_instances(self) -> None:
        """Drop the host keys that instances have shown: their disks went back to before, maybe to before they made them."""
        shutil.rmtree(pins(self.private_key), ignore_errors=True)

    def _has_keys(self) -> str | None:
        from cryptography.hazmat.primitives import serialization as form

        try:
            private = form.load_ssh_private_key(self.private_key.read_bytes(), None)
            public = private.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
            whole = self.public_key.read_bytes().startswith(public)
        except (FileNotFoundError, ValueError):
            return None
        return f"in {self.private_key.parent}" if whole else None

    def _make_keys(self, progress: Progress) -> str:
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import ec

        # ECDSA is what both today's SSH servers and the small one in the course's old cirros understand.
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
        public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
        damaged = self.private_key.exists()
        self.private_key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(self.private_key, private.decode(), mode=0o600)
        write_atomic(self.public_key, f"{public.decode()} lab\n")
        known = "; the one before was damaged, and instances that were made with it let nobody in" if damaged else ""
        return f"in {self.private_key.parent}{known}"

    @property
    def _image(self) -> ImageRecord | None:
        return self.lab.record.image

    def _has_image(self, wanted: str | None) -> str | None:
        image = self._image
        if not image or (wanted and image.wanted != wanted) or not Path(image.path).exists():
            return None
        return image.source

    def _find_image(self, wanted: str | None, progress: Progress) -> str:
        image = find_image(wanted, progress)
        record = ImageRecord(
            path=str(image.path),
            disk_format=image.disk_format,
            wanted=wanted,
            login_user=image.login_user,
            source=image.source,
        )
        self.lab.update(image=record)
        return image.source

    def _guest_image(self) -> Asset:
        image = self._image
        if not image:
            raise LabDamaged("this lab has no guest image yet", advice="lab up provides one")
        return Asset(Path(image.path), {"disk_format": image.disk_format})

    def _compressed_image(self) -> Asset:
        """Made when it is first wanted; the name says of which image."""
        image = self._guest_image()
        path = self.lab.directory / "files" / f"{image.path.name}.gz"
        if not path.exists() or path.stat().st_mtime < image.path.stat().st_mtime:
            _compress(image.path, path)
        return Asset(path, image.attributes)

    @property
    def login_user(self) -> str:
        """Whom the guest image lets in with the key."""
        return (self._image and self._image.login_user) or "cirros"


def _compress(source: Path, target: Path) -> None:
    """gzip a file, a piece at a time; what is there under the name is always whole. Raises NotEnoughSpace."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    try:
        # No name and no time inside: the same image is the same file.
        with source.open("rb") as data, part.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            shutil.copyfileobj(data, packed, 1 << 20)
        part.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        part.unlink(missing_ok=True)


PAPER: dict[str, Callable[[], Asset]] = {
    "guest-image": lambda: Asset(Path("guest-image.img"), {"disk_format": "qcow2"}),
    "compressed-image": lambda: Asset(Path("guest-image.img.gz"), {"disk_format": "qcow2"}),
    "public-key": lambda: Asset(Path("lab-key.pub"), {}),
    "private-key": lambda: Asset(Path("lab-key"), {"login_user": "cirros"}),
}
"""Stand-ins by name, for showing steps before there is a lab; nothing is read from them."""
