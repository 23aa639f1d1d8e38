"""The fault `expired-certificate`: the virtual hosts with TLS show a certificate whose time is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from cryptography import x509

from stacklab.conditions.condition import Action, Fault, Finding
from stacklab.https.server import Https, NoTls, certificate_of


class ExpiredCertificate(Fault):
    """What is served is replaced, where Apache reads it, by a certificate of the same authority that expired an hour ago.

    Nothing has to be kept for the way back: a new certificate is the repair, as it is anywhere else.
    """

    id = "expired-certificate"
    title = "the certificate of the public endpoints has expired"
    patience = 60
    every = 0.5

    def __init__(self, https: Callable[[], Https]) -> None:
        self._https = https

    def why_not(self) -> str | None:
        https = self._https()
        if why := https.why_not():
            return why
        return None if https.serving() else "nothing is behind TLS yet; lab replay https-endpoints puts it there"

    def see(self) -> Finding:
        hosts = self._https().serving()
        if not hosts:
            return Finding("not_applicable", "nothing is behind TLS")
        silent, expired = [], []
        for host in hosts:
            try:
                ends = x509.load_der_x509_certificate(certificate_of(host.host, host.port)).not_valid_after_utc
            except NoTls as error:
                silent.append(str(error))
                continue
            if ends < datetime.now(UTC):
                expired.append(f"{host.public} ({host.name}): expired at {ends:%Y-%m-%d %H:%M} UTC")
        if expired:
            return Finding("bad", "\n".join(expired))
        if silent:
            return Finding("unknown", "\n".join(silent))
        return Finding("good", f"{len(hosts)} virtual hosts show a certificate that has not expired")

    def breaking(self) -> Iterator[Action]:
        yield Action("serve a certificate that expired an hour ago", lambda: self._https().issue(expired=True))

    def repairing(self) -> Iterator[Action]:
        if not self.look().fine:
            yield Action("issue a new certificate, and let Apache read it", self._https().issue)
