"""Proves stated equivalences by exhaustion: every mutant whose entry in ``equivalent.toml`` names a domain.

    python tests/meta/exhaust.py            all of them, some minutes
    python tests/meta/exhaust.py ieee       only files whose path holds a word

The functions, as they stand and as the mutant has them, are compiled and compared over the whole domain. Where
that is too large, both are narrowed first: each number that counts bits is put down by the same measure
(float64's 53 bits to 5, the 60 bits of a sum to 12), and all numbers of that width are run. Exit code 1 where
two results differ.
"""

from __future__ import annotations

import ast
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from mutants import ROOT, mutants

sys.path.insert(0, str(ROOT))
from intsim.compiling import portable
from intsim.records import TypeRecord

STATED = Path(__file__).with_name("equivalent.toml")
SCALAR = ("rounding", "functions", "fixed_point", "fixed_point16", "ieee", "scale", "tflite")  # callees first

FLOAT64 = {52: 4, 53: 5, 54: 6, 56: 8, 58: 10, 59: 11, 60: 12, 61: 13, 62: 14, 63: 15}
FLOAT64 |= {25: 1, 26: 2, 27: 3, 31: 7, 32: 8, 33: 9}  # times_float64: halves of a mantissa, bits of the integer
FLOAT32 = {23: 3, 24: 4, 29: 9, 30: 10, 31: 11, 59: 11, 60: 12, 61: 13, 62: 14, 63: 15, 149: 9}
SCALES = {29: 4, 30: 5, 31: 6, 32: 7, 60: 10, 61: 11, 62: 12, 63: 13}


class _Narrowed(ast.NodeTransformer):
    def __init__(self, widths: Mapping[int, int]) -> None:
        self.widths = widths

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant(self.widths.get(node.value, node.value)) if type(node.value) is int else node


def compiled(changed: str, source: str, widths: Mapping[int, int]) -> dict[str, Any]:
    """Every scalar function, with ``source`` in the place of the file ``changed``."""
    names: dict[str, Any] = {"portable": portable, "Int": Any}
    for name in SCALAR:
        file = f"intsim/scalar/{name}.py"
        tree = ast.parse(source if file == changed else (ROOT / file).read_text())
        own = ("intsim.scalar", "intsim.compiling")
        tree.body = [s for s in tree.body if not (isinstance(s, ast.ImportFrom) and str(s.module).startswith(own))]
        exec(compile(ast.fix_missing_locations(_Narrowed(widths).visit(tree)), file, "exec"), names)
        names |= {f"{name}.{k}": v for k, v in names.items() if "." not in k}
    return names


def _all(function: Any, low: int, high: int) -> Callable[[], Any]:
    """One result a number, 2**20 at a time."""

    @portable
    def run(start: int, count: int) -> Any:
        out = np.empty(count, np.int64)
        for i in range(count):
            out[i] = function(start + i)
        return out

    return lambda: (run(start, min(2**20, high - start)) for start in range(low, high, 2**20))


def int16(f: dict[str, Any]) -> Any:
    """The logistic function and tanh of all int16, and of all that is left of them after shifts: the same ones."""
    for name in ("logistic16", "tanh16"):
        yield from _all(f[f"fixed_point16.{name}"], -(2**15), 2**15)()


def exponential(f: dict[str, Any]) -> Any:
    """Q0.31 on [-1/4, 0]: every value of the series; other inputs repeat them, and multiply what comes of them."""
    e = f["fixed_point.exp_of_negative"]
    one = portable(lambda a: e(a, 0))
    yield from _all(one, -(2**29), 1)()


def inverse_square_root(f: dict[str, Any]) -> Any:
    """All of its domain."""
    yield from _all(f["tflite.inverse_square_root"], 0, 2**29)()


def logistic(f: dict[str, Any]) -> Any:
    """Signs are all that is changed: 0 and its neighbours, in every format."""
    for name, most in (("tflite.logistic", 6), ("tflite.tanh", 5)):
        yield np.array([f[name](a, bits) for bits in range(most) for a in range(-70, 71)])


def bit_length(f: dict[str, Any]) -> Any:
    """Only the highest bit counts: every power of two with all zeros and all ones below it."""
    yield np.array([f["functions.bit_length"](v) for k in range(62) for v in ((1 << k) - 1, 1 << k)])


