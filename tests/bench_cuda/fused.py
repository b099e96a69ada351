"""Composites in one kernel beside the same composites stage by stage, and attention beside PyTorch's in float16.

python tests/bench_cuda/fused.py [attention] [linear] [residual]

Needs a GPU and PyTorch. A figure is the median of 7 replays of a CUDA graph of several launches, between device
events; every result is compared with that of the stages before it is timed.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click
import numpy as np
import torch
from kernels import STREAM, drawn, exact, milliseconds, same, show

import intsim
from intsim.backends.cuda_arrays import driver
from intsim.ops.activation import table
from intsim.ops.matmul import integer as matmul
from intsim.registry import get

STAGES = "the stages"  # the name of no kernel: the composite runs stage by stage, each by its own tuned kernel


def attention() -> None:
    heads, width = 12, 64
    for batch, tokens in ((1, 128), (8, 128), (32, 128), (1, 512), (8, 512), (32, 512)):
        q, k, v = (drawn((batch, heads, tokens, width)) for _ in range(3))
        half = [a.half() / 64 for a in (q, k, v)]
        sdpa = milliseconds(partial(torch.nn.functional.scaled_dot_product_attention, *half))
        for variant in ("ibert", "gemmlowp", "polynomial"):
            op = get(f"attention.{variant}")
            p = op.params.from_scales(0.02, 0.02, 0.03, 0.02, width)
            fused, apart = (intsim.prepare(op, p=p, backend="cuda", tuned=how) for how in (True, STAGES))
            same(fused(q, k, v), apart(q, k, v))
            ms = milliseconds(partial(fused, q, k, v))
            others = {"fp16 sdpa": sdpa}
            if batch * tokens <= 1024:  # the stages take a launch a head
                others["stages"] = milliseconds(partial(apart, q, k, v), 2)
            rate = f"{4 * batch * heads * tokens * tokens * width / ms / 1e9:.0f} TOPS"
            show(f"attention.{variant} {batch}x{heads}x{tokens}x{width}", ms, others, rate)


def linear() -> None:
    for m, k, n in ((128, 768, 3072), (4096, 768, 768), (4096, 768, 3072), (4096, 3072, 768)):
        a, b, bias = drawn((m, k)), drawn((n, k)), drawn((n,), -100000, 100000, torch.int32)
        int_mm = milliseconds(partial(torch._int_mm, a, b.t()))
        scale = np.random.default_rng(0).uniform(0.5, 1.0, n) * 80 / (5500 * k**0.5)
        for variant in ("single_rounding", "double_rounding", "float32_ties_even", "tabulated"):
            op: Any = get(f"linear.{variant}")
            inner = get(f"linear.{'single_rounding' if variant == 'tabulated' else variant}").params
            p = inner.from_scales(1.0, scale, 1.0, matmul.Params(), zero_point=-3)
            given: tuple[torch.Tensor, ...] = ()
            if variant == "tabulated":
                p, given = op.params(p.matmul, p.requantize, table.Params()), (drawn((256,)),)
            constant = {"b": b, "bias": bias}
            fused, apart = (
                intsim.prepare(op, p=p, backend="cuda", tuned=how, constant=constant) for how in (True, STAGES)
            )
            same(fused(a, *given), apart(a, *given))
            ms = milliseconds(partial(fused, a, *given))
            others = {"stages": milliseconds(partial(apart, a, *given)), "_int_mm alone": int_mm}
            show(f"linear.{variant} {m}x{k}x{n}", ms, others, f"{2 * m * n * k / ms / 1e9:.0f} TOPS")
    same(torch._int_mm(a, b.t()) + bias, exact(a, b, bias))


def normed(x: torch.Tensor) -> torch.Tensor:
    """What PyTorch has of it: the sum of two tensors, and its layer normalization."""
    return torch.nn.functional.layer_norm(x + x, x.shape[-1:])


def residual() -> None:
    op: Any = get("residual.ibert")
    for m, n in ((128, 768), (4096, 768), (65536, 768)):
        a, b = (drawn((m, n), -30000, 30000, torch.int16) for _ in range(2))
        p = op.params.from_scale(np.random.default_rng(0).uniform(0.5, 1, n) * 2.0**-17)
        fused, apart = (intsim.prepare(op, p=p, backend="cuda", tuned=how) for how in (True, STAGES))
        for got, wanted in zip(fused(a, b), apart(a, b), strict=True):
            same(got, wanted)
        ms = milliseconds(partial(fused, a, b), 5)
        half = a.half()
        norm = milliseconds(partial(normed, half), 5)
        others = {"stages": milliseconds(partial(apart, a, b), 2), "fp16 add, layer_norm": norm}
        show(f"residual.ibert {m}x{n}", ms, others, f"{m * n * 7 / ms / 1e6:.0f} GB/s")


def main() -> None:
    click.echo(f"{driver().current().name}; ratios: time of the other over that of one kernel")
    parts = {part.__name__: part for part in (attention, linear, residual)}
    with torch.cuda.stream(STREAM):
        for name in sys.argv[1:] or parts:
            parts[name]()


if __name__ == "__main__":
    main()
