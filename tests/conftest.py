"""Fixtures every test may use, and a header with what explains a failure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgellm.config import load_config
from edgellm.kernels.cache import load_kernels

_MANY = 500  # tests, which between them need all kernels


@pytest.fixture(scope="session", autouse=True)
def _compiled(request: pytest.FixtureRequest) -> None:
    """Before many tests, all kernels are compiled on all cores, not each on one where it is first met."""
    if len(request.session.items) < _MANY:
        return
    from edgellm.kernels.jit import kernel_names  # Numba: only where it pays

    a_target_of_several = load_config().target is not None  # no tests of mapped kernels then
    load_kernels([n for n in kernel_names() if not (a_target_of_several and n.startswith("mapped."))])


@pytest.fixture(scope="module")
def ahead(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """`ahead(job)`: what job() gives, which a process does that the test would only wait for.

    The jobs of all chosen tests of a module, their parameters of that name, are begun with the first of them,
    as many at once as there are cores.
    """
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    here = [t for t in tests if t.module is request.module and "ahead" in t.fixturenames]
    jobs = dict.fromkeys(test.callspec.params["job"] for test in here)
    pool = ThreadPoolExecutor(os.cpu_count())
    begun = {job: pool.submit(job) for job in jobs}
    yield lambda job: begun[job].result()
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("vocabs")`: a folder of reference data that is not ours to ship, or a skip.

    It is looked for in $EDGELLM_SHARED if that is set, else beside the checkout.
    """
    root = Path(os.environ.get("EDGELLM_SHARED", Path(__file__).resolve().parents[2] / "shared"))

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(
                f"reference data {name!r} is not here; set EDGELLM_SHARED to the folder that holds it"
            )
        return path

    return find
