"""Broken files: one clear error that names the field, the value and the limit, and never anything else."""

from __future__ import annotations

import struct

import handmade
import pytest
from handmade import array, pair, tensor, text, u32, u64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.errors import EdgeLLMError, FormatError, ModelNotFoundError, UnsupportedError, UsageError
from edgellm.gguf import ValueType, open_gguf

A = ValueType.ARRAY
HUGE = 2**64 - 1


def parts(**changes):
    made = handmade.sound()
    for name, value in changes.items():
        setattr(made, name, value)
    return made.bytes()


def with_pair(raw):
    made = handmade.sound()
    made.pairs.append(raw)
    return made.bytes()


def with_tensors(*tensors, data=bytes(4096), pairs=()):
    made = handmade.Parts(tensors=list(tensors), data=data)
    made.pairs += pairs
    return made.bytes()


def alignment(kind, raw):
    return with_pair(pair("general.alignment", kind, raw))


def nested(depth):
    value = array(ValueType.UINT8, 1, b"\x01")
    for _ in range(depth - 1):
        value = array(A, 1, value)
    return value


# (what is wrong, the file, what the message must say)
BROKEN = [
    ("version 0", parts(version=u32(0)), "version"),
    ("version 4", parts(version=u32(4)), "version at byte 4 is 4; supported are 2 and 3"),
    ("cut in the version", parts()[:6], "version at byte 4 needs 4 bytes, but the file ends after 2"),
    ("cut in the counts", parts()[:12], "tensor_count at byte 8 needs 8 bytes"),
    ("tensor count", parts(num_tensors=HUGE), f"tensor_count at byte 8 is {HUGE}, but only"),
    ("pair count", parts(num_pairs=2**40), f"metadata_kv_count at byte 16 is {2**40}, but only"),
    ("one pair too many", parts(num_pairs=8), "length of name of tensor 0"),
    ("one pair too few", parts(num_pairs=6), "dimension count of tensor 'test.nested' .* is 9"),
    ("key length", with_pair(u64(HUGE)), f"length of key of metadata pair 7 at byte .* is {HUGE}"),
    ("key not UTF-8", with_pair(pair(b"\xff\xfe", 0, b"\x01")), "key of metadata pair 7 .* not UTF-8"),
    ("key twice", with_pair(pair("test.bool", 7, b"\x01")), "'test.bool' at byte .* was there before"),
    ("value type", with_pair(pair("k", 13, b"\x01")), "type of metadata 'k' at byte .* is 13; at most 12"),
    ("bool 2", with_pair(pair("k", ValueType.BOOL, b"\x02")), "metadata 'k' at byte .* is 2; a bool"),
    (
        "bool 3 in an array",
        with_pair(pair("k", A, array(ValueType.BOOL, 3, b"\x00\x01\x03"))),
        r"metadata 'k'\[2\] at byte .* is 3; a bool",
    ),
    (
        "string length",
        with_pair(pair("k", ValueType.STRING, u64(10**9))),
        f"length of metadata 'k' at byte .* is {10**9}",
    ),
    ("element type", with_pair(pair("k", A, array(99, 1, b""))), "element type of metadata 'k' .* is 99"),
    ("array count", with_pair(pair("k", A, array(4, 2**61, b""))), f"count of metadata 'k' .* is {2**61}"),
    ("string count", with_pair(pair("k", A, array(8, 2**61, b""))), f"count of metadata 'k' .* is {2**61}"),
    (
        "string length in an array",
        with_pair(pair("k", A, array(8, 2, text("a") + u64(HUGE)))),
        rf"length of metadata 'k'\[1\] at byte .* is {HUGE}",
    ),
    (
        "string cut in an array",
        handmade.Parts(pairs=[pair("k", A, array(8, 2, text("a") + text("b")))]).bytes()[
            : 24 + 9 + 16 + 9 + 8
        ],
        "metadata 'k'",
    ),
    ("nested count", with_pair(pair("k", A, array(9, 2**60, b""))), f"count of metadata 'k' .* is {2**60}"),
    (
        "many nested arrays",
        with_pair(pair("k", A, array(9, 70_000, array(0, 0, b"") * 70_000))),
        "count of metadata 'k' .* is 70000; at most 65536",
    ),
    ("nested depth", with_pair(pair("k", A, nested(5))), "nests arrays deeper than 4"),
    ("alignment 0", alignment(ValueType.UINT32, u32(0)), "general.alignment at byte .* is 0; it must be"),
    ("alignment 48", alignment(ValueType.UINT32, u32(48)), "general.alignment at byte .* is 48"),
    ("alignment 4", alignment(ValueType.UINT32, u32(4)), "general.alignment at byte .* is 4"),
    ("alignment 2^31", alignment(ValueType.UINT32, u32(2**31)), f"general.alignment .* is {2**31}.*1048576"),
    ("alignment -32", alignment(ValueType.INT32, struct.pack("<i", -32)), "general.alignment .* is -32"),
    ("alignment text", alignment(ValueType.STRING, text("32")), "general.alignment .* not an integer"),
    ("alignment bool", alignment(ValueType.BOOL, b"\x01"), "general.alignment"),
    ("name not UTF-8", with_tensors(tensor(b"\xff", [4], 0, 0)), "name of tensor 0 .* not UTF-8"),
    ("name twice", with_tensors(tensor("a", [4], 0, 0), tensor("a", [4], 0, 32)), "name of tensor 1 .* 'a'"),
    ("5 dimensions", with_tensors(tensor("a", [1] * 5, 0, 0)), "dimension count of tensor 'a' .* is 5"),
    (
        "2^32 - 1 dimensions",
        with_tensors(tensor("a", [1], 0, 0, num_dims=2**32 - 1)),
        f"dimension count of tensor 'a' .* is {2**32 - 1}",
    ),
    ("dimension 0", with_tensors(tensor("a", [4, 0], 0, 0)), "dimension 1 of tensor 'a' .* is 0"),
    ("dimension -1", with_tensors(tensor("a", [HUGE], 0, 0)), f"dimension 0 of tensor 'a' .* is {HUGE}"),
    (
        "a product that wraps to 0 in 64 bits",
        with_tensors(tensor("a", [2**32, 2**32], 0, 0)),
        f"tensor 'a' .* {2**66}",
    ),
    ("type id", with_tensors(tensor("a", [4], 77, 0)), "type of tensor 'a' .* is 77"),
    ("half a block", with_tensors(tensor("a", [33], 2, 0)), "tensor 'a' .* is 33; type Q4_0 .* 32"),
    (
        "offset not aligned",
        with_tensors(tensor("a", [4], 0, 8)),
        "offset of tensor 'a' .* is 8; the alignment",
    ),
    ("offset outside", with_tensors(tensor("a", [4], 0, 2**40)), "tensor 'a' .* the file ends at"),
    ("offset that wraps", with_tensors(tensor("a", [4], 0, 2**64 - 32)), "tensor 'a' .* the file ends at"),
    (
        "overlap",
        with_tensors(tensor("a", [64], 0, 0), tensor("b", [4], 0, 32)),
        "tensor 'b' at byte .* overlaps tensor 'a'",
    ),
    ("overlap at the same offset", with_tensors(tensor("a", [4], 0, 0), tensor("b", [4], 0, 0)), "overlaps"),
    (
        "cut in the tensor data",
        parts()[:-40],
        "tensor 'c' .* lies beyond .* 40 bytes are missing; the download is incomplete",
    ),
    ("cut before the tensor data", parts()[:-96], "96 bytes are missing; the download is incomplete"),
]


