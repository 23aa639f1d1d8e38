"""The fault `expired-certificate`: the TLS fronts show a certificate whose time is over."""

from __future__ import annotations

import time
from collections.abc import Callable

from stacklab.conditions.fault import Fault
from stacklab.conditions.finding import Finding
from stacklab.errors import LabError, ServiceFailed
from stacklab.https.authority import days_left
from stacklab.https.peer import NoTls, certificate_of
from stacklab.https.server import Https
from stacklab.stages import Progress

SECONDS = 60


class ExpiredCertificate(Fault):
    """What is served is replaced, where Apache reads it, by a certificate of the same authority that expired an hour ago.

    Nothing has to be kept for the way back: a new certificate is the repair, as it is anywhere else.
    """

    id = "expired-certificate"
    title = "the certificate of the public endpoints has expired"

    def __init__(self, https: Callable[[], Https]) -> None:
        self._https = https

    def why_not(self) -> str | None:
        https = self._https()
        if why := https.why_not():
            return why
        if not https.serving():
            return "nothing is behind TLS yet; lab replay https-endpoints puts it there"
        return None

    def look(self) -> Finding:
        try:
            fronts = self._https().serving()
        except LabError as error:
            return Finding("unknown", error.message)
        if not fronts:
            return Finding("not_applicable", "nothing is behind TLS")
        silent, expired = [], []
        for front in fronts:
            try:
                certificate = certificate_of(front.host, front.port)
            except NoTls as error:
                silent.append(str(error))
                continue
            if days_left(certificate) <= 0:
                until = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
                expired.append(f"{front.public} ({front.name}): expired at {until}")
        if expired:
            return Finding("broken", "\n".join(expired))
        if silent:
            return Finding("unknown", "\n".join(silent))
        return Finding("well", f"{len(fronts)} TLS fronts show a certificate that has not expired")

    def inflict(self, progress: Progress) -> None:
        https = self._https()
        progress("serving a certificate that expired an hour ago")
        https.authority.keep(*https.authority.issue(https.apache.names, expired=True))
        https.install()
        self._until("broken", "symptoms", progress)

    def mend(self, progress: Progress) -> None:
        if self.look().fine:
            return
        https = self._https()
        progress("issuing a new certificate, and letting Apache read it")
        https.authority.keep(*https.authority.issue(https.apache.names))
        https.install()
        self._until("well", "repair", progress)

    def _until(self, state: str, what: str, progress: Progress) -> None:
        deadline = time.monotonic() + SECONDS
        while (finding := self.look()).state != state:
            if time.monotonic() > deadline:
                raise ServiceFailed(f"the {what} did not show within {SECONDS} s: {finding.evidence}")
            progress(f"waiting for the {what}")
            time.sleep(0.5)
