"""Screening: what stands between parsing and admission; evidence per document, and a verdict by policy."""
