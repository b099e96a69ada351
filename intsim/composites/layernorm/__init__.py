"""Layer normalization made of other ops."""

LAWS = ()
