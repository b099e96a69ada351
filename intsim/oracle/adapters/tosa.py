"""The TOSA reference model as a backend under test: one node a graph, in an environment of its own.

    rescale.double_rounding, requantize.double_rounding      RESCALE scale32, DOUBLE_ROUND
    rescale.single_rounding, requantize.single_rounding      RESCALE scale32, SINGLE_ROUND
    requantize.multiplier16                                  RESCALE scale16 of int48
    matmul.integer                                           MATMUL to int32, to int48
    activation.table, activation.table_interpolated          TABLE of int8, of int16
    bits.*, divide.integer, mul.shifted, reduce.*, ...       the operators of the same purpose

tosa-tools pins packages that conflict with those of others: it lies in a virtual environment of its own, and
``_tosa_worker.py`` runs there. A graph that the model calls UNPREDICTABLE is Unsupported: TOSA says nothing
about its result. INEXACT_ROUND leaves the result open, so that no variant can state it.
Source: tosa-tools 2026.8.0, reference_model/src (arith_util.h, quant_util.h, ops/), and the TOSA specification.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from intsim.binding import Array
from intsim.numerics import IntType, Order, Overflow, Rounding, int8, int16, int32, int48, uint8, uint16
from intsim.oracle import environments
from intsim.oracle.adapter import Capability, System, Unsupported
from intsim.oracle.adapters._tosa_capabilities import RESCALED, ROUND, stated
from intsim.oracle.cases import Case
from intsim.oracle.protocol import Worker

SYSTEM = System(
    title="TOSA reference model",
    runs="isolated environment",
    needs="intsim check tosa --install",
    source="arm/tosa-tools reference_model/src/ops, reference_model/src/arith_util.h",
    requirement="tosa-tools==2026.8.0",
    left={
        "RESCALE INEXACT_ROUND": "the specification leaves the result open; this model is near half to even, "
        "0 to 4 of 65536 results off it",
        "MUL s32 with shift 63": "(-2**31)**2 / 2**63 rounds to 1; this model's int64 overflows there and gives -1",
        "RESCALE to uint16": "no requantize variant has an unsigned 16-bit result",
        "RESCALE scale16 of int8, int16, int32": "the arithmetic of the int48 row, on narrower inputs; not compared",
    },
)
WORKER = Path(__file__).with_name("_tosa_worker.py")
MATMUL_INT48_TERMS = 2**17  # from here on a sum of int16 products can leave int48


@dataclass
class Backend:
    """The adapter. python: the Python that has tosa-tools; None for the environment that intsim made.

    Raises ValueError where there is none.
    """

    python: str | os.PathLike[str] | None = None
    name: str = "tosa"
    _worker: Worker = field(init=False, repr=False)

    def __post_init__(self) -> None:
        assert SYSTEM.requirement
        found = environments.python("tosa", SYSTEM.requirement, self.python)
        # -I: no path and no variable of this process; its folder alone on PATH: a fatal error would start gdb
        command: list[str | os.PathLike[str]] = [found, "-I", "-B", WORKER]
        self._worker = Worker(command, "the TOSA worker", environment=environments.isolated_variables(found))

    def capabilities(self) -> Sequence[Capability]:
        return stated()

    def versions(self) -> Mapping[str, str]:
        return self._worker.versions()

    def run(self, case: Case) -> Any:
        serve = SERVED.get(case.op.name)
        if serve is None:
            raise Unsupported(f"no TOSA operator computes {case.op.name}")
        return serve(self, case)

    def node(
        self,
        kind: str,
        inputs: Sequence[tuple[Array, str]],
        result: tuple[str, str, tuple[int, ...]],
        constants: Sequence[int] = (),
        **attributes: Any,
    ) -> Array:
        """The output of one node. inputs: values and TOSA types; result: TOSA type, dtype, shape."""
        dtype, storage, shape = result
        described = {"types": [t for _, t in inputs], "constants": list(constants), "result": dtype, **attributes}
        return self._worker.call(kind, described, [np.asarray(a) for a, _ in inputs], [(storage, shape)])[0]

    def rescale(
        self, x: Array, t: IntType, zero_point: int, p: Any, multiplier: Array, shift: Array, mode: str
    ) -> Array:
        """RESCALE of ``x`` (of type ``t``) with the result type and zero point of the requantization ``p``."""
        if (p.zero_point != p.zero_point[0]).any():
            raise Unsupported("RESCALE has one zero point for the result")
        if p.dtype not in (int8, uint8, int16, int32):
            raise Unsupported(f"RESCALE has no result of {p.dtype}")
        last = int(p.zero_point[0])
        if last and (p.dtype.bits > 8 or not p.dtype.qmin <= last <= p.dtype.qmax):
            raise Unsupported("a zero point is a value of the result's type, and 0 beyond 8 bits")
        if (multiplier < 0).any():
            raise Unsupported("a RESCALE multiplier is not negative")
        if (shift < 2).any() or (shift > 62).any():
            raise Unsupported("a RESCALE shift is 2 to 62")
        scale32 = mode != "scale16"
        size = max(multiplier.size, shift.size)
        factor = np.broadcast_to(multiplier, size).astype(np.int32 if scale32 else np.int16)
        inputs = [
            (_signed(x), _tosa(t)),
            (factor, "INT32" if scale32 else "INT16"),
            (np.broadcast_to(shift, size).astype(np.int8), "INT8"),
            (np.array([zero_point]).astype(f"int{_signed(x).dtype.itemsize * 8}"), _tosa(t)),
            (np.array([last]).astype(_storage(p.dtype)), _tosa(p.dtype)),
        ]
        made = self.node(
            "RESCALE",
            inputs,
            (_tosa(p.dtype), _storage(p.dtype), x.shape),
            (*([0] if t == int48 else []), 1, 2, 3, 4),
            scale32=scale32,
            rounding=ROUND.get(mode, "SINGLE_ROUND"),
            per_channel=size > 1,
            input_unsigned=not t.signed,
            output_unsigned=not p.dtype.signed,
        )
        viewed: Array = made.view(p.dtype.storage)
        return viewed


def _tosa(t: IntType) -> str:
    """TOSA's name of a type; whether it is unsigned is an attribute of RESCALE."""
    return f"INT{t.bits}"


