"""Gated units of a feed-forward layer: an activation of one half times the other half."""

LAWS = ()