@pytest.mark.parametrize(("raw", "says"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_file_names_what_is_wrong(tmp_path, raw, says):
    path = tmp_path / "broken.gguf"
    path.write_bytes(raw)
    with pytest.raises((FormatError, UnsupportedError), match=says) as caught:
        open_gguf(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(path))


def test_the_file_that_the_cases_start_from_is_sound(tmp_path):
    (tmp_path / "m.gguf").write_bytes(parts())
    with open_gguf(tmp_path / "m.gguf") as file:
        assert dict(file.metadata)["test.strings"].tolist() == ["a", "", "bé"]


IMPOSTORS = [
    ("empty", b"", FormatError, "is empty"),
    ("text", b"hello, world\n", FormatError, "is not a GGUF file but text"),
    ("noise", bytes(range(128, 200)), FormatError, "is not a GGUF file but something else"),
    ("LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid", FormatError, "git lfs pull"),
    ("web page", b"\n<!DOCTYPE html><html>", FormatError, "web page"),
    ("old GGML", b"tjgg" + bytes(64), FormatError, "old GGJT format"),
    ("ZIP", b"PK\x03\x04" + bytes(64), FormatError, "ZIP archive"),
    ("safetensors", u64(50) + b'{"a":' + bytes(64), FormatError, "safetensors"),
    ("magic only", b"GGUF", FormatError, "version at byte 4"),
    ("version 0", b"GGUF" + u32(0) + bytes(64), UnsupportedError, "version at byte 4 is 0; supported are"),
    ("version 1", b"GGUF" + u32(1) + bytes(64), UnsupportedError, "version 1 .*convert the model again"),
    ("big-endian", b"GGUF" + struct.pack(">I", 3) + bytes(64), UnsupportedError, "big-endian.*little-endian"),
]


@pytest.mark.parametrize(("raw", "kind", "says"), [c[1:] for c in IMPOSTORS], ids=[c[0] for c in IMPOSTORS])
def test_what_is_not_a_gguf_file_is_told_apart(tmp_path, raw, kind, says):
    (tmp_path / "model.gguf").write_bytes(raw)
    with pytest.raises(kind, match=says):
        open_gguf(tmp_path / "model.gguf")


def test_a_missing_file_and_a_directory(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no file .*nothing\.gguf"):
        open_gguf(tmp_path / "nothing.gguf")
    with pytest.raises(UsageError, match=r"is a directory; give the \.gguf file"):
        open_gguf(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        open_gguf("a\0b")


def test_a_long_name_does_not_make_a_long_message(tmp_path):
    (tmp_path / "m.gguf").write_bytes(with_pair(pair("k" * 60_000, 13, b"")))
    with pytest.raises(FormatError) as caught:
        open_gguf(tmp_path / "m.gguf")
    assert len(str(caught.value)) < 600


STRING, INT8, GIB = ValueType.STRING, ValueType.INT8, 2**30
MUCH = [
    ("key", with_pair(u64(GIB) + b"k"), "length of key of metadata pair 7 .* is 1073741824; at most 65535 "),
    (
        "string",
        with_pair(pair("k", STRING, u64(GIB))),
        "length of metadata 'k' .* is 1073741824; at most 67108864 ",
    ),
    (
        "numbers",
        with_pair(pair("k", A, array(INT8, GIB, b""))),
        "count of metadata 'k' .*; at most 67108864 ",
    ),
    ("strings", with_pair(pair("k", A, array(STRING, 2**24, b""))), "count .* is 16777216; at most 8388608 "),
    (
        "a long string",
        with_pair(pair("k", A, array(STRING, 1, u64(GIB)))),
        "number of bytes of metadata 'k' .*; at most 67108864 ",
    ),
    ("tensors", parts(num_tensors=2**24), "tensor_count at byte 8 is 16777216; at most 2796202 "),
]


@pytest.mark.parametrize(("raw", "says"), [case[1:] for case in MUCH], ids=[case[0] for case in MUCH])
def test_what_a_large_file_has_room_for_but_nobody_needs(tmp_path, raw, says):
    """A length out of place must not bring gigabytes of the file into memory."""
    with (tmp_path / "m.gguf").open("wb") as file:
        file.write(raw)
        file.truncate(2 * GIB)  # zeros without pages of their own
    with pytest.raises(FormatError, match=says):
        open_gguf(tmp_path / "m.gguf")


def test_text_that_is_not_utf8_is_an_error_when_it_is_read(tmp_path):
    (tmp_path / "m.gguf").write_bytes(with_pair(pair("test.author", ValueType.STRING, text(b"Ren\xe9"))))
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.meta.bool("bool") is True
        with pytest.raises(FormatError, match=r"'test.author' at byte \d+ is not UTF-8"):
            _ = file.metadata["test.author"]


# -- fuzzing -----------------------------------------------------------------------------------------

SOUND = parts()
flips = st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=4)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=flips, cut=st.one_of(st.just(len(SOUND)), st.integers(0, len(SOUND))))
def test_flipped_bytes_and_cuts_open_or_are_refused(tmp_path, flips, cut):
    raw = bytearray(SOUND)
    for at, value in flips:
        raw[at] = value
    read_all(tmp_path / "fuzz.gguf", bytes(raw[:cut]))


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_every_byte_of_the_header_set_to(tmp_path, value):
    for at in range(len(SOUND) - 96):
        read_all(tmp_path / "fuzz.gguf", SOUND[:at] + bytes([value]) + SOUND[at + 1 :])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=400), num_pairs=st.integers(0, 3), num_tensors=st.integers(0, 3))
def test_noise_behind_a_header_opens_or_is_refused(tmp_path, body, num_pairs, num_tensors):
    read_all(tmp_path / "fuzz.gguf", b"GGUF" + u32(3) + u64(num_tensors) + u64(num_pairs) + body)


def read_all(path, raw):
    """Open and touch everything; nothing but EdgeLLMError may come of it."""
    path.write_bytes(raw)
    try:
        with open_gguf(path) as file:
            for name, info in file.tensors.items():
                assert file.data(name).size == info.nbytes
                assert 0 <= info.offset <= info.offset + info.nbytes <= len(raw)
            for value in file.metadata.values():
                assert value is not None
                if hasattr(value, "tolist"):
                    value.tolist()
    except EdgeLLMError:
        pass
