"""The course's machine: a Vagrant VM on libvirt."""
