"""Sound files: what is read is what was written, by whoever wrote it."""

from __future__ import annotations

import gc
import time

import gguf
import handmade
import numpy as np
import pytest
from handmade import array, pair, tensor, text, u32

from edgellm.errors import FormatError, UnsupportedError, UsageError
from edgellm.gguf import StringArray, TensorType, ValueType, open_gguf, write_gguf

SCALARS = {
    ValueType.UINT8: (0, 200, 255),
    ValueType.INT8: (-128, 5, 127),
    ValueType.UINT16: (0, 65535),
    ValueType.INT16: (-32768, 32767),
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.FLOAT32: (0.5, -1.0, float("inf")),
    ValueType.BOOL: (True, False),
    ValueType.STRING: ("", "a", "bé\n\0x", "日本" * 200),
    ValueType.UINT64: (0, 2**64 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
    ValueType.FLOAT64: (0.1, -1e300),
}


@pytest.fixture
def put(tmp_path):
    """put(bytes) -> a path that holds them."""

    def write(raw):
        path = tmp_path / "model.gguf"
        path.write_bytes(raw)
        return path

    return write


@pytest.mark.parametrize("kind", SCALARS, ids=lambda k: k.name)
def test_scalars_come_back(tmp_path, kind):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "test")
    for i, value in enumerate(SCALARS[kind]):
        writer.add_key_value(f"key.{i}", value, gguf.GGUFValueType(kind))
    finish(writer)
    with open_gguf(tmp_path / "m.gguf") as file:
        found = [file.metadata[f"key.{i}"] for i in range(len(SCALARS[kind]))]
    assert found == list(SCALARS[kind])
    assert {type(value) for value in found} == {type(value) for value in SCALARS[kind]}


@pytest.mark.parametrize("kind", SCALARS, ids=lambda k: k.name)
def test_arrays_come_back(tmp_path, kind):
    values = list(SCALARS[kind])
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "test")
    writer.add_key_value("key", values, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType(kind))
    finish(writer)
    with open_gguf(tmp_path / "m.gguf") as file:
        found = file.metadata["key"]
        assert found.tolist() == values
    if kind is ValueType.STRING:
        assert isinstance(found, StringArray)
    else:
        assert found.dtype.name == {"BOOL": "bool"}.get(kind.name, kind.name.lower())
        assert not found.flags.writeable


def test_every_value_type_is_tested():
    assert set(SCALARS) == set(ValueType) - {ValueType.ARRAY}


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_made_by_hand(put, version):
    parts = handmade.sound()
    parts.version = u32(version)
    with open_gguf(put(parts.bytes())) as file:
        assert (file.version, file.alignment, file.architecture) == (version, 32, "test")
        assert list(file.tensors) == ["a", "b", "c"]
        a, b = file.tensors["a"], file.tensors["b"]
        assert (a.shape, a.type, a.nbytes, a.row_bytes) == ((2, 4), TensorType.F32, 32, 16)
        assert (b.shape, b.type, b.nbytes, b.row_bytes) == ((1, 32), TensorType.Q4_0, 18, 18)
        assert file.data("b").tolist() == list(range(32, 50))
        assert bytes(file.data("a")) == put(parts.bytes()).read_bytes()[a.offset : a.offset + 32]
        assert not file.data("a").flags.writeable
        assert [list(x) for x in file.metadata["test.nested"]] == [[7, 8], ["x"]]


def test_the_data_begins_at_the_alignment_the_file_states(put):
    parts = handmade.Parts(tensors=[tensor("a", [8], 0, 0), tensor("b", [2], 24, 256)], alignment=256)
    parts.pairs.append(pair("general.alignment", ValueType.UINT32, u32(256)))
    parts.data = bytes(256) + b"\x01\x02"
    with open_gguf(put(parts.bytes())) as file:
        assert file.tensors["a"].offset % 256 == 0
        assert file.data("b").tolist() == [1, 2]


