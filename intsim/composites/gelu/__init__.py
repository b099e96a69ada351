"""GELU to a quantized result: an activation and a requantization."""

LAWS = ()
