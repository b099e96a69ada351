"""Operator families: a folder a family, a module a variant. Families do not import one another."""
