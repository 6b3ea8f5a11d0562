"""Governance: the right to be forgotten, with a proof."""
