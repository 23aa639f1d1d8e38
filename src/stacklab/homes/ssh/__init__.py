"""An existing machine that the learner made."""
