"""What follows from the declaration of a field: normal form, equality, record, changes."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np
import pytest

from intsim import records
from intsim.numerics import IntType, Order, Rounding, int8, int16, uint8
from intsim.params import changes, record, widen
from intsim.registry import get, register

Requantize = get("requantize.single_rounding").params
Softmax = get("softmax.ibert").params


def test_numbers_are_normal_however_they_are_given() -> None:
    one = Requantize(3, 4)
    for same in (Requantize([3], [4]), Requantize(np.array([3]), np.int8(4)), Requantize(np.array(3, object), 4)):
        assert same == one
        assert hash(same) == hash(one)
    assert one != Requantize(3, 5)
    assert one != "text"
    assert str(one).startswith("multiplier=3  shift=4  zero_point=0  dtype=int8  rounding=TIES_TO_EVEN")
    assert Softmax(1, 2, 3) == Softmax(1, 2, 3, scale=math.nan)
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(ValueError, match="read-only"):
        one.multiplier[0] = 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"multiplier": 1.5}, "multiplier holds whole numbers"),
        ({"multiplier": math.nan}, "multiplier holds whole numbers"),
        ({"multiplier": [[1]]}, "multiplier is one number or a row of them"),
        ({"multiplier": [2**70]}, "multiplier holds whole numbers"),
        ({"rounding": "half_up"}, "rounding is a Rounding, got 'half_up'"),
        ({"rounding": 17}, "rounding is a Rounding, got 17"),
        ({"dtype": "int8"}, "dtype is an IntType, got 'int8'"),
    ],
)
def test_what_is_no_value_of_a_field_is_refused_when_it_is_made(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=re.escape(text)):
        Requantize(**({"multiplier": 1, "shift": 2} | fields))


def test_scalar_fields_and_stages_refuse_likewise() -> None:
    for value in (True, 1.0, np.array([1, 2])):
        with pytest.raises(TypeError, match=r"ln2 is (a|one) whole number"):
            Softmax(value, 2, 3)
    composite = get("linear.qlinear_matmul").params
    with pytest.raises(TypeError, match=r"matmul is a intsim\.ops\.matmul\.integer\.Params"):
        composite(1, 2)


def test_the_record_mirrors_the_fields() -> None:
    made = record(Requantize([1, 2], 3, dtype=uint8, rounding=Rounding.TIES_TO_AWAY), {"n": 2})
    assert made.multiplier.tolist() == [1, 2]
    assert made.shift.tolist() == [3, 3]
    assert (made.dtype.bits, made.dtype.qmin, made.dtype.qmax, made.rounding) == (8, 0, 255, 3)
    assert not hasattr(record(Softmax(1, 2, 3, scale=0.5), {}), "scale")
    with pytest.raises(ValueError, match="multiplier has 2 values, needs 1 or n = 3"):
        record(Requantize([1, 2], 3), {"n": 3})
    assert widen(Requantize(1, 2), object).multiplier.dtype == object


def test_record_classes_can_be_imported_by_name() -> None:
    made = records.fields_class("acc", "bias")
    assert made is records.fields_class("acc", "bias") is records.Fields__acc__bias
    assert pickle.loads(pickle.dumps(made(1, 2))) == made(1, 2)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = records.Nothing
    with pytest.raises(ValueError, match="'index' is a method of every tuple"):
        records.fields_class("index")


def test_changes_are_the_one_field_neighbours() -> None:
    p = Requantize([5, 7], 4, zero_point=3)
    named = dict(changes(p))
    assert named["rounding=TIES_TO_AWAY"].rounding == Rounding.TIES_TO_AWAY
    assert named["zero_point=0"].zero_point.tolist() == [0]
    assert named["zero_point=negated"].zero_point.tolist() == [-3]
    assert named["multiplier=reversed"].multiplier.tolist() == [7, 5]
    assert named["multiplier=first for all"].multiplier.tolist() == [5, 5]
    assert named["zero_point_added=FIRST"].zero_point_added == Order.FIRST
    assert named["dtype=uint8"].dtype == uint8
    assert "shift=negated" not in named, "outside its limit"
    composite = get("linear.qlinear_matmul")
    inner = dict(changes(composite.examples()["ties, odd zero point"][1]))
    assert inner["requantize.dtype=int16"].requantize.dtype == int16
    assert "matmul.a_zero_point=+1" in inner
    assert "matmul.a_zero_point=-1" in inner


def test_registration_follows_the_file() -> None:
    op = get("requantize.single_rounding")
    with pytest.raises(ValueError, match="is registered twice"):
        register(op)
    import dataclasses

    with pytest.raises(ValueError, match="an op's name is its folder and file"):
        register(dataclasses.replace(op, name="requantize.other"))
    assert IntType.parse("int8") == int8


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("requantize.single_rounding", 0.0),
        ("requantize.single_rounding", math.inf),
        ("requantize.single_rounding", math.nan),
        ("requantize.single_rounding", -1.0),
        ("requantize.single_rounding", 2.0**40),
        ("requantize.power_of_two", 2.0),
        ("requantize.power_of_two", math.nan),
        ("requantize.float32_ties_even", 1e-45),
        ("requantize.float32_ties_even", math.inf),
        ("requantize.float64_ties_away", 2.0**60),
        ("requantize.float64_ties_away", math.nan),
        ("softmax.ibert", 1e-9),
        ("softmax.ibert", math.nan),
        ("softmax.gemmlowp", 1e-12),
        ("softmax.gemmlowp", math.nan),
        ("softmax.polynomial", 0.0),
        ("softmax.polynomial", math.nan),
        ("activation.gelu_ibert", 0.0),
        ("activation.gelu_ibert", math.nan),
    ],
)
def test_scales_that_are_none_are_refused(name: str, scale: float) -> None:
    with pytest.raises(ValueError, match="got"):
        get(name).params.from_scale(scale)


@pytest.mark.parametrize("scales", [(0.0, 1, 1), (1, math.nan, 1), (1, 1, math.inf), (1.0, 1.0, 1e-30)])
def test_scales_of_an_addition_likewise(scales: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"add\.rescaled"):
        get("add.rescaled").params.from_scales(*scales)


def test_multipliers_carry_and_vanish_as_published() -> None:
    from intsim.ops.requantize import multiplier_and_shift

    for real in (0.25, 0.3, 1.0, 3.7e-5, 1 - 2.0**-40, 0.5 - 2.0**-40):
        (multiplier,), (shift,) = multiplier_and_shift(real)
        assert 2**30 <= multiplier < 2**31
        assert abs(multiplier / 2.0 ** int(shift) / real - 1) < 2.0**-30
    assert [int(v[0]) for v in multiplier_and_shift(2.0**-40)] == [0, 31]
    P = get("add.rescaled").params
    assert P.from_scales(1.0, 1.0, 1.0).a_multiplier == 2**30
    assert get("softmax.gemmlowp").params.from_scale(1 - 2.0**-50).multiplier == 2**30
