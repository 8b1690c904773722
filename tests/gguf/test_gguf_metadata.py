"""The typed getters: the value, or a message with the key, the type found and the type wanted."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm.errors import FormatError
from edgellm.gguf import open_gguf, write_gguf

VALUES = {
    "test.block_count": 3,
    "test.eps": 1e-5,
    "test.whole": 2,
    "test.flag": True,
    "test.name": "a name",
    "test.heads": [4, 4, 8],
    "test.scales": [0.5, 1.0, 2.0],
    "test.pattern": [True, False, True],
    "test.words": ["a", "b"],
    "other.key": "o",
}


@pytest.fixture
def file(tmp_path):
    write_gguf(tmp_path / "m.gguf", "test", VALUES, {})
    with open_gguf(tmp_path / "m.gguf") as opened:
        yield opened


@pytest.fixture
def meta(file):
    return file.meta


def test_the_prefix_is_the_architectures(file, meta):
    assert meta.name("eps") == "test.eps"
    assert meta["name"] == file.metadata["test.name"] == "a name"
    assert "eps" in meta
    assert "other.key" not in meta
    assert set(meta) == {key.removeprefix("test.") for key in VALUES if key.startswith("test.")}
    assert len(meta) == len(set(meta))
    assert file.metadata.under("other.").str("key") == "o"


def test_getters_give_what_is_there(meta):
    assert meta.int("block_count") == 3
    assert meta.float("eps") == pytest.approx(1e-5)
    assert meta.float("whole") == 2.0
    assert isinstance(meta.float("whole"), float)
    assert meta.bool("flag") is True
    assert meta.str("name") == "a name"


def test_getters_give_the_default_for_what_is_absent(meta):
    assert meta.int("none", 7) == 7
    assert meta.float("none", default=10000.0) == 10000.0
    assert meta.bool("none", False) is False
    assert meta.str("none", "") == ""
    assert meta.ints("none", default=5) == [5, 5, 5]
    assert meta.get("none") is None


def test_a_default_does_not_hide_a_wrong_type(meta):
    with pytest.raises(
        FormatError, match=r"metadata 'test\.name' is the string 'a name'; an integer is needed"
    ):
        meta.int("name", 7)


@pytest.mark.parametrize(
    ("getter", "key", "found"),
    [
        ("int", "eps", "the float"),
        ("int", "flag", "the bool True"),
        ("int", "heads", "an array of 3 int32"),
        ("float", "flag", "the bool True"),
        ("float", "name", "the string 'a name'"),
        ("bool", "whole", "the int 2"),
        ("str", "whole", "the int 2"),
        ("str", "words", "an array of 2 strings"),
        ("get_array", "name", "the string 'a name'"),
        ("get_array", "words", "an array of 2 strings"),
        ("ints", "scales", "an array of 3 float32"),
        ("ints", "pattern", "an array of 3 bool"),
    ],
)
def test_a_wrong_type_is_named(meta, getter, key, found):
    with pytest.raises(FormatError, match=f"metadata 'test.{key}' is {found}.*needed"):
        getattr(meta, getter)(key)


@pytest.mark.parametrize("getter", ["int", "float", "bool", "str", "get_array", "ints"])
def test_what_is_missing_is_named(meta, getter):
    with pytest.raises(FormatError, match=r"metadata key 'test.none' is missing; .* is needed"):
        getattr(meta, getter)("none")


def test_one_value_counts_for_every_layer_and_an_array_for_each(meta):
    assert meta.get_array("whole") == [2, 2, 2]
    assert meta.get_array("heads") == [4, 4, 8]
    assert meta.ints("whole", 5) == [2] * 5
    assert meta.get_array("scales") == [0.5, 1.0, 2.0]
    assert meta.get_array("pattern") == [True, False, True]
    assert meta.get_array("flag", 2) == [True, True]
    assert all(type(value) is int for value in meta.ints("heads"))


@pytest.mark.parametrize("count", [2, 4])
def test_an_array_of_another_length_is_refused(meta, count):
    with pytest.raises(FormatError, match=f"test.heads has 3 entries; {count} are needed"):
        meta.ints("heads", count)


@pytest.mark.parametrize("count", [-1, 10**12])
def test_a_count_from_a_file_is_bounded(meta, count):
    with pytest.raises(FormatError, match=f"test.whole is wanted {count} times; at most 65536"):
        meta.ints("whole", count)


def test_arrays_are_read_once_and_read_only(meta):
    first = meta["heads"]
    assert first is meta["heads"]
    assert isinstance(first, np.ndarray)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
