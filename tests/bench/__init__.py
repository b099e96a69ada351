"""Benchmarks beside other libraries: ``python -m tests.bench``. What a module declares: ``frame``."""
