"""Metric definitions, each with a namespaced and versioned id."""
