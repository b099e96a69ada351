"""A trained float Transformer becomes integers: int8 weights, int16 constants, integer scales. Nothing is calibrated.

The scales of activations are found at run time, a row each (Lin et al. 2020, section 3): all that is
decided here is the rounding of the weights and of the constants. ``transformer_parts`` makes the rest of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.models.architecture import Positions
from intsim.models.float_transformer import sinusoids
from intsim.models.layout import Array
from intsim.models.transformer_checkpoint import TransformerCheckpoint, needs_integer_form
from intsim.models.transformer_layout import Granularity, Options, PropagatedModel, check, used_norms
from intsim.models.transformer_parts import CONSTANT, assembled, matrices, scale_codes, scales_of, vectors
from intsim.numerics import int8
from intsim.ops.propagate import EXPONENT
from intsim.spec.scale import of_real

SMALLEST = 2.0**-100  # constants that are all below this are 0


def convert(checkpoint: TransformerCheckpoint, options: Options | None = None) -> PropagatedModel:
    """The integer model.

    Raises ValueError for an architecture without an integer form (softmax, standard norm) and weights above 8128.
    """
    shape, options = checkpoint.shape, options or Options()
    needs_integer_form(shape)
    source = {"name": checkpoint.name, "sha256": checkpoint.sha256, "float32_bytes": checkpoint.float_bytes}
    made = assembled(shape, options, parts_of(checkpoint, options), checkpoint.tokenizer, source)
    check(made)
    return made


def parts_of(checkpoint: TransformerCheckpoint, options: Options) -> dict[str, Array]:
    """The rounded weights and constants, and their scales."""
    shape, t = checkpoint.shape, checkpoint.tensors
    made: dict[str, Array] = {}
    scales = []
    for name in matrices(shape):
        q, codes = quantized(_matrix(checkpoint, name), options.weights)
        made[f"{name}.weight"] = q
        scales.append(codes)
    made["scales"] = np.concatenate(scales)
    degree = shape.degree
    lists = {name: abs(t[name].astype(np.float64)) ** (1 / degree) if name.endswith("floor") else t[name]
             for name in vectors(shape)}  # fmt: skip
    made |= _listed("constants", [rounded(a, CONSTANT) for a in lists.values()], np.int16)
    gains = _listed("gains", [rounded(t[f"{name}.weight"], int8.qmax) for name in used_norms(shape)], np.int8)
    gains["gains"] = gains["gains"].reshape(-1, shape.width)
    return made | gains


def _matrix(checkpoint: TransformerCheckpoint, name: str) -> Array:
    shape = checkpoint.shape
    if name == "positions" and shape.position_kind is not Positions.LEARNED:
        return sinusoids(shape.positions, shape.width)
    return checkpoint.tensors[f"{name}.weight"]


def _listed(name: str, vectors: list[tuple[Array, int, int]], dtype: Any) -> dict[str, Array]:
    q, mantissa, exponent = zip(*vectors, strict=True)
    return {
        name: np.concatenate(q).astype(dtype),
        f"{name}.mantissa": np.array(mantissa, np.int32),
        f"{name}.exponent": np.array(exponent, np.int16),
    }


def quantized(weight: Array, granularity: Granularity) -> tuple[Array, Array]:
    """(int8 in [-127, 127], the codes of its scales): q = round(weight * scale), half to even, scale <= 127 / max."""
    weight = np.asarray(weight, np.float64)
    codes = scale_codes(np.abs(weight).max(axis=1 if granularity is Granularity.ROW else None, keepdims=True))
    mantissa, exponent = scales_of(codes)
    q = np.rint(weight * np.ldexp(mantissa.astype(np.float64), exponent.astype(np.int64)))
    return q.astype(np.int8), codes.reshape(-1)


def rounded(values: Array, qmax: int) -> tuple[Array, int, int]:
    """(integers up to ``qmax``, mantissa, exponent of their one scale): zeros get the largest scale."""
    values = np.asarray(values, np.float64)
    top = float(np.abs(values).max(initial=0.0))
    if top < SMALLEST:
        return np.zeros(values.shape, np.int64), 2**31 - 1, EXPONENT.qmax
    mantissa, exponent = of_real(qmax / top)
    q = np.clip(np.rint(values * (qmax / top)), -qmax, qmax)
    return q.astype(np.int64), int(mantissa), int(exponent)
