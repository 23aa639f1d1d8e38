"""What a deployment fetches, kept on this host and served to the machine: a second stack needs no internet and less time."""
