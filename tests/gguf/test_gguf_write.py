"""Writing: whole files or none, and values in the types that other readers expect."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from edgellm.errors import UsageError
from edgellm.gguf import TensorType, ValueType, open_gguf, write_gguf


@pytest.mark.parametrize(
    ("value", "kind", "item"),
    [
        (3, ValueType.UINT32, None),
        (-3, ValueType.INT32, None),
        (2**40, ValueType.INT64, None),
        (2**64 - 1, ValueType.UINT64, None),
        (0.5, ValueType.FLOAT32, None),
        (True, ValueType.BOOL, None),
        ("", ValueType.STRING, None),
        ((ValueType.UINT8, 3), ValueType.UINT8, None),
        ([1, -2], ValueType.ARRAY, ValueType.INT32),
        ([1, 2**40], ValueType.ARRAY, ValueType.INT64),
        ([True, False], ValueType.ARRAY, ValueType.BOOL),
        (["a", ""], ValueType.ARRAY, ValueType.STRING),
        (np.array([1, 2], np.uint16), ValueType.ARRAY, ValueType.UINT16),
        (np.array([True]), ValueType.ARRAY, ValueType.BOOL),
        (np.array([0.5]), ValueType.ARRAY, ValueType.FLOAT64),
    ],
)
def test_types_as_another_reader_finds_them(tmp_path, value, kind, item):
    write_gguf(tmp_path / "m.gguf", "test", {"key": value}, {})
    types = gguf.GGUFReader(tmp_path / "m.gguf").fields["key"].types
    assert types == [kind] if item is None else types == [kind, item]
    with open_gguf(tmp_path / "m.gguf") as file:
        found = file.metadata["key"]
    plain = value[1] if isinstance(value, tuple) else value
    if item is None:
        assert found == plain
    elif item is not ValueType.STRING:
        assert found.tolist() == list(plain)


def test_the_alignment_is_kept(tmp_path):
    tensors = {"a": np.ones(3, np.float32), "b": np.ones(5, np.float32)}
    write_gguf(tmp_path / "m.gguf", "test", {"general.alignment": 256}, tensors)
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.alignment == 256
        assert file.tensors["b"].offset - file.tensors["a"].offset == 256
        assert file.data("b").view(np.float32).tolist() == [1.0] * 5


@pytest.mark.parametrize(
    "value", [[], [1, "a"], {"a": 1}, None, 2**64, -(2**63) - 1, (ValueType.UINT8, 300), np.array(["a"])]
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, value):
    with pytest.raises(UsageError):
        write_gguf(tmp_path / "m.gguf", "test", {"key": value}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path, "test", {"n": 1}, {})
    before = path.read_bytes()
    for bad in (np.array(["text"]), (TensorType.Q4_0, np.zeros((1, 17), np.uint8))):
        with pytest.raises(UsageError, match="cannot be written"):
            write_gguf(path, "test", {"n": 2}, {"w": bad})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]
