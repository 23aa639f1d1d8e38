"""What Vagrant and libvirt complain of, in one line, and what is advised then."""

from __future__ import annotations

import pytest

from stacklab.homes.libvirt.hypervisor import starting
from stacklab.homes.libvirt.vagrant import not_fetched

DOWNLOADER = [
    "An error occurred while downloading the remote file. The error",
    "message, if any, is reproduced below. Please fix this error and try",
    "again.",
]
CATALOGUE = [
    "The box 'centos/7' could not be found or",
    "could not be accessed in the remote catalog. If this is a private",
    "box on HashiCorp's Vagrant Cloud, please verify you're logged in via",
    "`vagrant login`. Also, please double-check the name. The expanded",
    "URL and error message are shown below:",
    'URL: ["https://vagrantcloud.com/centos/7"]',
]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([*DOWNLOADER, "Could not resolve host: cloud.example"], "Could not resolve host: cloud.example"),
        (
            [*DOWNLOADER, "Couldn't open file /nope", *DOWNLOADER, "Couldn't open file /nope"],
            "Couldn't open file /nope",
        ),
        (DOWNLOADER, "Vagrant does not say why"),
        ([*CATALOGUE, "Error: Could not resolve host: vagrantcloud.com"], "Could not resolve host: vagrantcloud.com"),
        (["The box you're attempting to add doesn't support the provider"], None),
        ([], None),
    ],
)
def test_why_a_box_was_not_fetched_is_told_once_and_alone(lines: list[str], why: str | None) -> None:
    assert not_fetched(lines) == why


def test_how_libvirt_is_started_depends_on_who_starts_services() -> None:
    assert starting(True, root=False).startswith("sudo systemctl start libvirtd;")
    without = starting(False, root=True)
    assert without.startswith("virtlogd --daemon && libvirtd --daemon;")
    assert "systemctl" not in without
    assert without.endswith("lab doctor --on libvirt --fix")
