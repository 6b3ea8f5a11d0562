"""Synthetic questions: made from the documents, filtered, and accepted by people."""
