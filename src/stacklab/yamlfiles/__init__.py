"""YAML that people write: where every value stands, and complaints that name file, line, key and what was probably meant."""
