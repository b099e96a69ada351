"""A quantized tensor at another scale and zero point."""

LAWS = ()
