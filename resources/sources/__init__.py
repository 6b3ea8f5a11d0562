"""Kinds of sources: one module each, beside what they share."""
