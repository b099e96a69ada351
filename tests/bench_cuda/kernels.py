"""Tuned CUDA kernels beside cuBLASLt (torch._int_mm), float16 products and a copy. Needs a GPU and PyTorch.

python tests/bench_cuda/kernels.py [products] [vector] [four_bits] [saturating] [rows] [every_accumulator]

A figure is the median of 7 replays of a CUDA graph of several launches, between device events. Every result is
compared before it is timed: with an exact product in float64, or with the generic kernel of the same op.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import numpy as np
import torch

import intsim
from intsim.analysis import exhaustive
from intsim.backends.cuda_arrays import driver
from intsim.backends.cuda_compile import Kernel
from intsim.backends.cuda_intrinsics import cuda, int64, load_16, store_16
from intsim.backends.cuda_queue import Queue
from intsim.composites.linear import single_rounding as linear
from intsim.numerics import IntType, Nibbles, Overflow, Rounding, int4, int8, int24, int32
from intsim.ops.activation import table
from intsim.ops.layernorm import ibert as layernorm
from intsim.ops.matmul import integer as matmul
from intsim.ops.requantize import double_rounding, single_rounding
from intsim.ops.softmax import ibert as softmax

PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 8192), (4096, 768, 3072), (1024, 1024, 1024), (128, 768, 3072))
FUSED = ((4096, 768, 768), (4096, 768, 2304), (4096, 768, 3072), (4096, 3072, 768))  # m, k, n
STREAM = torch.cuda.Stream()


def milliseconds(work: Callable[[], Any], launches: int = 20) -> float:
    """Of one call of ``work``."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=STREAM, capture_error_mode="relaxed"):
        kept = [work() for _ in range(launches)]  # results of their own: none is written while another is read
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()
    found = []
    for _ in range(7):
        start.record(STREAM)
        graph.replay()
        end.record(STREAM)
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / launches)
    del kept
    return statistics.median(found)


def drawn(shape: tuple[int, ...], low: int = -128, high: int = 127, dtype: Any = torch.int8) -> torch.Tensor:
    """Uniform, with both ends in every few elements."""
    made = torch.randint(low, high + 1, shape, dtype=dtype, device="cuda")
    flat = made.view(-1)
    flat[::7], flat[3::11] = low, high
    return made


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    if not torch.equal(got, wanted):
        sys.exit(f"{int((got != wanted).sum())} of {wanted.numel()} elements differ: no figure is worth anything")


