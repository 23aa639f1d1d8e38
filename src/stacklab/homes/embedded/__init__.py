"""The embedded home: real OpenStack services as processes on this machine; no VM, no root, loopback only."""
