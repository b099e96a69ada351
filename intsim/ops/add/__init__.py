"""Addition of two quantized tensors."""

LAWS = ()
