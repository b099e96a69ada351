"""Embedding: a row of the vocabulary plus a row of positions, both int8 with a scale a row.

    e = table[id] << left_shift on s_table[id] * factor * 2**left_shift;   p likewise, without the factor
    scale = min(s_e, s_p);   z = round(e * scale / s_e) + round(p * scale / s_p)

factor is the scale of a constant: a model that multiplies its embeddings by sqrt(d) has 1 / sqrt(d).
|e|, |p| <= 2**23: |z| <= 2**24. left_shift keeps the bits that the match would cut.

Differs from ``embedding.row_scaled``: the row's scale is a result, not a calibrated grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from intsim.compiling import Int, portable
from intsim.numerics import Rounding, int8, int32
from intsim.op import Op, Port, Rowwise, Size, Tuned
from intsim.ops.propagate import half_away_in_whole_registers, ROUNDINGS, EXPONENT, MADE_SCALE, ONE, scale_ports
from intsim.params import Params as Base, integer, rule
from intsim.registry import register
from intsim.scalar import scale as program
from intsim.spec import scale


@dataclass(frozen=True, slots=True, eq=False)
class Params(Base):
    left_shift: int = integer(0, 16, default=16)
    factor_mantissa: int = integer(2**30, 2**31 - 1, default=ONE[0])
    factor_exponent: int = integer(EXPONENT.qmin, EXPONENT.qmax, default=ONE[1])
    rounding: Rounding = rule(Rounding, Rounding.TIES_TO_AWAY, among=ROUNDINGS)

    @classmethod
    def from_real(cls, multiplier: float = 1.0, **fields: Any) -> Params:
        """The parameters for a model that multiplies the rows of its vocabulary by ``multiplier`` > 0."""
        mantissa, exponent = scale.of_real(1 / multiplier if multiplier else np.inf)
        return cls(factor_mantissa=int(mantissa), factor_exponent=int(exponent), **fields)


def spec(
    ids: Any,
    places: Any,
    table: Any,
    table_mantissa: Any,
    table_exponent: Any,
    positions: Any,
    positions_mantissa: Any,
    positions_exponent: Any,
    p: Params,
) -> Any:
    ids, places = ids.astype(int), places.astype(int)
    mantissa, exponent = table_mantissa[ids], table_exponent[ids]
    word = scale.multiply((mantissa, exponent), (p.factor_mantissa + 0 * mantissa, p.factor_exponent + 0 * exponent))
    sides = (word[0], word[1] + p.left_shift), (positions_mantissa[places], positions_exponent[places] + p.left_shift)
    match = scale.smaller(*sides)
    by_word, by_place = (tuple(part.reshape(-1, 1) for part in scale.quotient(match, side)) for side in sides)
    z = scale.apply(table[ids] << p.left_shift, by_word, p.rounding)
    return z + scale.apply(positions[places] << p.left_shift, by_place, p.rounding), *match


@portable
def row(i: Int, x: Any, out: Any, p: Any) -> None:
    at, place, z = np.int64(x.ids[i]), np.int64(x.places[i]), out.z[i]
    word, word_exponent = program.multiply(
        np.int64(x.table_mantissa[at]), np.int64(x.table_exponent[at]), p.factor_mantissa, p.factor_exponent
    )
    own, own_exponent = np.int64(x.positions_mantissa[place]), np.int64(x.positions_exponent[place])
    mantissa, exponent = own, own_exponent
    if program.less(word, word_exponent, own, own_exponent):
        mantissa, exponent = word, word_exponent
    by, by_exponent = program.quotient(mantissa, exponent, word, word_exponent)
    by_own, by_own_exponent = program.quotient(mantissa, exponent, own, own_exponent)
    for j in range(z.shape[0]):
        total = program.apply(np.int64(x.table[at, j]) << p.left_shift, by, by_exponent, p.rounding)
        z[j] = total + program.apply(
            np.int64(x.positions[place, j]) << p.left_shift, by_own, by_own_exponent, p.rounding
        )
    out.mantissa[i] = mantissa
    out.exponent[i] = exponent + p.left_shift


def examples() -> dict[str, Any]:
    ids, places = np.array([2, 0, 1, 2, 3], np.int32), np.array([0, 1, 2, 2, 0], np.int32)
    table = np.array([[1, -1, 3, -3], [-128, 127, 0, 5], [7, -8, 40, 2], [5, 1, -1, 127]], np.int8)
    positions = np.array([[127, -128, 1, -1], [3, -3, 1, -1], [2, 0, 0, 5]], np.int8)
    words = np.array([2**30, 2**31 - 1, 3 * 2**29, 2**30], np.int32), np.array([-30, -2048, 2047, -31], np.int16)
    own = np.array([2**30, 2**30, 2**31 - 1], np.int32), np.array([-30, -31, -28], np.int16)
    inputs = (ids, places, table, *words, positions, *own)
    made: dict[str, Any] = {f"halves, {r.name}": (inputs, Params(0, rounding=r)) for r in ROUNDINGS}
    made["16 bits kept"] = (inputs, Params())
    made["a table multiplied by sqrt(4)"] = (inputs, Params.from_real(2.0))
    made["a table multiplied by sqrt(128), 3 bits kept"] = (inputs, Params.from_real(128**0.5, left_shift=3))
    apart = (np.array([2**30, 2**31 - 1, 2**30], np.int32), np.array([-2048, 2047, 0], np.int16))
    made["scales far apart"] = ((ids, places, table, *words, positions, *apart), Params())
    return made


OP = register(
    Op(
        name="propagate.embed",
        version=1,
        cites="Lin et al. 2020 (arXiv 2009.08034), eq. (8), over the embeddings of words and positions",
        inputs=(
            Port("ids", "m", int32, below="v"),
            Port("places", "m", int32, below="t"),
            Port("table", "v n", int8),
            *scale_ports("v", "table"),
            Port("positions", "t n", int8),
            *scale_ports("t", "positions"),
        ),
        outputs=(Port("z", "m n", int32), *MADE_SCALE),
        params=Params,
        spec=spec,
        program=Rowwise(row),
        sizes={"n": Size(1), "v": Size(1), "t": Size(1)},
        examples=examples,
        tuned=(Tuned("cpu", "intsim.ops.propagate._cpu_rows:embed", half_away_in_whole_registers),),
    )
)