def test_tensors_may_stand_in_any_order_and_have_no_dimensions(put):
    parts = handmade.Parts(tensors=[tensor("second", [8], 0, 32), tensor("first", [], 0, 0)])
    parts.data = bytes(64)
    with open_gguf(put(parts.bytes())) as file:
        assert file.tensors["first"].shape == ()
        assert file.tensors["first"].nbytes == 4


def test_a_file_without_tensors_may_end_before_its_padding(put):
    parts = handmade.Parts()
    raw = parts.bytes().rstrip(b"\0")
    with open_gguf(put(raw)) as file:
        assert not file.tensors
        assert file.architecture == "test"


def test_a_file_without_architecture_opens_and_says_so_when_asked(put):
    with open_gguf(put(handmade.Parts(pairs=[]).bytes())) as file:
        assert len(file.metadata) == 0
        with pytest.raises(FormatError, match=r"'general.architecture' is missing; a string is needed"):
            _ = file.architecture


@pytest.mark.parametrize("type_", [t for t in TensorType if t.stored], ids=lambda t: t.name)
def test_block_sizes_are_those_of_the_format(type_):
    if type_ not in set(gguf.GGMLQuantizationType):
        assert (
            type_ is TensorType.Q2_0
        )  # newer than the oracle: 64 codes of 2 bits and a half-precision scale
        assert (type_.block_size, type_.type_size) == (64, 64 * 2 // 8 + 2)
    else:
        expected = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(type_)]
        assert (type_.block_size, type_.type_size) == expected
        assert type_.name == gguf.GGMLQuantizationType(type_).name


@pytest.mark.parametrize("type_", [t for t in TensorType if not t.stored], ids=lambda t: t.name)
def test_a_type_that_no_file_should_have_is_refused_by_name(put, type_):
    parts = handmade.Parts(tensors=[tensor("w", [256], type_, 0)], data=bytes(4096))
    with pytest.raises(
        UnsupportedError, match=rf"tensor 'w' has type {type_.name} \({type_.value}\).*use a file"
    ):
        open_gguf(put(parts.bytes()))
    with pytest.raises(UnsupportedError, match=type_.name):
        _ = type_.block_size


# -- strings -----------------------------------------------------------------------------------------


def strings_file(put, items):
    raw = b"".join(text(item) for item in items)
    parts = handmade.Parts()
    parts.pairs.append(pair("s", ValueType.ARRAY, array(ValueType.STRING, len(items), raw)))
    parts.pairs.append(pair("after", ValueType.UINT8, b"\x07"))
    return open_gguf(put(parts.bytes()))


@pytest.mark.parametrize(
    "items",
    [
        [],
        [""],
        ["", "", ""],
        ["a"],
        ["\0", "a\0b", ""],
        ["x" * 255, "y" * 256, "z" * 257, "é" * 40_000, "end"],
        [str(i) for i in range(10_000)],
        [("w" * 300 if i % 4096 == 4095 else str(i)) for i in range(9_000)],
    ],
    ids=["none", "empty", "empties", "one", "zeros", "long", "many", "many-some-long"],
)
def test_string_arrays(put, items):
    with strings_file(put, items) as file:
        found = file.metadata["s"]
        assert found.tolist() == items
        assert list(found) == items
        assert len(found) == len(items)
        assert [found[i] for i in range(-len(items), len(items))] == items * 2
        assert found[1:3] == items[1:3]
        assert file.metadata["after"] == 7


def test_a_string_index_out_of_range(put):
    with (
        strings_file(put, ["a", "b"]) as file,
        pytest.raises(IndexError, match="has 2 strings; there is no number 2"),
    ):
        file.metadata["s"][2]


@pytest.mark.parametrize("items", [["ok", b"\xff"], [b"\xc3", b"\xa9"], ["\0", b"\xff"]])
def test_a_string_that_is_not_utf8_is_named(put, items):
    says = r"metadata 's'\[\d\] at byte \d+ is not UTF-8"
    with strings_file(put, items) as file, pytest.raises(FormatError, match=says):
        file.metadata["s"].tolist()


# -- closing -----------------------------------------------------------------------------------------


