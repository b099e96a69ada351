"""Every published system that installs as a package, against the variants that claim to be it: equal to the bit.

One module an adapter beside this one tests what is peculiar to it.
"""

from __future__ import annotations

import itertools

import pytest

from intsim.oracle import environments, evidence, judge
from intsim.oracle.compare import Verdict, compare
from intsim.oracle.runner import call
from intsim.oracle.adapter import Adapter, System, load, system, systems

LEAST_ELEMENTS = 100_000
LEAST_CASES = 5

ELSEWHERE = {"C library", "source checkout"}  # not to be had as a package
PROFILES = [
    (name, p) for name in systems() if system(name).runs not in ELSEWHERE for p in system(name).profiles or ("",)
]


def loaded(name: str, profile: str) -> Adapter:
    if system(name).requirement:
        environments.ensure(name, system(name).requirement)
    return load(name, profile or None)


@pytest.mark.compiled  # what is judged is not intsim's kernels: once is enough
@pytest.mark.parametrize(("name", "profile"), PROFILES, ids=lambda text: text or "only")
def test_every_element_is_equal_in_every_row_as_recorded(name: str, profile: str) -> None:
    made = judge.check(loaded(name, profile))
    made.raise_for_mismatch()
    assert made.exit_code == judge.CONFORMS, str(made)
    assert made.proofs == len(made.rows), "a planted wrong expectation a row"
    short = {row.serves: (row.judged, row.elements) for row in made.rows if row.elements < LEAST_ELEMENTS}
    assert not short, f"rows with fewer than {LEAST_ELEMENTS} elements: {short}"
    assert min(row.judged for row in made.rows) >= LEAST_CASES
    assert all(row.serves for row in made.rows), "each row says what the system calls it"
    _check_recorded(name, profile, made)


def _check_recorded(name: str, profile: str, report: judge.Report) -> None:
    """Every row of this check has a recorded line of no mismatch, for the same variant and parameters."""
    made = evidence.of(report, name, profile or None)
    recorded = {(line.serves, line.op): line for line in evidence.read() if line.place == made[0].place}
    for line in made:
        known = recorded[line.serves, line.op]
        assert (known.mismatches, known.params, known.defect) == (0, line.params, line.defect)
        assert known.elements >= LEAST_ELEMENTS
    absent = {serves for serves, _ in recorded.keys() - {(line.serves, line.op) for line in made}}
    assert absent <= set(system(name).by_processor), "a recorded row that this release does not make"


@pytest.mark.parametrize(("name", "profile"), PROFILES, ids=lambda text: text or "only")
def test_an_adapter_serves_its_first_cases(name: str, profile: str) -> None:
    """Three cases a row, with the JIT off too: the adapters themselves run in both jobs."""
    backend = loaded(name, profile)
    for capability in backend.capabilities():
        verdicts: list[Verdict] = []
        for case in itertools.chain(capability.directed(), filter(None, judge.cases_for(capability))):
            case.serves = capability.serves
            outcome = call(backend, case)
            if outcome.verdict is not Verdict.UNSUPPORTED:
                assert outcome.arrays is not None, outcome.text
                verdicts.append(compare(case, outcome.arrays).verdict)
            if len(verdicts) == 3:
                break
        assert verdicts == [Verdict.CONFORMS] * 3, capability.serves


@pytest.mark.parametrize("name", systems())
def test_an_adapter_states_its_system(name: str) -> None:
    stated = system(name)
    assert isinstance(stated, System)
    assert stated.runs in {"wheel", "isolated environment", *ELSEWHERE}
    assert stated.title
    assert stated.needs
    assert "/" in stated.source
    assert all(stated.left.values()), "a reason for what is left"
    assert bool(stated.requirement) == (stated.runs == "isolated environment")


@pytest.mark.parametrize("name", [n for n in systems() if n != "c_library"])
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no profile 'none'"):
        load(name, "none")
