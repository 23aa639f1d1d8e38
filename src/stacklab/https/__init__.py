"""TLS in front of a lab's cloud: its own certificate authority, Apache's virtual hosts, and looking at what is served."""
