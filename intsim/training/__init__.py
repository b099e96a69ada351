"""Training of the float Transformers that integer ones are made from; needs ``pip install 'intsim[train]'``."""
