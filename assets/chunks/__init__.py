"""Chunks: exact character ranges of document texts."""