def _storage(t: IntType) -> str:
    return f"int{64 if t.bits == 48 else t.bits}"


def _signed(x: Array) -> Array:
    return x.view(f"int{x.dtype.itemsize * 8}") if x.dtype.kind == "u" else x


# -- a case as a node ----------------------------------------------------------------------------------


def _requantize(mode: str, backend: Backend, case: Case) -> Array:
    p = case.params
    _check_single(p, mode)
    return backend.rescale(case.acc, int32, 0, p, p.multiplier, p.shift, mode)


def _rescaled(mode: str, backend: Backend, case: Case) -> Array:
    before, p = case.params.centred, case.params.requantize
    _check_single(p, mode)
    if p.dtype not in RESCALED[before.q]:
        raise Unsupported(f"RESCALE has no kernel from {before.q} to {p.dtype}")
    if before.zero_point and (before.q == int16 or (before.q == uint16 and before.zero_point != 2**15)):
        raise Unsupported("the zero point of an int16 input is 0, that of a uint16 one 0 or 2**15")
    return backend.rescale(case.x, before.q, before.zero_point, p, p.multiplier, p.shift, mode)


def _check_single(p: Any, mode: str) -> None:
    if mode == "single" and (p.rounding, p.zero_point_added) != (Rounding.TIES_TO_POSITIVE, Order.LAST):
        raise Unsupported("SINGLE_ROUND rounds ties to positive, and the zero point comes last")


def _scale16(backend: Backend, case: Case) -> Array:
    p = case.params
    reduced = np.minimum((p.multiplier + 2**15) >> 16, 2**15 - 1)  # RESCALE takes it as it is after the cut
    return backend.rescale(case.acc, int48, 0, p, reduced, p.shift - 16, "scale16")


