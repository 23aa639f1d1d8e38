"""Vagrant with its plugin, and the box."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from stacklab.conditions.condition import Finding
from stacklab.deploy.profile.model import Box
from stacklab.deploy.profile.settings import Settings
from stacklab.doctor import packages, registries
from stacklab.doctor.probe import bad, failed, good
from stacklab.download import reason, without_password
from stacklab.errors import DownloadFailed, MissingProgram
from stacklab.homes.libvirt.boxes import wanted_box
from stacklab.homes.libvirt.vagrant import Vagrant
from stacklab.lab import Lab

SECONDS = 100.0


def program(lab: Lab) -> Finding:
    """Vagrant's version and its plugin's."""
    with tempfile.TemporaryDirectory(prefix="lab-doctor-") as directory:
        aside = Lab(lab.name)
        aside.home_directory = Path(directory)  # its log is not to lie in a lab that perhaps does not exist
        try:
            return good(Vagrant(aside).check(SECONDS / 2))
        except MissingProgram as error:
            return bad(error.message, *packages.install("vm"))


def box(lab: Lab, wanted: Box, settings: Settings, own: str | None) -> Finding:
    """The box in Vagrant's store; else whether the place that it comes from answers."""
    other = "lab up SESSION --on libvirt --box PATH   (a .box file that you have)"
    try:
        source = wanted_box(wanted, settings, own)
    except DownloadFailed as error:
        return failed(error)
    vagrant = Vagrant(lab)
    versions = [source.version] if source.version else vagrant.box_versions(source.name)[-1:]
    for version in versions:
        if place := vagrant.box(source.name, version):
            return good(f"{source.name} {version} is in Vagrant's store, {place}")
    if source.url and urlsplit(source.url).scheme == "file":
        path = Path(unquote(urlsplit(source.url).path))
        if path.is_file():
            return good(f"{source.name} comes from {path}")
        return bad(f"{source.name} is not in Vagrant's store, and there is no {path}", other)
    base = os.environ.get("VAGRANT_SERVER_URL") or packages.data()["vagrant_catalogue"]
    url = source.url or f"{base.rstrip('/')}/{source.name}"
    shown = without_password(url)
    try:
        answer = registries.ask(registries.session(settings), url)
    except requests.RequestException as error:
        return bad(
            f"{source.name} is not in Vagrant's store, and {shown} does not give it: {reason(error)}",
            f"vagrant box add --provider libvirt --name {source.name} URL   (another place)",
            other,
        )
    size = answer.headers.get("Content-Length", "") if source.url and not source.url.endswith(".json") else ""
    much = f", {int(size) / 1e6:.0f} MB" if size.isdigit() else ""
    return good(f"{source.name} is not in Vagrant's store yet; {shown} answers{much}, lab up fetches it")
