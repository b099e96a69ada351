"""Division of integers."""

LAWS = ()
