"""Quantize: real numbers, or integers on a fine grid, become narrow integers and scales."""

from __future__ import annotations

from intsim.numerics import IntType, int4, int8, int8_narrow, int16, uint4, uint8, uint16

RESULTS: tuple[IntType, ...] = (int8, uint8, int8_narrow, int16, uint16, int4, uint4)

LAWS = ()
