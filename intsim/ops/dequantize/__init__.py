"""Dequantize: integers and scales become real numbers."""

LAWS = ()
