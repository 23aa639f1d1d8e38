"""What the verbs of `lab` do, apart from how it is shown: `cli` parses and prints, this does."""
