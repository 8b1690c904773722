"""No kernel has become more than a quarter slower than `bench/baselines.json` has it for this CPU."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import calibrate
import kernel_cases
import kernels

from edgellm.kernels import layout as L

NO_WORK = kernel_cases.Work([])


@pytest.mark.parametrize("name", kernel_cases.CASES)
def test_no_kernel_has_lost_a_quarter(benchmark, name):
    """pytest-benchmark's own figures are seconds; what counts is the cost, relative to a loop beside it."""
    recorded = kernels.baseline().get(name)
    if recorded is None:
        pytest.skip(
            f"not recorded for {kernels.cpu_name()}: scripts/bench-kernels --record, nothing else running"
        )
    case = kernel_cases.CASES[name]
    benchmark.pedantic(case().runs[0], rounds=3, warmup_rounds=1)
    cost = kernels.least_cost(case, recorded * kernels.ALLOWED)
    benchmark.extra_info.update(cost=cost, baseline=recorded)
    assert cost <= recorded * kernels.ALLOWED, (
        f"{name} costs {cost / recorded:.2f} times its baseline; see which commit did it with "
        f"scripts/bench-commits, and record anew what is meant to be so: scripts/bench-kernels --record"
    )


@pytest.mark.parametrize("kernel", [f"{kind}.{form}" for kind in ("matmul", "pack") for form in L.FORMS])
def test_every_packed_form_is_timed(kernel):
    assert any(name.startswith(f"{kernel} ") for name in kernel_cases.CASES)


def test_work_done_twice_costs_twice():
    """Whatever else runs on this machine: a loss shows, and nothing shows where there is none."""
    once = kernel_cases.pointwise("pointwise.rms_norm")

    def twice() -> None:
        once.runs[0]()
        once.runs[0]()

    ratio = 0.0
    for more in range(1, kernels.ATTEMPTS):
        ratio = kernels.cost(kernel_cases.Work([twice]), more) / kernels.cost(once, more)
        if 1.7 < ratio < 2.3:
            break
    assert 1.7 < ratio < 2.3


def test_a_suspect_is_measured_until_it_is_fast_enough(monkeypatch):
    costs = iter([3.0, 2.0, 1.0, 0.5])
    monkeypatch.setattr(kernels, "cost", lambda work, more: next(costs))
    assert kernels.least_cost(lambda: NO_WORK, enough=1.0, pause=0.0) == 1.0
    assert next(costs) == 0.5


def test_a_suspect_that_stays_slow_is_given_up(monkeypatch):
    monkeypatch.setattr(kernels, "cost", lambda work, more: 2.0 + more)
    assert kernels.least_cost(lambda: NO_WORK, enough=1.0, pause=0.0) == 3.0


def test_recording_some_keeps_the_others(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "BASELINES", tmp_path / "baselines.json")
    first, second = list(kernel_cases.CASES)[:2]
    assert kernels.baseline() == {}
    kernels.record({first: 1.23456, "a kernel that is no more": 1.0})
    kernels.record({second: 2.0})
    assert kernels.baseline() == {first: 1.235, second: 2.0}


def test_the_measure_shares_no_code_with_what_is_measured():
    tree = ast.parse(Path(calibrate.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.startswith("edgellm")}
