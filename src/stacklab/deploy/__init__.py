"""What turns a bare machine into an OpenStack: guest preparation, local.conf, stack.sh, fixes, recovery."""
