"""What can be looked at, repaired and, for some of it, broken on purpose."""