def _matmul(backend: Backend, case: Case) -> Array:
    p = case.params
    if case.bias.any():
        raise Unsupported("MATMUL has no bias")
    if (p.a, p.b, p.acc) not in ((int8, int8, int32), (int16, int16, int48)) or p.overflow != Overflow.WRAP:
        raise Unsupported("MATMUL is int8 to int32 or int16 to int48, and wraps")
    if (p.b_zero_point != p.b_zero_point[0]).any():
        raise Unsupported("MATMUL has one zero point an operand")
    points = (p.a_zero_point, int(p.b_zero_point[0]))
    if p.a == int16 and any(points):
        raise Unsupported("MATMUL of int16 has no zero points")
    if p.a == int16 and case.a.shape[1] >= MATMUL_INT48_TERMS:
        raise Unsupported("a sum may leave int48, which this model then saturates at the end and calls valid")
    kind = _tosa(p.a)
    zeros = [(np.array([z], p.a.storage), kind) for z in points]
    inputs = [(case.a[None], kind), (np.ascontiguousarray(case.b.T)[None], kind), *zeros]
    shape = (1, case.a.shape[0], case.b.shape[0])
    return backend.node("MATMUL", inputs, (_tosa(p.acc), _storage(p.acc), shape), (2, 3)).reshape(shape[1:])


def _table8(backend: Backend, case: Case) -> Array:
    if (case.params.x, case.params.dtype) != (int8, int8):
        raise Unsupported("TABLE of 8 bits is int8 to int8")
    return backend.node("TABLE", [(case.x, "INT8"), (case.table, "INT8")], ("INT8", "int8", case.x.shape), (1,))


def _table16(backend: Backend, case: Case) -> Array:
    if case.params.fraction_bits != 7:
        raise Unsupported("TABLE of 16 bits keeps the whole fraction")
    return backend.node("TABLE", [(case.x, "INT16"), (case.table, "INT16")], ("INT32", "int32", case.x.shape), (1,))


def _unary(kind: str, backend: Backend, case: Case) -> Array:
    t = _type(case.params.x, int32)
    return backend.node(kind, [(case.x, t)], (t, case.x.dtype.name, case.x.shape))


def _shift(kind: str, backend: Backend, case: Case) -> Array:
    p, attributes = case.params, {}
    if kind == "ARITHMETIC_RIGHT_SHIFT":
        if p.rounding not in (Rounding.TOWARD_NEGATIVE, Rounding.TIES_TO_POSITIVE):
            raise Unsupported("ARITHMETIC_RIGHT_SHIFT rounds toward negative, or ties to positive")
        attributes["round"] = p.rounding == Rounding.TIES_TO_POSITIVE
    if kind == "LOGICAL_LEFT_SHIFT" and p.overflow != Overflow.WRAP:
        raise Unsupported("LOGICAL_LEFT_SHIFT wraps")
    t = _tosa(p.x)
    inputs = [(case.x, t), (case.shift.astype(case.x.dtype), t)]
    return backend.node(kind, inputs, (t, case.x.dtype.name, case.x.shape), **attributes)


def _mul(backend: Backend, case: Case) -> Array:
    p = case.params
    if p.a != p.b or p.dtype != int32 or (p.shift and p.a != int32):
        raise Unsupported("MUL has two operands of one type, a result of int32, and a shift for int32 alone")
    if p.overflow != Overflow.WRAP or (p.shift and p.rounding != Rounding.TIES_TO_POSITIVE):
        raise Unsupported("MUL rounds ties to positive and keeps the low bits")
    t = _tosa(p.a)
    inputs = [(case.a, t), (case.b, t), (np.array([p.shift], np.int8), "INT8")]
    return backend.node("MUL", inputs, ("INT32", "int32", case.a.shape), (2,))


