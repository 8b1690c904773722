"""Every registered type against the `gguf` package, bit for bit, and against hand-made blocks."""

from __future__ import annotations

import struct
import time

import gguf
import naive
import numpy as np
import pytest
from gguf import quants as oracle

from edgellm import quants
from edgellm.errors import UnsupportedError, UsageError
from edgellm.gguf import TensorType

TYPES = quants.supported()
QUANTIZABLE = [t for t in TYPES if quants.get(t).can_quantize]
BLOCKED = [t for t in TYPES if t.block_size > 1]
NAIVE = {
    TensorType.Q4_0: naive.dequantize_q4_0,
    TensorType.Q4_1: naive.dequantize_q4_1,
    TensorType.Q8_0: naive.dequantize_q8_0,
    TensorType.Q6_K: naive.dequantize_q6_k,
}

by_name = pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.name)


def random_rows(type_, rows, cols, seed=0):
    """Random bytes whose scales are finite, uint8 [rows, row_bytes]."""
    cls = quants.get(type_)
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (rows, cls.row_bytes(cols)), dtype=np.uint8)
    blocks = raw.reshape(-1).view(cls.block)
    if cls.block.names:
        for name in cls.block.names:
            if cls.block[name].kind == "f":
                blocks[name] = rng.uniform(-2, 2, len(blocks))
    elif type_ is TensorType.BF16:
        blocks[:] = rng.standard_normal(len(blocks)).astype(np.float32).view(np.uint32) >> 16
    else:
        blocks[:] = rng.standard_normal(len(blocks))
    return raw


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def test_the_registry_has_what_models_are_made_of():
    names = {t.name for t in TYPES}
    assert {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"} <= names


@by_name
def test_a_type_has_the_sizes_of_the_format(type_):
    cls = quants.get(type_)
    assert (cls.block_size, cls.type_size) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(type_)]
    assert cls.block.itemsize == cls.type_size


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 33])
@by_name
def test_dequantize_equals_the_reference_bit_for_bit(type_, rows):
    raw = random_rows(type_, rows, 768, seed=rows)
    expected = oracle.dequantize(raw, gguf.GGMLQuantizationType(type_))
    found = quants.get(type_).dequantize(raw)
    assert found.shape == (rows, 768)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(bits(found), bits(expected))


@pytest.mark.parametrize("type_", NAIVE, ids=lambda t: t.name)
def test_dequantize_equals_plain_loops(type_):
    raw = random_rows(type_, 3, 512)
    expected = [NAIVE[type_](bytes(row)) for row in raw]
    np.testing.assert_array_equal(quants.get(type_).dequantize(raw), np.array(expected, np.float32))


@by_name
def test_dequantize_takes_flat_read_only_and_strided_rows(type_):
    raw = random_rows(type_, 6, 256)
    whole = quants.get(type_).dequantize(raw)
    flat = np.frombuffer(raw.tobytes(), np.uint8)
    np.testing.assert_array_equal(quants.get(type_).dequantize(flat), whole.reshape(-1))
    np.testing.assert_array_equal(quants.get(type_).dequantize(raw[::2]), whole[::2])
    stacked = quants.get(type_).dequantize(raw.reshape(2, 3, -1))
    np.testing.assert_array_equal(stacked, whole.reshape(2, 3, 256))


@by_name
def test_dequantize_of_no_rows_is_empty(type_):
    raw = np.zeros((0, quants.get(type_).row_bytes(256)), np.uint8)
    assert quants.get(type_).dequantize(raw).shape == (0, 256)


@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("type_", QUANTIZABLE, ids=lambda t: t.name)
def test_quantize_equals_the_reference_byte_for_byte(type_, rows):
    rng = np.random.default_rng(rows)
    values = (rng.standard_normal((rows, 768)) * rng.choice([1e-3, 1, 50], (rows, 1))).astype(np.float32)
    values[0, :32] = 0  # a block without a scale
    values[-1, 32:64] = 1.25  # a block of one value
    values[-1, 64:96] = np.repeat([-2.5, 2.5], 16)  # a tie for the farthest value
    expected = oracle.quantize(values, gguf.GGMLQuantizationType(type_)).view(np.uint8)
    found = quants.get(type_).quantize(values)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected.reshape(found.shape))


def test_q8_0_rounds_halves_away_from_zero():
    values = np.zeros(32, np.float32)
    values[:5] = [127, 0.5, 1.5, 2.5, -2.5]
    assert quants.get(TensorType.Q8_0).quantize(values)[2:7].view(np.int8).tolist() == [127, 1, 2, 3, -3]


@pytest.mark.parametrize("type_", QUANTIZABLE, ids=lambda t: t.name)
def test_quantizing_what_was_dequantized_changes_nothing(type_):
    # Symmetric types may choose the other sign of the scale for random codes, so start from real values.
    values = np.random.default_rng(1).standard_normal((4, 256)).astype(np.float32)
    cls = quants.get(type_)
    once = cls.dequantize(cls.quantize(values))
    twice = cls.dequantize(cls.quantize(once))
    # A step of the grid moves by the rounding of its half-precision scale at most.
    step = np.abs(values).max() * 2**-10
    np.testing.assert_allclose(twice, once, atol=step, rtol=0)


def test_bf16_rounds_to_even_and_keeps_what_is_not_finite():
    halfway = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    cls = quants.get(TensorType.BF16)
    assert cls.quantize(halfway).view(np.uint16).tolist() == [0x3F80, 0x3F82, 0x3F81]
    assert cls.dequantize(cls.quantize(special)).tolist()[:2] == [np.inf, -np.inf]
    assert np.isnan(cls.dequantize(cls.quantize(special))[2])


