"""The Integer Transformer with Scale Propagation: ids -> logits, by prepared operations and nothing else.

Every activation is integers with a scale a token (keys, queries and values: a token and head), found
from that token alone. So neither batch mates, padding nor a cache change a bit of the result.
Source: Lin et al. 2020 (arXiv 2009.08034); which choice is taken where it leaves one is in the options.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from intsim.execute import Prepared, prepare
from intsim.models.layout import Array
from intsim.models.transformer import Kept, Transformer
from intsim.models.transformer_checkpoint import linear_maps
from intsim.models.transformer_layout import PropagatedModel, check, step_ops


class Scaled(NamedTuple):
    """Integers with a scale for each row of the last axis: real = q / (mantissa * 2**exponent)."""

    q: Array
    mantissa: Array
    exponent: Array

    def real(self) -> Array:
        """float64, for the host."""
        scale = np.ldexp(self.mantissa.astype(np.float64), self.exponent.astype(np.int64))
        return np.asarray(self.q / scale[..., None])

    def reshaped(self, *rows: int) -> Scaled:
        """With other leading dimensions."""
        return Scaled(self.q.reshape(*rows, self.q.shape[-1]), self.mantissa.reshape(rows), self.exponent.reshape(rows))


class IntegerTransformer(Transformer[Scaled]):
    """Raises ValueError where ``model`` is not whole or ``backend`` is unknown. All backends agree to the bit."""

    def __init__(self, model: PropagatedModel, backend: str = "cpu") -> None:
        check(model)
        self.shape, self.options = model.shape, model.options
        self._t = dict(model.tensors)
        for name in ("embedding", "positions"):  # one scale for all is that of each row
            for part in ("mantissa", "exponent"):
                a = self._t[f"{name}.{part}"]
                self._t[f"{name}.{part}"] = np.array(np.broadcast_to(a, len(self._t[f"{name}.weight"])))
        self._steps: dict[str, Prepared] = {
            name: prepare(op, p=model.steps[name], backend=backend) for name, op in step_ops(model.shape).items()
        }
        product = step_ops(model.shape)["linear.matmul"]
        self._products = {
            name: prepare(
                product, p=model.steps["linear.matmul"], backend=backend, constant={"b": self._t[f"{name}.weight"]}
            )
            for name in ("embedding", *linear_maps(model.shape))
        }

    def _rescale(self, step: str, x: Scaled) -> Scaled:
        return Scaled(*self._steps[f"{step}.rescale"](x.q.astype(np.int32), x.mantissa, x.exponent))

    def _linear(self, name: str, x: Scaled) -> Scaled:
        acc = self._products[name](x.q)
        return Scaled(*self._steps[f"{name}.bias"](acc, x.mantissa, x.exponent))

    def embed(self, ids: Array, first: int) -> Scaled:
        places = np.broadcast_to(np.arange(first, first + ids.shape[1], dtype=np.int32), ids.shape)
        tables = [self._t[f"{name}.{part}"] for name in ("embedding", "positions") for part in _TABLE]
        made = self._steps["embedding.embed"](ids.reshape(-1), places.reshape(-1), *tables)
        return self._rescale("stream", Scaled(*made))

    def norm(self, name: str, x: Scaled) -> Scaled:
        return Scaled(*self._steps[f"{name}.l1_norm"](x.q.astype(np.int16)))

    def _heads(self, name: str, x: Scaled, texts: int) -> Scaled:
        """int8 [texts, tokens, heads, head width], a scale a token and head."""
        h, d = self.shape.heads, self.shape.head_width
        z = self._linear(name, x)
        by_head = [np.repeat(a, h).reshape(texts, -1, h) for a in (z.mantissa, z.exponent)]
        return self._rescale("head", Scaled(z.q.reshape(texts, -1, h, d), *by_head))

    def keys(self, name: str, x: Scaled, texts: int) -> Kept:
        return (*self._heads(f"{name}.key", x, texts), *self._heads(f"{name}.value", x, texts))

    def attend(self, name: str, x: Scaled, kept: Kept, stop: Array) -> Scaled:
        q = self._heads(f"{name}.query", x, stop.shape[0])
        z, *scale = self._steps[f"{name}.attention"](*q, *kept, stop)
        mixed = Scaled(z.reshape(-1, self.shape.width), *(a.reshape(-1) for a in scale))
        return self._linear(f"{name}.out", self._rescale("mixed", mixed))

    def feed(self, name: str, x: Scaled) -> Scaled:
        return self._linear(f"{name}.feed_down", self._rescale("hidden", self._linear(f"{name}.feed_up", x)))

    def add(self, x: Scaled, y: Scaled) -> Scaled:
        return self._rescale("stream", Scaled(*self._steps["stream.add"](*x, *y)))

    def narrow(self, x: Scaled) -> Scaled:
        return self._rescale("narrow", x)

    def rows(self, x: Scaled, chosen: Array) -> Scaled:
        return Scaled(*(a[chosen] for a in x))

    def logits(self, x: Scaled) -> Scaled:
        acc = self._products["embedding"](x.q)
        return Scaled(*self._steps["logits.bias"](acc, x.mantissa, x.exponent))

    def best(self, logits: Scaled) -> Array:
        return np.asarray(self._steps["logits.argmax"](logits.q))

    def real(self, logits: Scaled) -> Array:
        return logits.real()


_TABLE = ("weight", "mantissa", "exponent")
