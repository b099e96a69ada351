"""Embedding: rows of a table, by index."""

LAWS = ()
