"""The certificate authority of one lab, and the server certificate that it signs: made by the openssl commands that are shown.

What the certificates say follows RFC 5280 (4.2.1.3 key usage, 4.2.1.6 alternative names, 4.2.1.9 basic constraints),
because clients check it: a server's name or address must be among the alternative names (RFC 6125), and an authority's
path length of 0 means that it signs servers, never another authority.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from stacklab.errors import StepFailed
from stacklab.files import remove_drafts, write_atomic
from stacklab.machines.local import LocalMachine

AUTHORITY_DAYS = 365
SERVER_DAYS = 90


class Authority:
    """The files of one lab's authority and of the server certificate that it signed, in one directory; keys are 0600.

    `title`: the common name of the authority's certificate.
    """

    def __init__(self, directory: Path, title: str) -> None:
        self.directory = directory
        self.title = title
        self.key_file, self.certificate_file = directory / "ca.key", directory / "ca.pem"
        self.server_key_file, self.server_certificate_file = directory / "server.key", directory / "server.pem"

    # --- making ----------------------------------------------------------------------------------------------------

    def commands(self) -> str:
        """The lines that make the authority."""
        extensions = ["basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign"]
        return self._lines("ca", self.title, extensions, "-signkey new.key", AUTHORITY_DAYS)

    def server_commands(self, names: Sequence[str]) -> str:
        """The lines that make a server's key, and a certificate for these names and addresses; the first is its subject."""
        alternative = [f"{'IP' if is_ip(name) else 'DNS'}:{name}" for name in names]
        extensions = [
            f"subjectAltName={','.join(alternative)}",
            *(
                "basicConstraints=critical,CA:FALSE",
                "keyUsage=critical,digitalSignature",
                "extendedKeyUsage=serverAuth",
            ),
            "authorityKeyIdentifier=keyid",
        ]
        signer = "-CA ca.pem -CAkey ca.key -CAserial new.srl -CAcreateserial"
        return self._lines("server", names[0], extensions, signer, SERVER_DAYS)

    def _lines(self, name: str, subject: str, extensions: list[str], signer: str, days: int) -> str:
        """The key gets its name first: a certificate that is there has its key."""
        directory = shlex.quote(str(self.directory))
        lines = [
            f"mkdir -p -m 700 {directory}; cd {directory}; umask 077",
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out new.key",
            f"openssl req -new -key new.key -subj {shlex.quote(f'/CN={subject[:64]}')} -out new.csr",
            *("cat >new.ext <<'END'", *extensions, "subjectKeyIdentifier=hash", "END"),
            f"openssl x509 -req -in new.csr {signer} -sha256 -days {days} -extfile new.ext -out new.pem",
            f"mv new.key {name}.key; chmod 644 new.pem; mv new.pem {name}.pem; rm new.*",
        ]
        return "\n".join(lines)

    def make(self) -> None:
        """Make the authority. Raises CommandFailed."""
        LocalMachine().script(self.commands())

    def issue(self, names: Sequence[str]) -> None:
        """Make a server's key and certificate, in place of those that are there. Raises StepFailed, CommandFailed."""
        if not self.certificate_file.exists():
            raise StepFailed(
                "the lab has no certificate authority", advice="lab replay https-endpoints/authority makes it"
            )
        LocalMachine().script(self.server_commands(names))

    def expire(self) -> None:
        """Sign the server's certificate again, for a time that was over an hour ago (fault `expired-certificate`)."""
        certificate = x509.load_pem_x509_certificate(self.server_certificate_file.read_bytes())
        key: Any = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        ends = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
        expired = x509.CertificateBuilder(
            certificate.issuer, certificate.subject, certificate.public_key(), x509.random_serial_number(),
            ends - datetime.timedelta(days=SERVER_DAYS), ends, list(certificate.extensions),
        ).sign(key, hashes.SHA256())  # fmt: skip
        write_atomic(self.server_certificate_file, expired.public_bytes(serialization.Encoding.PEM))

    def remove(self) -> bool:
        """Remove authority and server certificate; False if there was nothing."""
        remove_drafts(self.directory)
        return any([self.remove_server(), _unlink(self.certificate_file), _unlink(self.key_file)])

    def remove_server(self) -> bool:
        """Remove the server's certificate and key; False if there was none."""
        for draft in self.directory.glob("new.*"):  # one of a key is a key
            draft.unlink()
        return any([_unlink(self.server_certificate_file), _unlink(self.server_key_file)])


def is_ip(name: str) -> bool:
    """Whether this is an address, and no name."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _unlink(path: Path) -> bool:
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
