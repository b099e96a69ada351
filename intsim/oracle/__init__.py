"""The oracle: cases, the judging of a backend, golden outputs. It compares bits; there is no tolerance."""
