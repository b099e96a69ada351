"""Primitives to be read: whole NumPy arrays, of int64 or of unbounded Python integers (dtype object)."""
