"""From a bare machine to one that stack.sh can work on."""
