"""Importers: foreign question sets as a folder of documents and a question file of ours."""
