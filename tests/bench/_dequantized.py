"""The float32 tensors that a shipped Integer Transformer stands for: what its float peers compute with."""

from __future__ import annotations

from typing import Any

import numpy as np

from intsim.models.transformer_checkpoint import attentions, linear_maps
from intsim.models.transformer_layout import PropagatedModel, used_norms

Array = np.ndarray[Any, Any]


def _real(q: Any, mantissa: Any, exponent: Any) -> Array:
    scale = np.ldexp(np.asarray(mantissa, np.float64), np.asarray(exponent, np.int64))
    return np.asarray(np.asarray(q) / scale.reshape(-1, *[1] * (np.ndim(q) - 1)), np.float32)


def tensors(model: PropagatedModel) -> dict[str, Array]:
    """By the names of a checkpoint, float32."""
    made: dict[str, Array] = {}
    for name in ("embedding", "positions"):
        made[f"{name}.weight"] = _real(
            *(model.tensors[f"{name}.{part}"] for part in ("weight", "mantissa", "exponent"))
        )
    for name in linear_maps(model.shape):
        p: Any = model.steps[f"{name}.bias"]
        # the ratio of a channel is the least of the scales over its own
        scale = np.ldexp(float(p.weight_mantissa), p.weight_exponent) / np.ldexp(
            p.ratio_mantissa.astype(np.float64), p.ratio_exponent
        )
        made[f"{name}.weight"] = np.asarray(model.tensors[f"{name}.weight"] / scale.reshape(-1, 1), np.float32)
        made[f"{name}.bias"] = _real(p.bias, p.bias_mantissa, p.bias_exponent)
    for name in used_norms(model.shape):
        p = model.steps[f"{name}.l1_norm"]
        made[f"{name}.weight"] = _real(p.weight, p.weight_mantissa, p.weight_exponent)
        made[f"{name}.bias"] = _real(p.bias, p.bias_mantissa, p.bias_exponent)
    for name in attentions(model.shape):
        p = model.steps[f"{name}.attention"].polynomial
        made[f"{name}.shift"] = _real(p.b, p.b_mantissa, p.b_exponent)
        root = _real(p.delta_root, p.delta_root_mantissa, p.delta_root_exponent)
        made[f"{name}.floor"] = np.asarray(root**p.degree, np.float32)
    return made
