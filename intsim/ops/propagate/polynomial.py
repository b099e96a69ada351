"""Polynomial attention weights from integer scores, with the sum and the scales of the values in the scale.

    s_j   = s_query * s_key[j] * root;   s = min(s_j of the visible j, s_b, s_delta_root)
    u_j   = round(t_j * s / s_j) + round(b * s / s_b);   r_j = max(u_j, 0)
    top   = max(1, r_j, round(delta_root * s / s_delta_root))
    (r_j, s) rescaled by top to 127
    p_j   = r_j**degree + round((delta_root * s / s_delta_root)**degree)       on the visible j
    D     = max(1, sum p_j);   v = min of the visible s_value[j]
    w_j   = round(p_j * v / s_value[j]), rescaled by its largest to dtype with the ratio g
    scale = D * v * g          so that sum w_j value_j / scale = sum (p_j / D) value_j / s_value[j]

EXPLICIT has ``w_j = round(round(p_j * qmax / D) * v / s_value[j])`` and ``scale = qmax * v``. root is the square
root of the head's width. The mask comes after delta: a hidden column gets 0. b, delta_root are a
number a head with a scale each; group g has those of head g modulo their number.

|t| <= 2**30 and |b| < 2**29: u fits int32. delta_root on the scale of r stays below 128 (below 254
where ALWAYS stretches), so p < 2**30 to degree 4 (3); D < 2**46.

Differs from ``softmax.polynomial``: no division per element, no calibrated grid for the scores;
from the paper: its digest leaves the degree, the form of delta and the place of the mask open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import IntType, Rounding, int8, int16, int32, uint8
from intsim.op import Op, Port, Rowwise, Size
from intsim.ops.propagate import (
    ROUNDINGS,
    CONSTANT,
    EXPONENT,
    MADE_SCALE,
    ONE,
    Policy,
    Probabilities,
    constants,
    scale_ports,
)
from intsim.ops.propagate._rescaling import ratio, ratio_of
from intsim.params import Limit, Params as Base, int_type, integer, rule
from intsim.registry import register
from intsim.scalar import scale as program
from intsim.spec import scale

TOP = 127  # of r before the power
LONGEST = 2**16


def _mantissa(default: int) -> Any:
    return integer(2**30, 2**31 - 1, per="h", default=default)


def _exponent(default: int) -> Any:
    return integer(EXPONENT.qmin, EXPONENT.qmax, per="h", default=default)


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    degree: int = integer(1, 4, default=3)
    b: Any = integer(-CONSTANT, CONSTANT, per="h", default=0)
    b_mantissa: Any = _mantissa(2**31 - 1)
    b_exponent: Any = _exponent(EXPONENT.qmax)
    delta_root: Any = integer(0, CONSTANT, per="h", default=0)
    delta_root_mantissa: Any = _mantissa(2**31 - 1)
    delta_root_exponent: Any = _exponent(EXPONENT.qmax)
    root_mantissa: int = integer(2**30, 2**31 - 1, default=ONE[0])
    root_exponent: int = integer(EXPONENT.qmin, EXPONENT.qmax, default=ONE[1])
    dtype: IntType = int_type(uint8, int8, int16, role="operand")
    probabilities: Probabilities = rule(Probabilities, Probabilities.DENOMINATOR)
    policy: Policy = rule(Policy, Policy.WHEN_NEEDED)
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_AWAY, among=ROUNDINGS)

    limits = (Limit("degree <= 3 or policy != ALWAYS", lambda p: bool(p.degree <= 3 or p.policy != Policy.ALWAYS)),)

    @classmethod
    def from_real(cls, b: Any, delta: Any, degree: int, head_width: int, **fields: Any) -> Params:
        """The parameters for the b and delta of the paper, a float a head each, and heads of ``head_width`` elements.

        Raises ValueError where one is not finite.
        """
        b, delta = np.broadcast_arrays(np.atleast_1d(b), np.atleast_1d(delta))
        mantissa, exponent = scale.of_real(np.sqrt(head_width))
        per_head = [
            *zip(*map(constants, b), strict=True),
            *zip(*map(constants, abs(delta) ** (1 / degree)), strict=True),
        ]
        made = (np.array(part, np.int64).reshape(-1) for part in per_head)
        return cls(degree, *made, int(mantissa), int(exponent), **fields)  # type: ignore[arg-type, call-arg]  # in the order of the fields


def spec(
    t: Any,
    mantissa: Any,
    exponent: Any,
    key_mantissa: Any,
    key_exponent: Any,
    value_mantissa: Any,
    value_exponent: Any,
    group: Any,
    stop: Any,
    p: Params,
) -> Any:
    group, rounding = group.astype(int), p.rounding

    def head(name: str) -> Any:
        return tuple(
            field[group % field.size].reshape(-1, 1)
            for field in (getattr(p, name), getattr(p, f"{name}_mantissa"), getattr(p, f"{name}_exponent"))
        )

    def matched(x: Any, to: Any, own: Any) -> Any:
        return scale.apply(x, scale.quotient(to, own), rounding)

    def seen_or(parts: Any, other: Any) -> Any:
        return tuple(np.where(seen, a, b) for a, b in zip(parts, other, strict=True))

    seen = np.arange(t.shape[-1]) < stop.reshape(-1, 1)
    b, *s_b = head("b")
    delta_root, *s_delta_root = head("delta_root")
    query = mantissa.reshape(-1, 1), exponent.reshape(-1, 1)
    query = scale.multiply(query, (p.root_mantissa + 0 * query[0], p.root_exponent + 0 * query[1]))
    s_t = scale.multiply(query, (key_mantissa[group], key_exponent[group]))
    s = scale.smaller(scale.smaller(scale.smallest(s_t, seen), s_b), s_delta_root)
    u = matched(t, s, seen_or(s_t, s)) + matched(b, s, s_b)
    r = np.where(seen, np.maximum(u, 0), 0)
    floor = matched(delta_root, s, s_delta_root)
    by = ratio(np.maximum(np.maximum(r.max(axis=-1, keepdims=True), floor), 1), TOP, p.policy)
    r, s = scale.apply(r, by, rounding), scale.multiply(s, by)
    weight = np.where(seen, r**p.degree + _delta(delta_root, s_delta_root, s, p), 0)
    total = scale.of_integer(np.maximum(weight.sum(axis=-1, keepdims=True), 1))
    values = value_mantissa[group], value_exponent[group]
    s_value = scale.smallest(values, seen)
    values, qmax = seen_or(values, s_value), p.dtype.qmax
    if p.probabilities == Probabilities.EXPLICIT:
        whole = scale.of_integer(qmax + 0 * total[0])
        w, s = matched(matched(weight, whole, total), s_value, values), scale.multiply(whole, s_value)
    else:
        w = matched(weight, s_value, values)
        by = ratio(np.maximum(w.max(axis=-1, keepdims=True), 1), qmax, p.policy)
        w, s = scale.apply(w, by, rounding), scale.multiply(scale.multiply(total, s_value), by)
    return w, s[0][:, 0], s[1][:, 0]


def _delta(delta_root: Any, own: Any, s: Any, p: Params) -> Any:
    """|delta| on the scale of r**degree: the power of what delta_root is on that of r."""
    root = scale.multiply(scale.quotient(scale.of_integer(np.maximum(delta_root, 1)), own), s)
    power = root
    for _ in range(p.degree - 1):
        power = scale.multiply(power, root)
    return np.where(delta_root > 0, scale.apply(1 + 0 * delta_root, power, p.rounding), 0)


@portable
def _base(t: Int, query: tuple[Int, Int], key: Int, key_exponent: Int, s: tuple[Int, Int], b: Int, p: Any) -> Int:
    """r before it is rescaled, on the scale s; b is on it already."""
    own, own_exponent = program.multiply(query[0], query[1], key, key_exponent)
    by, by_exponent = program.quotient(s[0], s[1], own, own_exponent)  # at most 1
    return max(program.apply(t, by, by_exponent, p.rounding) + b, 0)


@portable
def _power(r: Int, degree: Int) -> Int:
    product = r
    for _ in range(1, degree):
        product *= r
    return product


@portable
def _floor(delta_root: Int, mantissa: Int, exponent: Int, s: Int, s_exponent: Int, p: Any) -> Int:
    """|delta| on the scale s**degree; mantissa, exponent: the scale of delta_root."""
    if delta_root == 0:
        return delta_root
    root, root_exponent = program.of_integer(delta_root)
    root, root_exponent = program.quotient(root, root_exponent, mantissa, exponent)
    root, root_exponent = program.multiply(root, root_exponent, s, s_exponent)
    power, power_exponent = root, root_exponent
    for _ in range(1, p.degree):
        power, power_exponent = program.multiply(power, power_exponent, root, root_exponent)
    return program.apply(delta_root * 0 + 1, power, power_exponent, p.rounding)


@portable
def _lowest(mantissa: Any, exponent: Any, stop: Int) -> tuple[Int, Int]:
    """The smallest of the first ``stop`` scales."""
    low, low_exponent = np.int64(mantissa[0]), np.int64(exponent[0])
    for j in range(1, stop):
        if program.less(np.int64(mantissa[j]), np.int64(exponent[j]), low, low_exponent):
            low, low_exponent = np.int64(mantissa[j]), np.int64(exponent[j])
    return low, low_exponent


@portable
def _matched(weight: Int, low: Int, low_exponent: Int, mantissa: Int, exponent: Int, rounding: Int) -> Int:
    by, by_exponent = program.quotient(low, low_exponent, mantissa, exponent)
    return program.apply(weight, by, by_exponent, rounding)


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    t, w, group, stop = x.t[i], out.w[i], np.int64(x.group[i]), np.int64(x.stop[i])
    key, key_exponent = x.key_mantissa[group], x.key_exponent[group]
    value, value_exponent = x.value_mantissa[group], x.value_exponent[group]
    rounding, degree, qmax = p.rounding, p.degree, p.dtype.qmax
    b, delta_root = p.b[group % p.b.shape[0]], p.delta_root[group % p.delta_root.shape[0]]
    of_b, of_b_exponent = p.b_mantissa[group % p.b_mantissa.shape[0]], p.b_exponent[group % p.b_exponent.shape[0]]
    of_root = p.delta_root_mantissa[group % p.delta_root_mantissa.shape[0]]
    of_root_exponent = p.delta_root_exponent[group % p.delta_root_exponent.shape[0]]

    query = program.multiply(np.int64(x.mantissa[i]), np.int64(x.exponent[i]), p.root_mantissa, p.root_exponent)
    low, low_exponent = _lowest(key, key_exponent, stop)
    s, s_exponent = program.multiply(query[0], query[1], low, low_exponent)  # a larger key's is not smaller
    if program.less(of_b, of_b_exponent, s, s_exponent):
        s, s_exponent = of_b, of_b_exponent
    if program.less(of_root, of_root_exponent, s, s_exponent):
        s, s_exponent = of_root, of_root_exponent
    b = _matched(b, s, s_exponent, of_b, of_b_exponent, rounding)

    top = max(np.int64(1), _matched(delta_root, s, s_exponent, of_root, of_root_exponent, rounding))
    for j in range(stop):
        r = _base(np.int64(t[j]), query, np.int64(key[j]), np.int64(key_exponent[j]), (s, s_exponent), b, p)
        top = max(top, r)
    to, to_exponent = ratio_of(top, TOP, p.policy)
    r_scale, r_exponent = program.multiply(s, s_exponent, to, to_exponent)
    floor = _floor(delta_root, of_root, of_root_exponent, r_scale, r_exponent, p)

    low, low_exponent = _lowest(value, value_exponent, stop)
    total, largest = np.int64(0), np.int64(1)
    for j in range(stop):
        r = _base(np.int64(t[j]), query, np.int64(key[j]), np.int64(key_exponent[j]), (s, s_exponent), b, p)
        r = program.apply(r, to, to_exponent, rounding)
        w[j] = r  # at most 127: kept for the last pass
        weight = _power(r, degree) + floor
        total += weight
        weight = _matched(weight, low, low_exponent, np.int64(value[j]), np.int64(value_exponent[j]), rounding)
        largest = max(largest, weight)

    share, share_exponent = np.int64(2**30), np.int64(-30)
    made, made_exponent = program.of_integer(max(total, 1))
    if p.probabilities == Probabilities.EXPLICIT:
        whole, whole_exponent = program.of_integer(qmax)
        share, share_exponent = program.quotient(whole, whole_exponent, made, made_exponent)
        last, last_exponent = np.int64(2**30), np.int64(-30)
        made, made_exponent = program.multiply(whole, whole_exponent, low, low_exponent)
    else:
        last, last_exponent = ratio_of(largest, qmax, p.policy)
        made, made_exponent = program.multiply(made, made_exponent, low, low_exponent)
        made, made_exponent = program.multiply(made, made_exponent, last, last_exponent)
    for j in range(stop):
        weight = _power(np.int64(w[j]), degree) + floor
        weight = program.apply(weight, share, share_exponent, rounding)
        weight = _matched(weight, low, low_exponent, np.int64(value[j]), np.int64(value_exponent[j]), rounding)
        w[j] = program.apply(weight, last, last_exponent, rounding)
    for j in range(stop, t.shape[0]):
        w[j] = 0
    out.mantissa[i] = made
    out.exponent[i] = made_exponent


def examples() -> dict[str, Any]:
    ends = [-(2**30), 2**30 - 1]
    t = np.array([[40, -20, 7, 300], [5, -3, -1, 0], [*ends, *ends], [-9, -9, -9, -9], [1, 2, 3, 4]], np.int32)
    query = (
        np.array([2**30, 2**31 - 1, 2**30, 3 * 2**29, 2**30], np.int32),
        np.array([-30, -33, -30, -28, -31], np.int16),
    )
    key = np.array([[2**30, 2**31 - 1, 2**30, 2**30], [3 * 2**29, 2**30, 2**31 - 1, 2**30]], np.int32)
    key_exponent = np.array([[-30, -31, -29, -30], [-31, -30, -31, -28]], np.int16)
    keys, values = (key, key_exponent), (key[::-1, ::-1].copy(), key_exponent[::-1, ::-1].copy())
    rows = np.array([0, 1, 1, 0, 1], np.int32), np.array([4, 3, 4, 2, 1], np.int32)
    far = np.full((2, 4), -2048, np.int16), np.full((2, 4), 2047, np.int16)
    heads = Params.from_real([1.0, -0.25], [0.05, 2.0], 3, 4)
    inputs = (t, *query, *keys, *values, *rows)
    made: dict[str, Any] = {f"two heads, {r.name}": (inputs, replace(heads, rounding=r)) for r in ROUNDINGS}
    # on the scale 1: b is 1/2, so that scores around it are ties
    half = (np.array([[3, -3, 1, -1, 0, 5]], np.int32), np.array([2**30], np.int32), np.array([-30], np.int16))
    flat = np.full((1, 6), 2**30, np.int32), np.array([[-31, -30, -30, -31, -30, -30]], np.int16)
    for r in ROUNDINGS:
        for degree in (1, 2):
            p = Params(degree, 4, 2**30, -30, 3, 2**30, -29, rounding=r)
            made[f"ties of scores and weights, degree {degree}, {r.name}"] = ((*half, *flat, *flat), p)
    for degree in (1, 2, 3, 4):
        p = Params.from_real([0.5], [0.1], degree, 16)
        made[f"degree {degree}"] = (inputs, p)
        made[f"degree {degree}, delta alone counts"] = (inputs, Params.from_real([-(2.0**31)], [2.0], degree, 16))
    made["all weights 0"] = (inputs, Params.from_real([-(2.0**31)], [0.0], 3, 16))
    for q in (uint8, int8, int16):
        for policy in Policy:
            made[f"{q}, {policy.name}"] = (inputs, replace(heads, dtype=q, policy=policy))
        explicit = replace(heads, dtype=q, probabilities=Probabilities.EXPLICIT)
        made[f"{q}, explicit probabilities"] = (inputs, explicit)
    low, high = (t, query[0], far[0][0].repeat(2)[:5]), (t, query[0], far[1][0].repeat(2)[:5])
    made["the smallest scales"] = ((*low, key, far[0], key, far[0], *rows), heads)
    made["the largest scales"] = ((*high, key, far[1], key, far[1], *rows), heads)
    return made


OP = register(
    Op(
        name="propagate.polynomial",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (11) and (12)",
        inputs=(
            Port("t", "m n", IntType(31)),
            *scale_ports("m"),
            *scale_ports("g n", "key"),
            *scale_ports("g n", "value"),
            Port("group", "m", int32, fill=0, below="g"),
            Port("stop", "m", int32, fill="n", upto="n"),
        ),
        outputs=(Port("w", "m n", lambda p: p.dtype), *MADE_SCALE),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1, LONGEST), "g": Size(1)},
        examples=examples,
    )
)