def exact(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    rows = [(a[i : i + 1024].double() @ b.double().T).long() + bias.long() for i in range(0, len(a), 1024)]
    return torch.cat([(r + 2**31) % 2**32 - 2**31 for r in rows]).int()


def tops(m: int, n: int, k: int, ms: float) -> str:
    return f"{2 * m * n * k / ms / 1e9:.0f} TOPS"


def show(name: str, ms: float, others: dict[str, float], rate: str = "") -> None:
    ratios = "  ".join(f"{ms_other / ms:.2f}x {other}" for other, ms_other in others.items())
    click.echo(f"{name:44} {ms * 1e3:9.2f} us  {rate:14} {ratios}")


def peers(a: torch.Tensor, b: torch.Tensor, launches: int) -> dict[str, float]:
    x, w = (torch.randn(t.shape, device="cuda", dtype=torch.float16) for t in (a, b))
    half = milliseconds(partial(torch.mm, x, w.t()), launches)
    return {"_int_mm": milliseconds(partial(torch._int_mm, a, b.t()), launches), "fp16": half}


def products() -> None:
    for m, k, n in dict.fromkeys((*PRODUCTS, *FUSED)):
        a, b, bias = drawn((m, k)), drawn((n, k)), drawn((n,), -100000, 100000, torch.int32)
        launches = 3 if m * n * k > 10**11 else 20
        others, rate = peers(a, b, launches), partial(tops, m, n, k)
        wanted = exact(a, b, bias)
        run = intsim.prepare("matmul.integer", p=matmul.Params(), backend="cuda", constant={"b": b, "bias": bias})
        same(run(a), wanted)
        ms = milliseconds(partial(run, a), launches)
        show(f"int8 product {m}x{k}x{n} to int32", ms, others, rate(ms))
        if (m, k, n) in FUSED or m > 2048:
            scale = np.random.default_rng(0).uniform(0.5, 1.0, n) * 80 / (5500 * k**0.5)
            p = linear.Params(
                matmul.Params(),
                single_rounding.Params.from_scale(scale, zero_point=-3, rounding=Rounding.TIES_TO_POSITIVE),
            )
            fused = intsim.prepare("linear.single_rounding", p=p, backend="cuda", constant={"b": b, "bias": bias})
            apart = intsim.prepare("requantize.single_rounding", p=p.requantize, backend="cuda", tuned=False)
            same(fused(a), apart(wanted))
            ms = milliseconds(partial(fused, a), launches)
            show(f"  with bias, requantized to int8 {m}x{k}x{n}", ms, others, rate(ms))


def vector() -> None:
    k = n = 4096
    a, half = drawn((1, k)), torch.randn(1, k, device="cuda", dtype=torch.float16)
    weights = [drawn((n, k)) for _ in range(6)]  # 96 MiB: more than the L2 cache holds
    halves = [torch.randn(n, k, device="cuda", dtype=torch.float16) for _ in range(6)]
    zero = torch.zeros(n, dtype=torch.int32, device="cuda")
    runs = [
        intsim.prepare("matmul.integer", p=matmul.Params(), backend="cuda", constant={"b": b, "bias": zero})
        for b in weights
    ]
    same(runs[0](a), exact(a, weights[0], zero))
    ms = milliseconds(lambda: [run(a) for run in runs], 4) / 6
    other = milliseconds(lambda: [torch.mm(half, w.t()) for w in halves], 4) / 6
    show(f"vector times matrix 1x{k}x{n}", ms, {"fp16": other}, f"{n * k / ms / 1e6:.0f} GB/s")


def four_bits() -> None:
    m = k = n = 4096
    a, packed = drawn((m, k)), drawn((n, k // 2), 0, 255, torch.uint8)
    low, high = (packed.int() & 15), (packed.int() >> 4)
    b = torch.stack([low, high], -1).view(n, k)
    b = ((b ^ 8) - 8).to(torch.int8)
    zero = torch.zeros(n, dtype=torch.int32, device="cuda")
    p = matmul.Params(b=int4, nibbles=Nibbles.LOW_FIRST)
    wanted, others = exact(a, b, zero), peers(a, b, 20)
    kept = intsim.prepare("matmul.integer", p=p, backend="cuda", constant={"b": packed, "bias": zero})
    anew = intsim.prepare("matmul.integer", p=p, backend="cuda")
    same(kept(a), wanted)
    same(anew(a, packed), wanted)
    for name, work in (
        ("weights constant", partial(kept, a)),
        ("weights unpacked each call", partial(anew, a, packed)),
    ):
        ms = milliseconds(work)
        show(f"int8 x int4 product {m}x{k}x{n}, {name}", ms, others, f"{2 * m * n * k / ms / 1e9:.0f} TOPS")


def saturating() -> None:
    for m, k, n in ((4096, 768, 3072), (1024, 1024, 1024), (128, 768, 3072)):
        a, b, bias = drawn((m, k)), drawn((n, k)), drawn((n,), -10000, 10000, torch.int32)
        p = matmul.Params(acc=IntType(20), overflow=Overflow.SATURATE)
        tile, plain = (
            intsim.prepare("matmul.integer", p=p, backend="cuda", tuned=where, constant={"b": b, "bias": bias})
            for where in (True, "intsim.ops.matmul._cuda_tile:matmul")
        )
        same(tile(a), plain(a))
        ms = milliseconds(partial(tile, a), 4)
        others = {"plain tile": milliseconds(partial(plain, a), 1)}
        show(f"saturating after every term {m}x{k}x{n}", ms, others, f"{2 * m * n * k / ms / 1e9:.1f} TOPS")


def _copy_16(source: int, out: int, count: int) -> None:
    at = (int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x) * 16
    if at < count:
        a, b, c, d = load_16(source + at)
        store_16(out + at, a, b, c, d)


def copy_rate() -> float:
    """Bytes read and written a millisecond by a plain copy."""
    x = drawn((2**30,))
    y, kernel = torch.empty_like(x), Kernel(_copy_16)
    queue = Queue(driver().current(), STREAM.cuda_stream, None, None, {}, "")
    ms = milliseconds(partial(queue.launch, kernel, 2**30 // 4096, 256, x.data_ptr(), y.data_ptr(), 2**30), 4)
    same(y, x)
    rate = 2 * 2**30 / ms
    click.echo(f"copy of 1 GiB, 16 bytes a thread: {rate / 1e6:.0f} GB/s")
    return rate


def rows() -> None:
    rate, works = copy_rate(), []
    n = 3072
    positive, rng = Rounding.TIES_TO_POSITIVE, np.random.default_rng(1)
    p = single_rounding.Params.from_scale(rng.uniform(1e-8, 1e-6, n), zero_point=-3, rounding=positive)
    acc = drawn((65536, n), -(2**31), 2**31 - 1, torch.int32)
    works.append(("requantize 65536x3072", "requantize.single_rounding", p, (acc,), 5))
    byte = drawn((16384, 65536))
    works.append(("table 2**30", "activation.table", table.Params(), (byte, drawn((256,))), 2))
    for n in (128, 512):
        q = drawn((2**27 // n, n), -5000, 5000, torch.int32)
        p_softmax = softmax.Params.from_scale(0.002, q=int32)
        works.append((f"softmax {2**27 // n}x{n}", "softmax.ibert", p_softmax, (q,), 5))
        stop = torch.randint(1, n + 1, (2**27 // n,), dtype=torch.int32, device="cuda")
        works.append((f"softmax {2**27 // n}x{n}, masked", "softmax.ibert", p_softmax, (q, stop), 5))
    x = drawn((131072, 768), -100000, 100000, torch.int32)
    works.append(("layernorm 131072x768", "layernorm.ibert", layernorm.Params(0, int24, int32), (x,), 8))
    for name, op, params, given, width in works:
        run = intsim.prepare(op, p=params, backend="cuda")
        plain = intsim.prepare(op, p=params, backend="cuda", tuned=False)
        some = tuple(g[:2048] if len(g) == len(given[0]) else g for g in given)
        same(run(*given)[:2048], plain(*some))
        ms = milliseconds(partial(run, *given), 2)
        speed = given[0].numel() * width / ms
        click.echo(f"{name:44} {ms * 1e3:9.2f} us  {speed / 1e6:.0f} GB/s  {speed / rate:.3f} of the copy")


def every_accumulator() -> None:
    fields: dict[str, Any] = {"multiplier": 1518500250, "shift": 54, "dtype": int8}
    one = "requantize.single_rounding", single_rounding.Params(**fields, rounding=Rounding.TIES_TO_POSITIVE)
    others = {
        "ties away": ("requantize.single_rounding", single_rounding.Params(**fields, rounding=Rounding.TIES_TO_AWAY)),
        "double rounding": ("requantize.double_rounding", double_rounding.Params(**fields)),
        "itself": one,
    }
    works = {
        f"against {name}{', by program' * by_program}": partial(
            exhaustive.differences, one, other, by_program=by_program
        )
        for name, other in others.items()
        for by_program in (False, True)
    }
    works["the 32-bit form against its program"] = partial(exhaustive.narrow_differs, *others["ties away"])
    for name, work in works.items():
        found = work()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            work()  # waits for the result
            times.append((time.perf_counter() - start) * 1e3)
        ms = statistics.median(times)
        click.echo(f"2**32 accumulators {name:36} {ms:9.2f} ms, differ on {found}")


PARTS = {part.__name__: part for part in (products, vector, four_bits, saturating, rows, every_accumulator)}


def main(names: list[str]) -> None:
    gpu = driver().current()
    versions = f"driver {driver().version()}, torch {torch.__version__}, Python {platform.python_version()}"
    click.echo(f"{gpu.name}, {versions}; ratios: time of the other over that of intsim")
    with torch.cuda.stream(STREAM):
        for name in names or PARTS:
            PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
