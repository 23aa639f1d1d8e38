"""What the user's own configuration says of the network and of mirrors; it is laid over every profile."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from stacklab.deploy.profile.model import Part


class Settings(Part):
    """`deploy:` of $XDG_CONFIG_HOME/stacklab/config.yaml; all optional.

    `mirrors`: a URL's beginning → what stands in its place, for repositories, git, boxes and files alike.
    `pip_index`: for the machine's pip; without it, the index that pip on this host is configured with. `pip_first`: an index
    that has a part of all packages and is asked before it (`lab up` names the one of what was prefetched).
    `packages_proxy`: an apt-cacher-ng or squid for the machine's package manager, and nothing else
    ("http://10.0.0.1:3142"; no account in it).
    `variants`: of a profile, on every machine (what a machine is found to be adds its own).
    `ca_file`: certificates that the machine shall trust beside its own. `proxy`: an http proxy for the machine; of its password
    stack.sh itself makes no secret on the machine: it hands it to sudo in the command line.
    `libvirt_uri`: where the home libvirt runs its VMs (LAB_LIBVIRT_URI overrules it), `libvirt_pool`: the storage pool for
    their disks.
    """

    mirrors: dict[str, str] = {}
    pip_index: str | None = None
    pip_first: str | None = None
    packages_proxy: str | None = None
    proxy: str | None = None
    no_proxy: list[str] = []
    ca_file: Path | None = None
    variants: list[str] = []
    libvirt_uri: str | None = None
    libvirt_pool: str = "default"

    @property
    def passwords(self) -> list[str]:
        """Those that stand in addresses, for hiding them where programs print them."""
        addresses = [self.proxy, self.packages_proxy, self.pip_index, *self.mirrors.values()]
        hidden = [urlsplit(url).password for url in addresses if url]
        return sorted({form for password in hidden if password for form in (password, unquote(password))})

    def at(self, url: str) -> str:
        """Where to fetch `url` from: the mirror with the longest beginning that fits, else `url` itself."""
        fits = [begin for begin in self.mirrors if url.startswith(begin)]
        if not fits:
            return url
        best = max(fits, key=len)
        return self.mirrors[best] + url[len(best) :]
