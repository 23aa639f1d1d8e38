"""What a server really says: its certificate from a handshake, its answer to plain HTTP, its answer over TLS."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509

SECONDS = 20
REDIRECTS = (301, 302, 307, 308)
"""What sends a browser on; Apache's Redirect and HAProxy's `redirect scheme https` say 302 unless told otherwise."""


class NoTls(Exception):
    """There is no TLS server there; the message says what there is."""


def certificate_of(host: str, port: int) -> x509.Certificate:
    """The certificate that a server shows, whatever it is worth. Raises NoTls."""
    try:
        with (
            socket.create_connection((host, port), timeout=SECONDS) as plain,
            _trusting().wrap_socket(plain, server_hostname=host) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
    except OSError as error:  # ssl.SSLError is one
        raise NoTls(f"{host}:{port}: {_said(error)}") from error
    if shown is None:
        raise NoTls(f"{host}:{port} shows no certificate")
    return x509.load_der_x509_certificate(shown)


def _trusting() -> ssl.SSLContext:
    """For looking only: what it accepts is then examined, and nothing secret is sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class PeerAnswer:
    """What a server answered: status, headers by lower-case name, the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    body: str


def ask(host: str, port: int, path: str = "/", *, tls: bool, headers: Mapping[str, str] | None = None) -> PeerAnswer:
    """GET without following anything, whatever the certificate is worth. Raises NoTls if there is no sensible answer."""
    if tls:
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=SECONDS, context=_trusting()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers={"Accept": "application/json, text/html", **(headers or {})})
        answer = connection.getresponse()
        body = answer.read(1 << 20).decode(errors="replace")
        return PeerAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)
    except (OSError, http.client.HTTPException) as error:
        raise NoTls(f"{host}:{port}: {_said(error)}") from error
    finally:
        connection.close()


def _said(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, ssl.SSLError):
        return f"no TLS ({error.reason or error})"
    if isinstance(error, TimeoutError):
        return f"no answer within {SECONDS} s"
    return str(error) or type(error).__name__
