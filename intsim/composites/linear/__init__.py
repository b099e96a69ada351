"""Linear layers: a matrix product, a bias and a requantization."""

LAWS = ()
