"""Scale Propagation as the paper states it: integers whose scales are floats. For comparison, not for bits.

The tensors are those of the integer model, whole numbers throughout; only what is done to the scales,
and the ratio that follows from them, is float64. It says what integer scales cost, and what the paper
loses where it is read to the letter. NumPy's sums decide the last bit of a scale: two machines may differ.
Source: Lin et al. 2020 (arXiv 2009.08034), section 3.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from intsim.models.layout import Array
from intsim.models.transformer import Kept, Transformer
from intsim.models.transformer_layout import Options, PropagatedModel
from intsim.numerics import int8, int16, uint8
from intsim.ops.propagate import polynomial
from intsim.ops.propagate.l1_norm import WIDE

KEPT_BITS = {"embed": 16, "add": 8}  # that a match would cut: as in propagate.embed and propagate.add


class Reading(Enum):
    """What the paper leaves open, and is read in another way than the integer model reads it."""

    OURS = "floating"  #: as the integer model; only the scales are floats
    LITERAL = "literal"  #: every operation gives int8: bias, residual and gain too; the mean lies on the grid
    TENSOR = "tensor"  #: one scale for all rows of a call, attention weights aside: batch mates change results


class Scaled(NamedTuple):
    """Whole numbers [..., width], with a scale for each row: real = q / s. Both float64."""

    q: Array
    s: Array


class FloatingScales(Transformer[Scaled]):
    """The model of integers ``model`` under a reading. Raises ValueError for options other than the defaults."""

    def __init__(self, model: PropagatedModel, reading: Reading = Reading.OURS) -> None:
        if model.options != Options():
            raise ValueError("readings are compared for a model converted with the default options; convert one")
        self.shape, self.reading = model.shape, reading
        self._literal = reading is Reading.LITERAL
        self._steps: dict[str, Any] = dict(model.steps)
        self._residual = int8.qmax if self._literal else int16.qmax
        self._t = {name: a.astype(np.float64) for name, a in model.tensors.items() if name.endswith("weight")}
        for name in ("embedding", "positions"):
            made = _real(model.tensors[f"{name}.mantissa"], model.tensors[f"{name}.exponent"])
            self._t[f"{name}.scale"] = np.broadcast_to(made, len(self._t[f"{name}.weight"]))

    # -- the protocol of the paper -------------------------------------------------------------------

    def _rescale(self, x: Scaled, qmax: int = int8.qmax) -> Scaled:
        top = np.abs(x.q).max(axis=-1, keepdims=True)
        if self.reading is Reading.TENSOR:
            s = x.s.min()
            x = Scaled(_round(x.q * (s / x.s)[..., None]), np.full_like(x.s, s))
            top = np.abs(x.q).max(keepdims=True)
        ratio = np.where(top <= qmax, 1.0, qmax / np.maximum(top, 1))
        return Scaled(_round(x.q * ratio), x.s * np.broadcast_to(ratio, (*x.s.shape, 1))[..., 0])

    @staticmethod
    def _sum(x: Scaled, y: Scaled) -> Scaled:
        """Both on the smaller scale, where neither grows."""
        s = np.minimum(x.s, y.s)
        return Scaled(_round(x.q * (s / x.s)[..., None]) + _round(y.q * (s / y.s)[..., None]), s)

    def _with_constant(self, x: Scaled, q: Any, s: float) -> Scaled:
        """Plus a constant, which the literal reading holds in int8."""
        constant = Scaled(np.asarray(q, np.float64), np.array(s))
        if self._literal:
            x = self._rescale(x)
            top = np.abs(constant.q).max(initial=1)
            constant = Scaled(_round(constant.q * (int8.qmax / top)), constant.s * (int8.qmax / top))
        return self._sum(x, Scaled(constant.q, np.broadcast_to(constant.s, x.s.shape)))

    def _onto_one(self, acc: Array, s: Array, name: str) -> tuple[Scaled, Any]:
        """Channels on the smallest of their scales, and the parameters that say it."""
        p = self._steps[f"{name}.bias"]
        ratio = _real(p.ratio_mantissa, p.ratio_exponent)
        return Scaled(_round(acc * ratio), s * _real(p.weight_mantissa, p.weight_exponent)), p

    def _linear(self, name: str, x: Scaled) -> Scaled:
        made, p = self._onto_one(x.q @ self._t[f"{name}.weight"].T, x.s, name)
        return self._with_constant(made, p.bias, _real(p.bias_mantissa, p.bias_exponent))

    # -- the layers ----------------------------------------------------------------------------------

    def embed(self, ids: Array, first: int) -> Scaled:
        p = self._steps["embedding.embed"]
        places = np.broadcast_to(np.arange(first, first + ids.shape[1]), ids.shape).reshape(-1)
        kept = 1.0 if self._literal else 2.0 ** KEPT_BITS["embed"]
        factor = _real(p.factor_mantissa, p.factor_exponent)
        parts = [
            Scaled(self._t[f"{name}.weight"][rows] * kept, self._t[f"{name}.scale"][rows] * kept * by)
            for name, rows, by in (("embedding", ids.reshape(-1), factor), ("positions", places, 1.0))
        ]
        return self._rescale(self._sum(*parts), self._residual)

    def norm(self, name: str, x: Scaled) -> Scaled:
        p, n = self._steps[f"{name}.l1_norm"], x.q.shape[-1]
        total = x.q.sum(axis=-1, keepdims=True)
        c = x.q - _round(total / n) if self._literal else n * x.q - total
        s = np.maximum(np.abs(c).sum(axis=-1), 1) / n
        c, s = self._rescale(Scaled(c, s), int8.qmax if self._literal else WIDE)
        made = Scaled(c * p.weight, s * _real(p.weight_mantissa, p.weight_exponent))
        qmax = min(p.dtype.qmax, self._residual)  # 16 bits where the result runs through the layers
        return self._rescale(self._with_constant(made, p.bias, _real(p.bias_mantissa, p.bias_exponent)), qmax)

    def _heads(self, name: str, x: Scaled, texts: int) -> Scaled:
        """[texts, tokens, heads, head width], a scale a token and head."""
        h, d = self.shape.heads, self.shape.head_width
        z = self._linear(name, x)
        return self._rescale(Scaled(z.q.reshape(texts, -1, h, d), np.repeat(z.s, h).reshape(texts, -1, h)))

    def keys(self, name: str, x: Scaled, texts: int) -> Kept:
        return (*self._heads(f"{name}.key", x, texts), *self._heads(f"{name}.value", x, texts))

    def attend(self, name: str, x: Scaled, kept: Kept, stop: Array) -> Scaled:
        p = self._steps[f"{name}.attention"].polynomial
        q, s_q = self._heads(f"{name}.query", x, stop.shape[0])
        k, s_k, v, s_v = (np.swapaxes(a, 1, 2) for a in kept)  # [texts, heads, columns, ...]
        t = np.swapaxes(q, 1, 2) @ np.swapaxes(k, -1, -2)
        seen = (np.arange(k.shape[2]) < stop[..., None])[:, None]
        root = _real(p.root_mantissa, p.root_exponent)
        s_t = np.swapaxes(s_q, 1, 2)[..., None] * root * s_k[:, :, None]
        w, s = self._weights(t, s_t, seen, p)
        s_v = np.broadcast_to(s_v[:, :, None], w.shape)
        least = np.where(seen, s_v, np.inf).min(axis=-1, keepdims=True)
        w = _round(np.where(seen, w * (least / s_v), 0.0))
        qmax = int8.qmax if self._literal else uint8.qmax
        top = np.maximum(w.max(axis=-1, keepdims=True), 1)
        ratio = np.where(top <= qmax, 1.0, qmax / top)
        z = np.swapaxes(_round(w * ratio) @ v, 1, 2)  # [texts, tokens, heads, head width]
        s = np.swapaxes((s * least * ratio)[..., 0], 1, 2)
        joint = s.min(axis=-1, keepdims=True)
        z = _round(z * (joint / s)[..., None]).reshape(-1, self.shape.width)
        return self._linear(f"{name}.out", self._rescale(Scaled(z, joint.reshape(-1))))

    def _weights(self, t: Array, s_t: Array, seen: Array, p: polynomial.Params) -> tuple[Array, Array]:
        """(what stands above the fraction, whole numbers; the sum of them): a row each, before the values' scales."""

        def head(a: Any) -> Array:
            return np.broadcast_to(np.asarray(a, np.float64), self.shape.heads)[None, :, None, None]

        s_b, s_root = (head(_real(m, e)) for m, e in (
            (p.b_mantissa, p.b_exponent), (p.delta_root_mantissa, p.delta_root_exponent)))  # fmt: skip
        delta_root = head(p.delta_root) / s_root
        s = np.where(seen, s_t, np.inf).min(axis=-1, keepdims=True)
        s = np.minimum(np.minimum(s, s_b), s_root)
        u = _round(t * (s / s_t)) + _round(head(p.b) * (s / s_b))
        r = np.where(seen, np.maximum(u, 0), 0)
        top = np.maximum(np.maximum(r.max(axis=-1, keepdims=True), _round(delta_root * s)), 1)
        ratio = np.where(top <= polynomial.TOP, 1.0, polynomial.TOP / top)
        r, s = _round(r * ratio), s * ratio
        w = np.where(seen, r**p.degree + _round((delta_root * s) ** p.degree), 0)
        return w, np.maximum(w.sum(axis=-1, keepdims=True), 1)

    def feed(self, name: str, x: Scaled) -> Scaled:
        z = self._linear(f"{name}.feed_up", x)
        if self._literal:
            z = self._rescale(z)
        hidden = self._rescale(Scaled(np.maximum(z.q, 0), z.s))
        return self._linear(f"{name}.feed_down", hidden)

    def add(self, x: Scaled, y: Scaled) -> Scaled:
        if self._literal:
            return self._rescale(self._sum(x, self._rescale(y)), self._residual)
        kept = 2.0 ** KEPT_BITS["add"]
        return self._rescale(self._sum(Scaled(x.q * kept, x.s * kept), y), self._residual)

    def narrow(self, x: Scaled) -> Scaled:
        return self._rescale(x)

    def rows(self, x: Scaled, chosen: Array) -> Scaled:
        return Scaled(*(a[chosen] for a in x))

    def logits(self, x: Scaled) -> Scaled:
        made, _ = self._onto_one(x.q @ self._t["embedding.weight"].T, x.s, "logits")
        return made

    def best(self, logits: Scaled) -> Array:
        return np.asarray(logits.q.argmax(axis=-1), np.int32)

    def real(self, logits: Scaled) -> Array:
        return np.asarray(logits.q / logits.s[..., None])


def _real(mantissa: Any, exponent: Any) -> Any:
    """The float64 that an integer scale is."""
    return np.ldexp(np.asarray(mantissa, np.float64), np.asarray(exponent, np.int64))


def _round(x: Any) -> Any:
    """To the nearest, halves away from zero."""
    return np.trunc(x + np.copysign(0.5, x))
