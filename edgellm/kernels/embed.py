"""The rows of a table that a step's tokens name, from the GGUF blocks of the file: as `edgellm.quants` reads
them, to the last bit.

A chunk is PW_CHUNK tokens.
"""

from __future__ import annotations

from edgellm.kernels.jit import add_kernel, device, float32, int64
from edgellm.kernels.layout import (
    BLOCK,
    EM_COLUMNS,
    EM_ROW_BYTES,
    EM_TABLE,
    EM_Y,
    EM_Y_STRIDE,
    FORMS,
    H_TOKEN_IDS,
    H_TOKENS,
    PW_CHUNK,
)
from edgellm.simd.ops import get_f16, get_i8, get_i16, get_i32, get_i64, get_u8, put_f32, put_word

# How each type's row is read: (source, y, columns).


@device
def _five_bits(nibbles, fifth, i, shift):
    """Code i of 16 in the nibbles at `shift`, with bit i of `fifth`."""
    return ((get_u8(nibbles + i) >> shift) & 15) | (((fifth >> i) & 1) << 4)


@device
def _row_q4_0(source, y, columns):
    for at in range(0, 4 * columns, 4 * BLOCK):
        d = get_f16(source)
        for i in range(16):
            code = int64(get_u8(source + 2 + i))
            put_f32(y + at + 4 * i, d * float32((code & 15) - 8))
            put_f32(y + at + 64 + 4 * i, d * float32((code >> 4) - 8))
        source += 18


@device
def _row_q4_1(source, y, columns):
    for at in range(0, 4 * columns, 4 * BLOCK):
        d, m = get_f16(source), get_f16(source + 2)
        for i in range(16):
            code = int64(get_u8(source + 4 + i))
            put_f32(y + at + 4 * i, d * float32(code & 15) + m)
            put_f32(y + at + 64 + 4 * i, d * float32(code >> 4) + m)
        source += 20


@device
def _row_q5_0(source, y, columns):
    for at in range(0, 4 * columns, 4 * BLOCK):
        d, fifth = get_f16(source), int64(get_i32(source + 2))
        for i in range(16):
            put_f32(y + at + 4 * i, d * float32(_five_bits(source + 6, fifth, i, 0) - 16))
            put_f32(y + at + 64 + 4 * i, d * float32(_five_bits(source + 6, fifth >> 16, i, 4) - 16))
        source += 22


@device
def _row_q5_1(source, y, columns):
    for at in range(0, 4 * columns, 4 * BLOCK):
        d, m, fifth = get_f16(source), get_f16(source + 2), int64(get_i32(source + 4))
        for i in range(16):
            put_f32(y + at + 4 * i, d * float32(_five_bits(source + 8, fifth, i, 0)) + m)
            put_f32(y + at + 64 + 4 * i, d * float32(_five_bits(source + 8, fifth >> 16, i, 4)) + m)
        source += 24


@device
def _row_q8_0(source, y, columns):
    for at in range(0, 4 * columns, 4 * BLOCK):
        d = get_f16(source)
        for i in range(BLOCK):
            put_f32(y + at + 4 * i, d * float32(get_i8(source + 2 + i)))
        source += 34


@device
def _six_bits(scales, i):
    """Scale and minimum i of eight."""
    if i < 4:
        return get_u8(scales + i) & 63, get_u8(scales + 4 + i) & 63
    both = get_u8(scales + 4 + i)
    scale = (both & 15) | (get_u8(scales + i - 4) >> 6) << 4
    return scale, (both >> 4) | (get_u8(scales + i) >> 6) << 4


@device
def _row_k(source, y, columns, fifths):
    """Q4_K, or with `fifths` Q5_K."""
    for _ in range(columns // 256):
        d, dmin = get_f16(source), get_f16(source + 2)
        codes = source + 48 if fifths else source + 16
        for block in range(8):
            scale, minimum = _six_bits(source + 4, block)
            factor, least = d * float32(scale), dmin * float32(minimum)
            for i in range(BLOCK):
                code = (int64(get_u8(codes + block // 2 * 32 + i)) >> (block % 2 * 4)) & 15
                if fifths:
                    code |= ((int64(get_u8(source + 16 + i)) >> block) & 1) << 4
                put_f32(y + 4 * i, factor * float32(code) - least)
            y += 4 * BLOCK
        source = codes + 128


@device
def _row_q4_k(source, y, columns):
    _row_k(source, y, columns, False)


@device
def _row_q5_k(source, y, columns):
    _row_k(source, y, columns, True)


@device
def _row_q6_k(source, y, columns):
    for _ in range(columns // 256):
        d = get_f16(source + 208)
        for run in range(8):
            low = source + run // 4 * 64 + run % 2 * 32
            top = source + 128 + run // 4 * 32
            for half in range(2):
                factor = d * float32(get_i8(source + 192 + 2 * run + half))
                for i in range(16 * half, 16 * half + 16):
                    code = (int64(get_u8(low + i)) >> (run % 4 // 2 * 4)) & 15
                    code |= ((int64(get_u8(top + i)) >> (run % 4 * 2)) & 3) << 4
                    put_f32(y + 4 * i, factor * float32(code - 32))
            y += 4 * BLOCK
        source += 210


@device
def _row_f32(source, y, columns):
    for k in range(columns):
        put_word(y + 4 * k, get_i32(source + 4 * k))


@device
def _row_f16(source, y, columns):
    for k in range(columns):
        put_f32(y + 4 * k, get_f16(source + 2 * k))


@device
def _row_bf16(source, y, columns):
    for k in range(columns):
        put_word(y + 4 * k, int64(get_i16(source + 2 * k)) << 16)


def _kernel(read_row):
    def embed(args, header, chunk, worker):
        columns, row_bytes = get_i64(args + 8 * EM_COLUMNS), get_i64(args + 8 * EM_ROW_BYTES)
        for t in range(chunk * PW_CHUNK, min(get_i64(header + 8 * H_TOKENS), (chunk + 1) * PW_CHUNK)):
            token = int64(get_i32(get_i64(header + 8 * H_TOKEN_IDS) + 4 * t))
            y = get_i64(args + 8 * EM_Y) + t * get_i64(args + 8 * EM_Y_STRIDE)
            read_row(get_i64(args + 8 * EM_TABLE) + token * row_bytes, y, columns)

    return embed


for _name in FORMS:
    add_kernel(f"embed.{_name}", _kernel(globals()[f"_row_{_name}"]))