def test_bf16_keeps_a_nan_whose_payload_is_in_the_lower_half():
    nan = np.array([0x7F800001], np.uint32).view(np.float32)
    cls = quants.get(TensorType.BF16)
    assert np.isnan(cls.dequantize(cls.quantize(nan))).all()


def test_a_q4_0_block_by_hand():
    raw = np.frombuffer(struct.pack("<e", 2.0) + bytes([0x90] + [0x88] * 15), np.uint8)
    values = quants.get(TensorType.Q4_0).dequantize(raw)
    assert values[0] == -16  # low nibble 0: 2 * (0 - 8)
    assert values[16] == 2  # high nibble 9: 2 * (9 - 8)
    assert not np.delete(values, [0, 16]).any()


def test_a_q5_1_block_by_hand():
    raw = np.frombuffer(struct.pack("<eeI", 0.5, -1.0, 1 << 31) + bytes([0] * 15 + [0xF0]), np.uint8)
    values = quants.get(TensorType.Q5_1).dequantize(raw)
    assert values[31] == 14.5  # 0.5 * 31 - 1
    assert (values[:31] == -1).all()


def test_a_q8_0_block_by_hand():
    raw = np.frombuffer(struct.pack("<e32b", 2.0, *range(1, 33)), np.uint8)
    assert quants.get(TensorType.Q8_0).dequantize(raw).tolist() == [2.0 * i for i in range(1, 33)]


def test_a_q4_k_block_by_hand():
    # Sub-block 0 has scale 1 and minimum 2, sub-block 4 scale 0x2f and minimum 0x1e; all codes are 3.
    scales = bytes([0x81, 0, 0, 0, 0x42, 0, 0, 0, 0xEF, 0, 0, 0])
    raw = np.frombuffer(struct.pack("<ee", 1.0, 0.5) + scales + bytes([0x33] * 128), np.uint8)
    values = quants.get(TensorType.Q4_K).dequantize(raw).reshape(8, 32)
    assert (values[0] == 1 * 3 - 0.5 * 2).all()
    assert (values[4] == 0x2F * 3 - 0.5 * 0x1E).all()
    assert not values[[1, 2, 3, 5, 6, 7]].any()


def test_a_q6_k_block_by_hand():
    ql, qh, scales = bytearray(128), bytearray(64), [0] * 16
    ql[64 + 32 + 5] = 0xF0  # second half, run 3, column 5: low four bits 15
    qh[32 + 5] = 0b11 << 6  # ... and both upper bits: q = 63
    scales[8 + 3 * 2] = -4
    raw = np.frombuffer(bytes(ql + qh) + struct.pack("<16be", *scales, 0.25), np.uint8)
    values = quants.get(TensorType.Q6_K).dequantize(raw)
    assert values[128 + 96 + 5] == -0.25 * 4 * 31
    assert values[128 + 96 + 6] == 0.25 * 4 * 32


def test_an_unsupported_type_is_refused_with_the_supported_ones():
    with pytest.raises(UnsupportedError, match=r"IQ2_XXS is not supported; supported are F32.*Q6_K"):
        quants.get(TensorType.IQ2_XXS)


@pytest.mark.parametrize("type_", [t for t in TYPES if t not in QUANTIZABLE], ids=lambda t: t.name)
def test_a_type_without_a_quantizer_says_so(type_):
    with pytest.raises(UnsupportedError, match=f"quantize to {type_.name}"):
        quants.get(type_).quantize(np.zeros((1, 256), np.float32))


@pytest.mark.parametrize("type_", BLOCKED, ids=lambda t: t.name)
def test_rows_that_are_not_whole_blocks_are_refused(type_):
    cls = quants.get(type_)
    with pytest.raises(
        UsageError, match=rf"multiple of {cls.block_size} columns; these have {cls.block_size + 1}"
    ):
        cls.row_bytes(cls.block_size + 1)
    with pytest.raises(UsageError, match=f"multiple of {cls.type_size} bytes"):
        cls.dequantize(np.zeros(cls.type_size + 1, np.uint8))
    with pytest.raises(UsageError, match="uint8"):
        cls.dequantize(np.zeros(cls.type_size, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_a_shared_scale_cannot_hold_is_refused(value):
    values = np.zeros((1, 32), np.float32)
    values[0, 7] = value
    with pytest.raises(UsageError, match="NaN or infinity"):
        quants.get(TensorType.Q4_0).quantize(values)


@pytest.mark.parametrize("type_", QUANTIZABLE, ids=lambda t: t.name)
@pytest.mark.parametrize("value", [1e-42, 1e-30, 3e38])
def test_quantize_survives_the_ends_of_the_range(type_, value):
    values = np.full((1, 256), value, np.float32)
    values[0, ::2] *= -1
    assert quants.get(type_).quantize(values).shape == (1, quants.get(type_).row_bytes(256))


def test_a_class_whose_block_has_the_wrong_size_cannot_be_defined():
    with pytest.raises(AssertionError, match="Q2_K: 4 bytes, not 84"):

        class Wrong(quants.QuantType, type=TensorType.Q2_K):
            block = np.dtype("<f4")

    assert TensorType.Q2_K not in quants.supported()


@by_name
def test_one_row_is_quick(type_):
    """A token embedding is looked up in every step: tens of microseconds, with room for a busy machine."""
    raw = random_rows(type_, 1, 2048)

    def once():
        start = time.perf_counter()
        quants.get(type_).dequantize(raw)
        return time.perf_counter() - start

    assert min(once() for _ in range(200)) < 250e-6
