"""Ops made of other ops: they hold no arithmetic of their own."""
