"""Answers out of outputs, and whether two are equal, by rules."""
