"""The faults of the embedded cloud."""
