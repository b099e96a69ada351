"""DeepSpeed's quantizers against what its own PyTorch code gave: digests of 150,000 elements a row, and vectors.

Measured once: deepspeedai/DeepSpeed edaa7221 with PyTorch 2.13.0 (CPU), float32 tensors of 1500 groups of 100:

    compression_*      deepspeed/compression/utils.py SymQuantizer, AsymQuantizer (the dequantized result)
    weight_only        deepspeed/inference/quantization/utils.py Quantizer, DeQuantizer (codes, scale, minimum, result)
    runtime_symmetric  deepspeed/runtime/weight_quantizer.py quantize_data (codes, scale)

A zero of either sign counts as +0. The CUDA kernels were not run. The formulas of kernel_symmetric and
kernel_asymmetric alone, compiled by nvcc 13.0 for an H100, gave 0 other codes of 770,048 and 0 other scales of
6,016; with --use_fast_math, as DeepSpeed builds them, 0 other codes and 1,270 other scales, 3 units off at most.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from intsim import int8, int16, run
from intsim.ops.dequantize import offset as dequantize
from intsim.ops.dequantize.offset import Scaling
from intsim.ops.quantize.deepspeed import Epsilon, Offset, Params, Step

pytestmark = pytest.mark.compiled  # 150,000 elements a row: too many for programs in plain Python

PRESETS = {
    f"{name}({bits})": getattr(Params, name)(bits)
    for name in (
        "compression_symmetric",
        "compression_asymmetric",
        "kernel_symmetric",
        "kernel_asymmetric",
        "fake_symmetric",
        "fake_asymmetric",
        "weight_only",
        "runtime_symmetric",
    )
    for bits in (4, 8)
}

# SHA-256 of what DeepSpeed gave, in the order of ``given``
MEASURED: dict[str, str] = {
    "compression_symmetric(4)": "907cf62c4274d8a65b829332c8ecd906a1fa90381bd1132cc5b5f089efbdffce",
    "compression_asymmetric(4)": "48a7038a3e9b366b14435b0375295cb2661fe17220946ebe34d7b7bdc24f94a6",
    "weight_only(4)": "4f82bb565392fa566476ffd4c35f7c936edf111f0ed22725ad1a386710c0b989",
    "runtime_symmetric(4)": "d7cde415f24cdb97b518bb098fb0627e49df70a9ebd4dbe6e55009acb01fbe4b",
    "compression_symmetric(8)": "eb3d359a09e6ee80b5bcb2d9948a1ba5818501b2a2c92a0e78929f9fa943bf41",
    "compression_asymmetric(8)": "4291e3f734e6946c66c5fdd0c5057cf72ccfe683e24aa8dfa875b0c6264e5a13",
    "weight_only(8)": "634fc679f315d1655969fa549ee778b20d033c097a9c6d3546d8905de144b025",
    "runtime_symmetric(8)": "0cc292bed20f8b613dde0398ca2af7805d66edc78d0109806235ba6169350536",
}


def groups(rows: int = 1500, n: int = 100) -> Any:
    """Five kinds of rows in turn: fine fractions, ties, exponents from 2**-20 to 2**19, thousandths, powers of two."""
    u = np.frombuffer(hashlib.shake_256(b"deepspeed").digest(4 * rows * n), "<u4").reshape(rows, n).astype(np.int64)
    kinds = [
        ((u % 2**24) - 2**23) * np.float32(2.0**-22),
        ((u % 401) - 200) * np.float32(0.25),
        ((u & 0x807F_FFFF) | (((u >> 8) % 40 + 107) << 23)).astype(np.uint32).view(np.float32),
        (u % 1000 + 1) * np.float32(0.001),
        ((u % 65) - 32) * np.float32(2.0**-5),
    ]
    return np.choose(np.arange(rows)[:, None] % 5, kinds).astype(np.float32)


def given(name: str, p: Params) -> list[Any]:
    """What DeepSpeed shows of this definition: codes and scales, or the dequantized result, or all."""
    q, scale, offset = run("quantize.deepspeed", groups(), p=p)
    scaling = Scaling.DIVIDE if name.startswith("weight_only") else Scaling.MULTIPLY
    x = run("dequantize.offset", q, scale, offset, p=dequantize.Params(p.dtype, scaling))
    shown = {"compression": [x], "weight": [q, scale, offset, x], "runtime": [q, scale]}
    return shown[name.split("_", maxsplit=1)[0]]


def digest(arrays: list[Any]) -> str:
    """Of the bits, in little-endian order; zeros are +0."""
    seen = hashlib.sha256()
    for a in arrays:
        seen.update((a + a.dtype.type(0)).astype(a.dtype.newbyteorder("<")).tobytes())
    return seen.hexdigest()


@pytest.mark.parametrize("name", MEASURED)
def test_bits_are_those_of_deepspeed(name: str) -> None:
    assert digest(given(name, PRESETS[name])) == MEASURED[name]


@pytest.mark.parametrize("name", MEASURED)
def test_no_other_definition_has_these_bits(name: str) -> None:
    """A digest that another rule also gives would tell nothing."""
    bits = name[-2]
    p = PRESETS[name]
    rivals = [q for other, q in PRESETS.items() if other[-2] == bits and q.dtype == p.dtype and q != p]
    assert rivals
    assert all(digest(given(name, q)) != MEASURED[name] for q in rivals)


def test_the_scale_of_weight_only_is_a_reciprocal_times_the_steps() -> None:
    """PyTorch computes number / tensor as reciprocal(tensor) * number: two roundings, not one."""
    x = groups()
    _, scale, _ = run("quantize.deepspeed", x, p=Params.weight_only(4))
    assert (scale != np.float32(15) / (x.max(axis=1) - x.min(axis=1))).sum() == 497


def test_fake_asymmetric_gives_17_codes_of_4_bits() -> None:
    x = np.arange(17, dtype=np.float32)[None] * np.float32(0.37)
    q, scale, offset = run("quantize.deepspeed", x, p=Params.fake_asymmetric(4))
    assert q[0].tolist() == list(range(17))
    back = run("dequantize.offset", q.astype(np.int16), scale, offset, p=dequantize.Params(int16))
    assert abs(back - x).max() < 1e-4


def test_a_group_of_zeros_is_told_by_a_scale_of_zero_or_has_a_scale() -> None:
    zeros = np.zeros((1, 5), np.float32)
    for name, p in PRESETS.items():
        q, scale, _ = run("quantize.deepspeed", zeros, p=p)
        assert not q.any(), name
        assert (scale[0] == 0) == name.startswith("compression"), name
        assert np.isinf(scale[0]) == name.startswith("weight_only"), name


def test_a_range_that_is_symmetric_uses_the_lowest_code_and_clips_the_highest() -> None:
    x = np.array([[-1, 1, 0.5]], np.float32)
    p = Params(16, Step.DIVIDE, Offset.NONE, Epsilon.NONE, int8)
    assert run("quantize.deepspeed", x, p=Params.compression_symmetric(4))[0].tolist() == [[-8, 7, 4]]
    assert run("quantize.deepspeed", x, p=p)[0].tolist() == [[-8, 8, 4]]
