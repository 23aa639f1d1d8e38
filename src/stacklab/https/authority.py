"""The certificate authority of one lab, and the server certificates that it signs.

What the certificates say follows RFC 5280 (4.2.1.3 key usage, 4.2.1.6 alternative names, 4.2.1.9 basic constraints),
because clients check it: a server's name or address must be among the alternative names (RFC 6125), and an authority's
path length of 0 means that it signs servers, never another authority.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stacklab.errors import LabDamaged, StepFailed
from stacklab.files import remove_drafts, write_atomic

AUTHORITY_DAYS = 365
SERVER_DAYS = 90
RENEW_DAYS = 30
"""A server certificate with less left than this is due."""

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""A learner's own openssl may have made either."""

_CLOCKS_APART = datetime.timedelta(minutes=10)
"""Nobody's clock is exact: a certificate is valid from a little before it was made."""


@dataclass(frozen=True)
class Names:
    """What a server certificate is for: DNS names, the first of them its subject, and addresses."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...]

    @property
    def first(self) -> str:
        """What the certificate calls its subject."""
        return (*self.hosts, *self.addresses)[0]

    @property
    def alternative(self) -> str:
        """As openssl writes them: `DNS:localhost,IP:127.0.0.1`."""
        return ",".join([*(f"DNS:{host}" for host in self.hosts), *(f"IP:{address}" for address in self.addresses)])


class Authority:
    """The files of one lab's authority and of the server certificate that it signed, in one directory; keys are 0600."""

    def __init__(self, directory: Path, title: str) -> None:
        self.directory = directory
        self.title = title
        """The common name of the authority's certificate."""

    @property
    def key_file(self) -> Path:
        return self.directory / "ca.key"

    @property
    def certificate_file(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def server_key_file(self) -> Path:
        return self.directory / "server.key"

    @property
    def server_certificate_file(self) -> Path:
        return self.directory / "server.pem"

    def make(self) -> None:
        """Make the authority. The key first: a certificate that is there has its key."""
        key, name = _new_key(), _called(self.title)
        certificate = _signed(name, key.public_key(), name, key, _now(), AUTHORITY_DAYS, [])
        self._write(self.key_file, _pem_of_key(key), mode=0o600)
        self._write(self.certificate_file, certificate.public_bytes(serialization.Encoding.PEM))

    def certificate(self) -> x509.Certificate | None:
        """The authority's certificate, or None. Raises LabDamaged."""
        return read_certificate(self.certificate_file)

    def trouble(self) -> list[tuple[str, str, str]]:
        """What is wrong with the authority: (what, expected, found); empty for a good one. It must be there."""
        certificate = self.certificate()
        if certificate is None:
            return [("certificate", str(self.certificate_file), "no such file")]
        wrong = []
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            if not constraints.ca or constraints.path_length != 0:
                wrong.append(("basicConstraints", "CA:TRUE, pathlen:0", _constraints(constraints)))
        except x509.ExtensionNotFound:
            wrong.append(("basicConstraints", "CA:TRUE, pathlen:0", "none"))
        if not signed_by(certificate, certificate):
            wrong.append(("signature", "its own", "another one's"))
        key = self._key()
        if key is None or key.public_key() != certificate.public_key():
            wrong.append(("key", f"the one of the certificate, in {self.key_file}", "none, or another one"))
        elif self.key_file.stat().st_mode & 0o077:
            wrong.append(
                ("mode of the key's file", "600: for you alone", oct(self.key_file.stat().st_mode & 0o777)[2:])
            )
        return wrong

    def issue(self, names: Names, *, expired: bool = False) -> tuple[bytes, bytes]:
        """A server's new key and certificate, PEM, signed by the authority; nothing is written.

        `expired`: one whose time is over since an hour, as the fault `expired-certificate` serves it. Raises StepFailed.
        """
        authority, key = self.certificate(), self._key()
        if authority is None or key is None:
            raise StepFailed(
                "the lab has no certificate authority", advice="lab replay https-endpoints/authority makes it"
            )
        own, begins = _new_key(), _now()
        if expired:
            begins -= datetime.timedelta(days=SERVER_DAYS, hours=1)
        addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in names.addresses]
        extensions = [
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.SubjectAlternativeName([*map(x509.DNSName, names.hosts), *addresses]),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
        ]
        subject = _called(names.first)
        certificate = _signed(subject, own.public_key(), authority.subject, key, begins, SERVER_DAYS, extensions)
        return _pem_of_key(own), certificate.public_bytes(serialization.Encoding.PEM)

    def keep(self, key: bytes, certificate: bytes) -> None:
        """Write the server's key and certificate into the lab's directory."""
        self._write(self.server_key_file, key, mode=0o600)
        self._write(self.server_certificate_file, certificate)

    def server_certificate(self) -> x509.Certificate | None:
        """The server certificate that was issued last, or None. Raises LabDamaged."""
        return read_certificate(self.server_certificate_file)

    def server_key_fits(self) -> bool:
        """Whether the server's key is there and is the one of its certificate."""
        certificate = self.server_certificate()
        key = _read_key(self.server_key_file)
        return certificate is not None and key is not None and key.public_key() == certificate.public_key()

    def remove(self) -> bool:
        """Remove authority and server certificate; False if there was nothing."""
        remove_drafts(self.directory)  # one of a key is a key
        return any([self.remove_server(), _unlink(self.certificate_file), _unlink(self.key_file)])

    def remove_server(self) -> bool:
        """Remove the server's certificate and key; False if there was none."""
        return any([_unlink(self.server_certificate_file), _unlink(self.server_key_file)])

    def _key(self) -> Key | None:
        return _read_key(self.key_file)

    def _write(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, content, mode=mode)


def read_certificate(path: Path) -> x509.Certificate | None:
    """The first certificate in a file; None without the file. Raises LabDamaged."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LabDamaged(
            f"{path} holds no certificate: {error}", advice="remove it; the step that made it makes it again"
        ) from error


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key made the certificate's signature, and the certificate names the authority."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def names_of(certificate: x509.Certificate) -> Names:
    """The alternative names of a certificate."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names((), ())
    addresses = tuple(map(str, value.get_values_for_type(x509.IPAddress)))
    return Names(tuple(value.get_values_for_type(x509.DNSName)), addresses)


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a client that asked for `host` (a DNS name or an address) may take this certificate. We make no wildcards."""
    names = names_of(certificate)
    return host.lower() in map(str.lower, names.hosts) or host in names.addresses


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` has it, in lower case without colons."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def days_left(certificate: x509.Certificate) -> float:
    """Days until it expires; negative afterwards."""
    return (certificate.not_valid_after_utc - _now()).total_seconds() / 86400


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())  # as safe as RSA of 3072 bits, and OpenSSL of CentOS 7 knows it


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _read_key(path: Path) -> Key | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):
        return None  # whoever asks compares it with the certificate
    return key if isinstance(key, Key) else None


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _signed(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: Key,
    begins: datetime.datetime,
    days: int,
    extensions: Iterable[x509.ExtensionType],
) -> x509.Certificate:
    """A certificate; with the issuer as its own subject an authority's. `extensions`: beside those that every one has."""
    authority = subject == issuer
    usage = x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - _CLOCKS_APART)
        .not_valid_after(begins + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def _constraints(value: x509.BasicConstraints) -> str:
    length = "" if value.path_length is None else f", pathlen:{value.path_length}"
    return f"CA:{str(value.ca).upper()}{length}"


def _unlink(path: Path) -> bool:
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
