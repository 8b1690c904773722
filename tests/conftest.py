"""Fixtures every test may use, and a header with what explains a failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("vocabs")`: a folder of reference data that is not ours to ship, or a skip.

    It is looked for in $EDGELLM_SHARED, then beside the checkout.
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
