"""The lab's certificate authority, and the server certificate that it signs: files, made by hand with openssl or by lab."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stacklab.https.authority import (
    AUTHORITY_DAYS,
    SERVER_DAYS,
    Names,
    days_left,
    fingerprint,
    names_of,
    signed_by,
)
from stacklab.kinds.context import Absent, Context, Thing
from stacklab.kinds.declaration import NoParams
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.narration import Command, Request

NOWHERE = "(not in Horizon: a certificate is a file on the machine that serves)"


class _OnMachine(Kind[NoParams]):
    """What the kinds of this module share: no API does it."""

    params = NoParams

    def horizon(self, p: NoParams) -> str:
        return NOWHERE

    def requests(self, context: Context, p: NoParams) -> list[Request]:
        return []

    def applicable(self, context: Context, p: NoParams) -> str | None:
        return context.https().why_not()


class CertificateAuthority(_OnMachine):
    """A certificate authority of the lab's own."""

    name = "certificate-authority"

    def title(self, p: NoParams) -> str:
        return "certificate authority of the lab"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        subject = shlex.quote(f"/CN={_title(context)}")
        lines = [
            f'cd "{directory_of(context)}"; umask 077',
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key",
            f"openssl req -x509 -new -key ca.key -sha256 -days {AUTHORITY_DAYS} -subj {subject} -out ca.pem \\",
            "  -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'",
            "chmod 644 ca.pem",
        ]
        return [told(*lines)]

    def run(self, context: Context, p: NoParams) -> None:
        context.https().authority.make()

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        authority = context.https().authority
        certificate = authority.certificate()
        if certificate is None:
            # A key alone is what an interrupted run left: the certificate is written after it.
            return [{"name": "its key alone", "alone": True}] if authority.key_file.exists() else []
        return [{"name": authority.title, "file": str(authority.certificate_file), "id": fingerprint(certificate)}]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        return [Difference(*one) for one in context.https().authority.trouble()]

    def remove(self, context: Context, thing: Thing) -> bool:
        return context.https().authority.remove()

    def show_command(self, context: Context, p: NoParams) -> Command:
        return _shown_by_openssl(context, "ca.pem")

    def shown(self, thing: Thing) -> str:
        return f"{thing['name']}: {thing.get('file', '')}"


class ServerCertificate(_OnMachine):
    """The certificate that the cloud's TLS servers show, for the names and addresses that its endpoints carry."""

    name = "server-certificate"

    def title(self, p: NoParams) -> str:
        return "server certificate"

    def commands(self, context: Context, p: NoParams) -> list[Command]:
        try:
            https = context.https()
            names, copying = https.apache.names, https.apache.copying()
        except Absent:
            names, copying = Names(("$NAME",), ("$ADDRESS",)), []
        lines = [
            f'cd "{directory_of(context)}"; umask 077',
            "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key",
            f'openssl req -new -key server.key -subj "/CN={names.first}" -out server.csr',
            f"printf '%s\\n' \"subjectAltName={names.alternative}\" basicConstraints=critical,CA:FALSE \\",
            "  keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth subjectKeyIdentifier=hash \\",
            "  authorityKeyIdentifier=keyid >server.ext",
            "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \\",
            f"  -sha256 -days {SERVER_DAYS} -extfile server.ext -out server.pem",
            "rm server.csr server.ext ca.srl; chmod 644 server.pem",
            *copying,
        ]
        return [told(*lines)]

    def run(self, context: Context, p: NoParams) -> None:
        https = context.https()
        if https.authority.certificate() is None:
            raise Absent("certificate authority of the lab")
        https.authority.keep(*https.authority.issue(https.apache.names))
        https.install()

    def find_all(self, context: Context, p: NoParams) -> Iterable[Thing]:
        https = context.https()
        certificate = https.authority.server_certificate()
        if certificate is None:
            return [{"name": "its key alone"}] if https.authority.server_key_file.exists() else []
        names = names_of(certificate)
        return [
            {
                "id": fingerprint(certificate),
                "name": ", ".join([*names.hosts, *names.addresses]),
                "days": int(days_left(certificate)),
            }
        ]

    def compare(self, context: Context, p: NoParams, thing: Thing) -> list[Difference]:
        https = context.https()
        certificate, authority = https.authority.server_certificate(), https.authority.certificate()
        if certificate is None:
            return [Difference("certificate", str(https.authority.server_certificate_file), "no such file")]
        wanted, has = https.apache.names, names_of(certificate)
        missing = (*({*wanted.hosts} - {*has.hosts}), *({*wanted.addresses} - {*has.addresses}))
        by_us = authority is not None and signed_by(certificate, authority)
        return differing(
            [
                ("signed by", "the lab's authority", "the lab's authority" if by_us else "another one"),
                ("names that it lacks", "none", ", ".join(missing) or "none"),
                ("its key", "beside it", "beside it" if https.authority.server_key_fits() else "none, or another one"),
                ("where Apache reads it", "the same", "the same" if https.installed() else "none, or another one"),
            ]
        )

    def remove(self, context: Context, thing: Thing) -> bool:
        https = context.https()
        https.apache.uninstall()
        return https.authority.remove_server()

    def show_command(self, context: Context, p: NoParams) -> Command:
        return _shown_by_openssl(context, "server.pem")

    def shown(self, thing: Thing) -> str:
        return f"for {thing['name']}, valid for {thing.get('days')} more days"


@dataclass(frozen=True)
class Told(Command):
    """Lines for a shell, where they say they belong. lab does the same in its own way, whichever way was asked for."""

    lines: str = ""

    def text(self, cloud: str = "") -> str:
        """The lines."""
        return self.lines


def told(*lines: str) -> Told:
    """See Told."""
    return Told((), program="sh", lines="\n".join(lines))


def directory_of(context: Context) -> str:
    """Where the lab keeps its certificates; a variable on paper."""
    try:
        return str(context.https().directory)
    except Absent:
        return "$LAB_HTTPS"


def _title(context: Context) -> str:
    try:
        return context.https().authority.title
    except Absent:
        return "certificate authority of the lab"


def _shown_by_openssl(context: Context, name: str) -> Told:
    return told(f'openssl x509 -noout -subject -issuer -dates -text -in "{directory_of(context)}/{name}"')


KINDS: list[Kind[Any]] = [CertificateAuthority(), ServerCertificate()]
