"""Fixtures every test may use, and a header with what explains a failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


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
