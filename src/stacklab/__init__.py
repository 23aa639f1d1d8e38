"""lab: the companion to an "Introduction to OpenStack" course."""

__version__ = "0.1.0"
