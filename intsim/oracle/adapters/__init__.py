"""Backends under test that intsim knows: its own, and third-party runtimes (each in an extra)."""
