"""What is known of a distribution and a release, as data, and how it is read."""
