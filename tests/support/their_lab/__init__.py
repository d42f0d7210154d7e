"""Somebody else's package: a data set of their own, written from the README alone, with a task for lm-eval beside it."""
