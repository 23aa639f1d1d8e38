"""A real, unmodified DevStack, deployed by lab and used by session 4. See `__main__`."""
