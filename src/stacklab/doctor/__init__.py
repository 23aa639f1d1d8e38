"""`lab doctor`: what a home needs of this machine (or of the learner's), with the evidence and what repairs it."""
