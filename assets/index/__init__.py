"""Embeddings and the search index: staging, checking, publishing, retention."""
