"""Command lines of the benches: what makes no sense is refused before anything is measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import arguments
import compare


def test_tests_of_all_kinds():
    assert len(compare.Test.parse_all(compare.DEFAULT_TESTS)) == 6
    assert compare.Test.parse("pp512") == compare.Test("pp512", "pp", 512)
    assert compare.Test.parse("tg64@2048") == compare.Test("tg64@2048", "tg", 64, 2048)
    assert compare.Test.parse("tg32x8") == compare.Test("tg32x8", "tg", 32, 0, 8)


@pytest.mark.parametrize(
    "name", ["", "pp", "pp0", "tg0", "tg8x0", "pp64x4", "pp64@256", "tg2,foo", "1" * 5000]
)
def test_tests_that_are_none(name):
    with pytest.raises(argparse.ArgumentTypeError):
        compare.Test.parse_all(name)


def test_numbers():
    assert arguments.counts("1,2") == [1, 2]
    assert arguments.counts_or_none("0,1") == [0, 1]
    for text in ("", "0", "-1", "x", "1,", "1.5", "1" * 5000):
        with pytest.raises(argparse.ArgumentTypeError):
            arguments.counts(text)


def test_a_model_that_is_not_there_ends_the_script_in_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"nothing\.gguf"):
        arguments.path_of(str(tmp_path / "nothing.gguf"))