def rounding(f: dict[str, Any]) -> Any:
    """All numbers of nine bits by all rules, shifts to 9 and divisors to 40; types of up to 8 bits, and of 62 to 64."""
    shift, divide, fit = f["rounding.shift_right"], f["rounding.divide"], f["rounding.fit"]
    for rule in range(9):
        yield np.array([shift(x, s, rule) for x in range(-300, 301) for s in range(10)])
        yield np.array([divide(x, d, rule) for x in range(-300, 301) for d in range(1, 41)])
    types = [(b, -(1 << (b - 1)), (1 << (b - 1)) - 1) for b in (*range(2, 9), 62, 63, 64)]
    types += [(b, 0, (1 << b) - 1) for b in range(1, 9)] + [
        (b, 1 - (1 << (b - 1)), (1 << (b - 1)) - 1) for b in (2, 4, 8)
    ]
    for t in (TypeRecord(*t) for t in types):
        yield np.array([fit(x, t, o) for x in (*range(-300, 301), 2**61, -(2**61), 2**62 - 1) for o in (0, 1)])


def float64(f: dict[str, Any]) -> Any:
    """Sums, quotients and products of a float of 5 bits: all of them, at all distances."""
    total, quotient = f["ieee.sum64"], f["ieee.divide64"]
    normal, product, integer = f["ieee.normal64"], f["ieee.times_float64"], f["ieee.to_integer"]

    @portable
    def sums(gap: int, out: Any) -> None:
        n = 2**8  # the domain of _sum is 2**10 here: |b| takes all of that where a is a float
        for a in range(n):
            for b in range(-4 * n + 1, 4 * n):
                m, e = total(a, gap, b, 0)
                m = (abs(m) << (e + 40)) if e < 23 else abs(m) | (e << 40)
                out[a, b + 4 * n] = m

    for gap in range(-17, 18):
        out = np.zeros((2**8, 2**11), np.int64)
        sums(gap, out)
        yield out
        yield np.array([integer(m, e, r) for m in range(-63, 64) for e in (gap, 3 * gap) for r in range(9)])
    yield np.array([quotient(a, 0, b, 0) for a in range(16, 32) for b in range(16, 32)])
    yield np.array([normal(*product(x, (1075 << 4) | m)) for x in range(1, 129) for m in range(16)])


def float32(f: dict[str, Any]) -> Any:
    """Quotients and sums of a float of 4 bits with subnormals below 2**-9: all of them."""
    quotient, total, pack = f["ieee.divide32"], f["ieee.sum32"], f["ieee.round32"]
    for e in range(-20, 6):
        yield np.array([quotient(a, e, b, 0) for a in (0, *range(8, 16)) for b in range(8, 16)])
        yield np.array([pack(m, e) for m in range(-63, 64)])
        for g in range(-17, 18):
            yield np.array([total(a, e, b, e + g) for a in range(-15, 16) for b in range(-15, 16)])


def scales(f: dict[str, Any]) -> Any:
    """Mantissas of 6 bits: all of them."""
    names = [f[f"scale.{n}"] for n in ("multiply", "quotient")]
    all_of = range(2**5, 2**6)
    yield np.array([g(a, 0, b, 0) for g in names for a in all_of for b in all_of])
    apply = f["scale.apply"]
    every = [
        (x, m, e, r) for x in range(-63, 64) for m in (32, 33, 47, 62, 63) for e in range(-17, 1) for r in range(9)
    ]
    yield np.array([apply(*v) for v in every])


DOMAINS: dict[str, tuple[Callable[[dict[str, Any]], Any], Mapping[int, int]]] = {
    "int16": (int16, {}),
    "exponential": (exponential, {}),
    "inverse_square_root": (inverse_square_root, {}),
    "logistic": (logistic, {}),
    "bit_length": (bit_length, {}),
    "rounding": (rounding, {}),
    "float64": (float64, FLOAT64),
    "float32": (float32, FLOAT32),
    "scales": (scales, SCALES),
}


def proven(file: str, source: str, domain: str) -> bool:
    """Whether ``source`` in the place of ``file`` gives the same results in all of ``domain``."""
    run, widths = DOMAINS[domain]
    pairs = zip(run(compiled("", "", widths)), run(compiled(file, source, widths)), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def main() -> None:
    words, failed = sys.argv[1:], 0
    for entry in tomllib.loads(STATED.read_text())["equivalent"]:
        if "domain" not in entry or (words and not any(w in entry["file"] for w in words)):
            continue
        made = {f"{m.where}: {m.shown}": m for m in mutants(entry["file"])}
        for text in entry["mutants"]:
            start = time.perf_counter()
            same = proven(entry["file"], made[text].source, entry["domain"])
            failed += not same
            seconds = time.perf_counter() - start
            click.echo(f"{'the same' if same else 'DIFFERS'} ({entry['domain']}, {seconds:.0f} s): {text}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
