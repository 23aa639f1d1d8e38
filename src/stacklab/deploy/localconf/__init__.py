"""DevStack's local.conf: rendered, explained, graded."""
