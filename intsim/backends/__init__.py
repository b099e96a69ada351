"""Iteration patterns, one module a machine. No arithmetic lives here."""
