"""Primitives to be run: one int64 at a time, the same text on CPU and GPU. Integers only."""
