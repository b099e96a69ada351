"""What all tests share: the backends that can run here, and how Hypothesis draws."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

UNCOMPILED = os.environ.get("NUMBA_DISABLE_JIT") == "1"
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=QUIET, max_examples=25)
settings.register_profile("uncompiled", derandomize=True, deadline=None, suppress_health_check=QUIET, max_examples=8)
settings.register_profile("night", deadline=None, suppress_health_check=QUIET, max_examples=600)
settings.load_profile(os.environ.get("INTSIM_TEST_PROFILE") or ("uncompiled" if UNCOMPILED else "ci"))


def pytest_configure() -> None:
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a worker a core: their threads would only wait
        os.environ.setdefault(library, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "uncompiled_job" not in item.nodeid)  # the longest test first
    if UNCOMPILED:
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(pytest.mark.skip(reason="needs the JIT; the compiled job runs it"))


@pytest.fixture(scope="session")
def backends() -> list[str]:
    """The backends that this job runs: the CUDA simulator only where the JIT is off with it."""
    return ["reference", "cpu", *(["cuda"] if SIMULATED else [])]
