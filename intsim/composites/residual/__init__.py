"""A residual added, normalised, and quantized for the next product: what lies between the products of a block."""

LAWS = ()
