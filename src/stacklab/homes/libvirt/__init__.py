"""The course's machine: a Vagrant VM on libvirt."""

import logging

# python-vagrant complains on standard error, at its import, where there is no Vagrant; our own errors say that in their place.
logging.getLogger("vagrant").addHandler(logging.NullHandler())
