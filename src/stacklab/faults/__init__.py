"""Faults that any home's cloud can have, because they are broken and mended through its API alone."""