def test_after_closing_views_live_and_the_rest_says_so(put):
    file = open_gguf(put(handmade.sound().bytes()))
    view, ints = file.data("a"), file.metadata["test.ints"]
    file.close()
    file.close()
    assert view.tolist() == list(range(32))
    assert ints.tolist() == [-1, 0, 1]
    assert file.tensors["a"].nbytes == 32
    with pytest.raises(UsageError, match="closed"):
        file.data("a")


def test_strings_and_arrays_of_a_closed_file_say_so(put):
    file = open_gguf(put(handmade.sound().bytes()))
    strings = file.metadata["test.strings"]
    file.close()
    with pytest.raises(UsageError, match="closed"):
        strings.tolist()
    with pytest.raises(UsageError, match="closed"):
        strings[0]
    with pytest.raises(UsageError, match="closed"):
        _ = file.metadata["test.ints"]


def test_the_map_goes_with_its_last_view(put):
    file = open_gguf(put(handmade.sound().bytes()))
    buffer, view = file._buffer, file.data("a")
    file.close()
    assert not buffer.closed
    del view
    gc.collect()
    buffer.close()
    assert buffer.closed


# -- real files --------------------------------------------------------------------------------------


def test_a_vocabulary_equals_what_the_reference_reader_finds(shared):
    path = shared("vocabs") / "ggml-vocab-bert-bge.gguf"
    reference = gguf.GGUFReader(path)
    with open_gguf(path) as file:
        header = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}
        assert set(file.metadata) == set(reference.fields) - header
        for key in file.metadata:
            value, expected = file.metadata[key], reference.fields[key].contents()
            assert (value.tolist() if hasattr(value, "tolist") else value) == expected, key


def test_a_vocabulary_of_152k_opens_quickly(shared):
    """The aim is 30 ms (300,000 strings to step over); ten times that leaves room for a busy machine."""
    path = shared("vocabs") / "ggml-vocab-qwen2.gguf"

    def once():
        start = time.perf_counter()
        open_gguf(path).close()
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.3
    with open_gguf(path) as file:
        tokens, merges = file.metadata["tokenizer.ggml.tokens"], file.metadata["tokenizer.ggml.merges"]
        assert (len(tokens), len(merges)) == (151_936, 151_387)
        assert (tokens[0], merges[-1]) == (tokens.tolist()[0], merges.tolist()[-1])


def test_every_vocabulary_at_hand_opens(shared):
    paths = sorted(shared("vocabs").glob("*.gguf"))
    assert paths
    for path in paths:
        with open_gguf(path) as file:
            assert len(file.metadata["tokenizer.ggml.tokens"]) > 1000
            assert all(file.metadata["tokenizer.ggml.tokens"][i] for i in (5, 500, -500))


def test_what_write_gguf_writes(tmp_path):
    values = {"test.n": 3, "test.x": 0.5, "test.names": ["a", "b"], "test.flags": np.array([True, False])}
    q4 = np.arange(36, dtype=np.uint8).reshape(2, 18)
    write_gguf(
        tmp_path / "m.gguf", "test", values, {"w": np.eye(3, dtype=np.float16), "q": (TensorType.Q4_0, q4)}
    )
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.meta.int("n") == 3
        assert file.meta["names"].tolist() == ["a", "b"]
        assert file.meta["flags"].tolist() == [True, False]
        assert file.data("w").view(np.float16).reshape(3, 3).tolist() == np.eye(3).tolist()
        assert file.tensors["q"].shape == (2, 32)
        assert file.data("q").tolist() == list(range(36))


def test_a_released_tensor_can_be_read_again(tmp_path):
    values = np.arange(1 << 20, dtype=np.float32)
    path = tmp_path / "large.gguf"
    write_gguf(path, "test", {}, {"small": values[:8].copy(), "large": values})
    with open_gguf(path) as file:
        before = file.data("large").copy()
        for name in file.tensors:
            file.release(name)
        assert (file.data("large") == before).all()
        assert (file.data("small").view(np.float32) == values[:8]).all()
