"""Products of two quantized tensors, element by element."""

LAWS = ()
