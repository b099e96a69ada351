"""What a launch costs: one op and a small model, called, frozen, and in a CUDA graph. Needs a GPU and PyTorch.

python tests/bench_cuda/launch.py
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch

import intsim
from intsim.backends.cuda_arrays import driver
from intsim.registry import get

LAYERS = 50


def host_us(function: Callable[[], Any], count: int) -> tuple[float, float]:
    """Microseconds a call: of the host alone, and until the GPU is done; medians of 7."""
    function()
    torch.cuda.synchronize()
    host, whole = [], []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(count):
            function()
        host.append((time.perf_counter() - start) / count * 1e6)
        torch.cuda.synchronize()
        whole.append((time.perf_counter() - start) / count * 1e6)
    return statistics.median(host), statistics.median(whole)


def show(name: str, figures: tuple[float, float], kernels: int = 1) -> None:
    host, whole = figures
    click.echo(f"{name:58} {host:9.2f} us host {whole:9.2f} us whole {whole / kernels:8.2f} us a kernel")


def main() -> None:
    gpu = driver().current()
    versions = f"{driver().version()}, torch {torch.__version__}, python {platform.python_version()}"
    click.echo(f"{gpu.name}, driver {versions}")
    op = get("requantize.single_rounding")
    p = op.params.from_scale(0.01)
    x = torch.randint(-1000, 1000, (64, 64), dtype=torch.int32, device="cuda")
    prepared = intsim.prepare(op, p=p, backend="cuda", tuned=False)
    wanted = intsim.run(op, x.cpu().numpy(), p=p, backend="reference")
    frozen, graph = intsim.freeze(prepared, x), intsim.capture(prepared, x)
    for run in (lambda: prepared(x), frozen, graph):
        assert np.array_equal(run().cpu().numpy(), wanted)
    show("torch.add", host_us(lambda: torch.add(x, x, out=x.clone()) is None, 500))
    show("one op, prepared, on a torch tensor", host_us(lambda: prepared(x), 500))
    show("one op, frozen", host_us(frozen, 2000))
    show("one op, frozen, stream given", host_us(lambda: frozen(0), 2000))
    show("one op, in a graph", host_us(graph, 2000))

    scale, back = get("requantize.single_rounding"), get("matmul.integer")
    weights = np.resize(np.arange(-9, 9, dtype=np.int8), (64, 64))
    product = intsim.prepare(back, p=back.params(), backend="cuda", constant={"b": weights}, tuned=False)
    smaller = intsim.prepare(scale, p=scale.params.from_scale(0.002), backend="cuda", tuned=False)

    def model(a: Any) -> Any:
        for _ in range(LAYERS):
            a = smaller(product(a))
        return a

    a = torch.randint(-128, 128, (8, 64), dtype=torch.int8, device="cuda")
    eager = model(a)
    frozen, graph = intsim.freeze(model, a), intsim.capture(model, a)
    assert torch.equal(eager, frozen())
    assert torch.equal(eager, graph())
    assert graph.launches == 2 * LAYERS
    show(f"model of {graph.launches} kernels, prepared", host_us(lambda: model(a), 5), graph.launches)
    show(f"model of {graph.launches} kernels, frozen", host_us(frozen, 50), graph.launches)
    show(f"model of {graph.launches} kernels, graph", host_us(graph, 50), graph.launches)

    def chain(a: Any) -> None:
        for _ in range(2 * LAYERS):
            prepared(a)

    for count in (32, 4096):
        small = torch.zeros((1, count), dtype=torch.int32, device="cuda")
        show(f"100 requantizations of {count} values, graph", host_us(intsim.capture(chain, small), 50), 2 * LAYERS)

    with torch.cuda.graph(captured := torch.cuda.CUDAGraph()):
        inside = prepared(x)
    x.add_(1)
    captured.replay()
    again = intsim.run(op, x.cpu().numpy(), p=p, backend="reference")
    click.echo(f"inside torch.cuda.graph: {np.array_equal(inside.cpu().numpy(), again)}")

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        y = x + 1
        out = prepared(y)
    side.synchronize()
    same = np.array_equal(out.cpu().numpy(), intsim.run(op, y.cpu().numpy(), p=p))
    click.echo(f"on a side stream: {same}")

    rows()


def rows() -> None:
    """Generic rowwise kernels, by how many threads go through a row together."""
    from intsim.backends import cuda

    op, chosen = get("softmax.ibert"), cuda.lanes_a_row
    p = op.params.from_scale(0.01)
    for count, length in ((4096, 128), (65536, 128), (4096, 768), (64, 32768)):
        q = torch.randint(-2000, 0, (count, length), dtype=torch.int16, device="cuda")
        wanted = None
        for lanes in (1, 32, 256, 0):
            cuda.lanes_a_row = (lambda *_, n=lanes: n) if lanes else chosen
            graph = intsim.capture(intsim.prepare(op, p=p, backend="cuda", tuned=False), q)
            _, whole = host_us(graph, 2 if lanes == 1 else 20)
            wanted = graph().clone() if wanted is None else wanted
            assert torch.equal(graph(), wanted)
            rate, by = q.numel() * 3 / whole / 1e3, f"{lanes} threads a row" if lanes else "as chosen"
            click.echo(f"softmax.ibert {count} x {length}, {by}: {whole:.1f} us, {rate:.1f} GB/s")


if __name__ == "__main__":
    main()
