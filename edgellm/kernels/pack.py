"""Packing: rows of GGUF's blocks -> panels of 16 rows, in the order in which the matmul kernels read them.

Within a panel, the words of 4 bytes of 16 rows are interleaved: word i of row r goes to word 16 * i + r.
That is a transposition of words; scales are gathered before them. Rows past the last are zero.
"""

from __future__ import annotations

from edgellm.kernels.jit import WEIGHT_FLIP, add_kernel, device, int64
from edgellm.kernels.layout import (
    BLOCK,
    FORMS,
    GROUP,
    LANES,
    PANEL_Q4_0,
    PANEL_Q4_1,
    PANEL_Q4_K,
    PANEL_Q5_0,
    PANEL_Q5_1,
    PANEL_Q5_K,
    PANEL_Q6_K,
    PANEL_Q8_0,
    PART,
    PK_COLUMNS,
    PK_PANELS_PER_CHUNK,
    PK_ROW_BYTES,
    PK_ROWS,
    PK_SOURCE,
    PK_TARGET,
)
from edgellm.simd.ops import get_i16, get_i32, get_i64, get_u8, put_i16, put_u8, put_word

_FLIP = 0x01010101 * WEIGHT_FLIP


@device
def _words(source, target, row, count, flip):
    for i in range(count):
        put_word(target + 4 * (16 * i + row), get_i32(source + 4 * i) ^ flip)


