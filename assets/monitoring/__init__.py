"""Interactions and drift reports."""