def _divide(backend: Backend, case: Case) -> Array:
    if case.params.x != int32 or case.params.rounding != Rounding.TOWARD_ZERO:
        raise Unsupported("INTDIV is int32, toward zero")
    if not case.b.all():
        raise Unsupported("INTDIV by 0 is unpredictable; this model ends with SIGFPE")
    return backend.node("INTDIV", [(case.a, "INT32"), (case.b, "INT32")], ("INT32", "int32", case.a.shape))


def _add(backend: Backend, case: Case) -> Array:
    p = case.params
    if (p.a, p.b, p.dtype) != (int32, int32, int32) or p.a_zero_point or p.b_zero_point or p.zero_point:
        raise Unsupported("ADD is int32, without zero points")
    return backend.node("ADD", [(case.a, "INT32"), (case.b, "INT32")], ("INT32", "int32", case.a.shape))


def _argmax(backend: Backend, case: Case) -> Array:
    if (case.stop != case.x.shape[1]).any():
        raise Unsupported("ARGMAX takes whole rows")
    t = case.params.x
    if t not in (int8, int16):
        raise Unsupported(f"ARGMAX has no kernel for {t}")
    return backend.node("ARGMAX", [(case.x, _tosa(t))], ("INT32", "int32", case.x.shape[:1]), axis=1)


def _sum(backend: Backend, case: Case) -> Array:
    p = case.params
    if (p.x, p.acc, p.overflow) != (int32, int32, Overflow.WRAP):
        raise Unsupported("REDUCE_SUM is int32 to int32")
    shape = (case.x.shape[0], 1)
    made = backend.node("REDUCE_SUM", [(case.x, "INT32")], ("INT32", "int32", shape), axis=1)
    return made.reshape(-1)


def _to_integers(backend: Backend, case: Case) -> Array:
    p = case.params
    if p.rounding != Rounding.TIES_TO_EVEN:
        raise Unsupported("CAST rounds ties to even")
    t = _type(p.dtype, int8, int16, int32)
    return backend.node("CAST", [(case.x, "FP32")], (t, p.dtype.storage, case.x.shape))


def _between_integers(backend: Backend, case: Case) -> Array:
    p = case.params
    if p.x == p.dtype:
        raise Unsupported("CAST has no kernel from a type to itself")
    if p.overflow != Overflow.WRAP:
        raise Unsupported("CAST between integers wraps")
    before, after = _type(p.x, int8, int16, int32), _type(p.dtype, int8, int16, int32)
    return backend.node("CAST", [(case.x, before)], (after, p.dtype.storage, case.x.shape))


def _to_floats(backend: Backend, case: Case) -> Array:
    if case.zero_point.any() or (case.scale != 1).any():
        raise Unsupported("CAST has no scale and no zero point")
    t = _type(case.params.q, int8, int16, int32)
    return backend.node("CAST", [(case.q, t)], ("FP32", "float32", case.q.shape))


def _type(t: IntType, *served: IntType) -> str:
    if t not in served:
        raise Unsupported(f"no kernel for {t}")
    return _tosa(t)


SERVED: Mapping[str, Callable[[Backend, Case], Array]] = {
    "requantize.double_rounding": partial(_requantize, "double"),
    "requantize.single_rounding": partial(_requantize, "single"),
    "rescale.double_rounding": partial(_rescaled, "double"),
    "rescale.single_rounding": partial(_rescaled, "single"),
    "requantize.multiplier16": _scale16,
    "matmul.integer": _matmul,
    "activation.table": _table8,
    "activation.table_interpolated": _table16,
    "bits.leading_zeros": partial(_unary, "CLZ"),
    "bits.arithmetic_right_shift": partial(_shift, "ARITHMETIC_RIGHT_SHIFT"),
    "bits.logical_right_shift": partial(_shift, "LOGICAL_RIGHT_SHIFT"),
    "bits.left_shift": partial(_shift, "LOGICAL_LEFT_SHIFT"),
    "bits.cast": _between_integers,
    "mul.shifted": _mul,
    "divide.integer": _divide,
    "add.matched": _add,
    "reduce.argmax": _argmax,
    "reduce.sum": _sum,
    "quantize.rounded": _to_integers,
    "dequantize.affine": _to_floats,
}