@device
def _pack(args, chunk, row_of_panel, block_columns, block_bytes):
    """Every row of the chunk's panels, part by part, through `row_of_panel(source, panel, row, columns)`."""
    rows, columns = get_i64(args + 8 * PK_ROWS), get_i64(args + 8 * PK_COLUMNS)
    per_chunk, row_bytes = get_i64(args + 8 * PK_PANELS_PER_CHUNK), get_i64(args + 8 * PK_ROW_BYTES)
    blocks = columns // block_columns
    for p in range(chunk * per_chunk, min((chunk + 1) * per_chunk, (rows + LANES - 1) // LANES)):
        for column in range(0, columns, PART):
            part = min(PART, columns - column)
            target = get_i64(args + 8 * PK_TARGET)
            if columns <= PART:
                target += p * blocks * block_bytes
            else:  # whole groups, in them whole parts of all, then this panel's place in the part
                before = p // GROUP * blocks + column // block_columns
                target += (before * GROUP + p % GROUP * (part // block_columns)) * block_bytes
            for r in range(min(LANES, rows - p * LANES)):
                source = get_i64(args + 8 * PK_SOURCE) + (p * LANES + r) * row_bytes
                row_of_panel(source + column // block_columns * (row_bytes // blocks), target, r, part)


@device
def _row_q4_0(source, target, row, columns):
    """Block: f16 d, 16 bytes whose low nibbles are columns 0-15 and high nibbles 16-31."""
    for _ in range(columns // BLOCK):
        put_i16(target + 2 * row, get_i16(source))
        _words(source + 2, target + 32, row, 4, 0)
        source += 18
        target += PANEL_Q4_0


@device
def _row_q4_1(source, target, row, columns):
    """Block: f16 d, f16 m, 16 bytes of nibbles."""
    for _ in range(columns // BLOCK):
        put_i16(target + 2 * row, get_i16(source))
        put_i16(target + 32 + 2 * row, get_i16(source + 2))
        _words(source + 4, target + 64, row, 4, 0)
        source += 20
        target += PANEL_Q4_1


@device
def _swap_index_bits(x, shift, mask):
    """Exchange the bits of x at `mask` with those `shift` further up."""
    moved = ((x >> shift) ^ x) & mask
    return x ^ moved ^ (moved << shift)


@device
def _fifth_bits(bits, target, row):
    """Bit c of `bits` is column c's: to bit i of byte t, where c = 4 i + t.

    The five bits of c are (i2 i1 i0 t1 t0) and shall be (t1 t0 i2 i1 i0): four exchanges of two of them.
    """
    bits &= 0xFFFFFFFF
    bits = _swap_index_bits(bits, 14, 0x0000CCCC)  # the 5th and the 2nd: t1 i1 i0 i2 t0
    bits = _swap_index_bits(bits, 7, 0x00AA00AA)  # the 4th and the 1st: t1 t0 i0 i2 i1
    bits = _swap_index_bits(bits, 2, 0x0C0C0C0C)  # the 3rd and the 2nd: t1 t0 i2 i0 i1
    put_word(target + 4 * row, _swap_index_bits(bits, 1, 0x22222222))  # the 2nd and the 1st


@device
def _row_q5_0(source, target, row, columns):
    """Block: f16 d, 32 fifth bits, 16 bytes of nibbles."""
    for _ in range(columns // BLOCK):
        put_i16(target + 2 * row, get_i16(source))
        _fifth_bits(int64(get_i32(source + 2)), target + 32, row)
        _words(source + 6, target + 96, row, 4, 0)
        source += 22
        target += PANEL_Q5_0


@device
def _row_q5_1(source, target, row, columns):
    """Block: f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles."""
    for _ in range(columns // BLOCK):
        put_i16(target + 2 * row, get_i16(source))
        put_i16(target + 32 + 2 * row, get_i16(source + 2))
        _fifth_bits(int64(get_i32(source + 4)), target + 64, row)
        _words(source + 8, target + 128, row, 4, 0)
        source += 24
        target += PANEL_Q5_1


@device
def _six_bit_pairs(source, target, row):
    """12 bytes: 8 scales and 8 minimums of 6 bits, the upper two of the last four of each beside the first
    four's.
    """
    for i in range(8):
        if i < 4:
            scale, minimum = get_u8(source + i) & 63, get_u8(source + 4 + i) & 63
        else:
            both = get_u8(source + 4 + i)
            scale = (both & 15) | (get_u8(source + i - 4) >> 6) << 4
            minimum = (both >> 4) | (get_u8(source + i) >> 6) << 4
        put_u8(target + 16 * i + row, scale)
        put_u8(target + 128 + 16 * i + row, minimum)


@device
def _nibbles_k(source, target, row, odd):
    """32 columns out of 32 bytes, from the low nibbles or (odd) the high ones, in the order of a panel."""
    for i in range(4):
        first, second = int64(get_i32(source + 4 * i)), int64(get_i32(source + 16 + 4 * i))
        if odd:
            word = ((first >> 4) & 0x0F0F0F0F) | (second & 0xF0F0F0F0)
        else:
            word = (first & 0x0F0F0F0F) | ((second & 0x0F0F0F0F) << 4)
        put_word(target + 4 * (16 * i + row), word)


@device
def _row_q4_k(source, target, row, columns):
    """Block of 256: f16 d, f16 dmin, 12 bytes of scales and minimums, 128 bytes: 4 x 32 bytes for 64
    columns each.
    """
    for _ in range(columns // 256):
        put_i16(target + 2 * row, get_i16(source))
        put_i16(target + 32 + 2 * row, get_i16(source + 2))
        _six_bit_pairs(source + 4, target + 64, row)
        for block in range(8):
            _nibbles_k(source + 16 + block // 2 * 32, target + 320 + block * 256, row, block % 2)
        source += 144
        target += PANEL_Q4_K


@device
def _row_q5_k(source, target, row, columns):
    """The same with 32 bytes of fifth bits before the nibbles: bit `block` of byte l is column l's."""
    for _ in range(columns // 256):
        put_i16(target + 2 * row, get_i16(source))
        put_i16(target + 32 + 2 * row, get_i16(source + 2))
        _six_bit_pairs(source + 4, target + 64, row)
        for block in range(8):
            bits = 0
            for i in range(8):
                bits |= ((int64(get_i32(source + 16 + 4 * i)) >> block) & 0x01010101) << i
            put_word(target + 320 + block * 320 + 4 * row, bits)
            _nibbles_k(source + 48 + block // 2 * 32, target + 384 + block * 320, row, block % 2)
        source += 176
        target += PANEL_Q5_K


@device
def _row_q8_0(source, target, row, columns):
    """Block: f16 d, 32 signed bytes."""
    for _ in range(columns // BLOCK):
        put_i16(target + 2 * row, get_i16(source))
        _words(source + 2, target + 32, row, 8, _FLIP)
        source += 34
        target += PANEL_Q8_0


@device
def _row_q6_k(source, target, row, columns):
    """Block of 256: ql[128], qh[64], 16 signed scales, f16 d.

    In the panel: scales [16 groups][16 rows], d [16 rows], then for each 32 columns twice (u = 0, 1) a vector
    of pairs of bits and two of nibbles, in the order of use: anything else costs a third of the speed.
    A low nibble is the lower four bits of a code of columns 0-15, a high one the upper four of columns 16-31.
    The other two bits of the codes of the first vector (columns 8u..8u+3) are bits 4-5 and 0-1 of the pairs,
    those of the second (8u+4..8u+7) bits 6-7 and 2-3.
    """
    for _ in range(columns // 256):
        for g in range(16):
            put_u8(target + 16 * g + row, get_u8(source + 192 + g))
        put_i16(target + 256 + 2 * row, get_i16(source + 208))
        for block in range(8):
            half, quarter = block // 4, block % 4
            low, top = source + half * 64 + quarter % 2 * 32, source + 128 + half * 32
            plane = target + 288 + block * 384 + 4 * row
            for u in range(2):
                word = 0
                for i in range(2):
                    at = 8 * u + 4 * i
                    first = int64(get_i32(low + at)) >> (quarter // 2 * 4)
                    second = int64(get_i32(low + 16 + at)) >> (quarter // 2 * 4)
                    first_top = (int64(get_i32(top + at)) >> (2 * quarter)) & 0x03030303
                    second_top = (int64(get_i32(top + 16 + at)) >> (2 * quarter)) & 0x03030303
                    upper = ((second >> 2) & 0x03030303) | second_top << 2
                    put_word(plane + 192 * u + 64 + 64 * i, (first & 0x0F0F0F0F) | upper << 4)
                    word |= (first_top << 4 | (second & 0x03030303)) << (2 * i)
                put_word(plane + 192 * u, word)
        source += 210
        target += PANEL_Q6_K


@device
def _row_f16(source, target, row, columns):
    for k in range(columns):
        put_i16(target + 32 * k + 2 * row, get_i16(source + 2 * k))


_row_bf16 = _row_f16  # both are words of 16 bits


@device
def _row_f32(source, target, row, columns):
    for k in range(columns):
        put_word(target + 64 * k + 4 * row, get_i32(source + 4 * k))


def _kernel(row_of_panel, block_columns, block_bytes):
    def pack(args, header, chunk, worker):
        _pack(args, chunk, row_of_panel, block_columns, block_bytes)

    return pack


ROWS = {name: globals()[f"_row_{name}"] for name in FORMS}  # how each form packs one row of a panel

for _name, _block in FORMS.items():
    add_kernel(f"pack.{_name}", _kernel(ROWS[_name], *_block))
