"""Judging: models that score answers, and how far they agree with people."""
