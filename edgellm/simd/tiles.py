"""Operations on tiles: the register tile of a matrix product, 16 rows by NT tokens.

Each is one instruction or two per vector, unrolled when compiled. Whatever NT is, the expression of a single
output is the same, so tiles of every size give the same bits. Attention has tiles whose rows are two vectors.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd import ops
from edgellm.simd.arithmetic import larger, smaller
from edgellm.simd.lowering import shuffle
from edgellm.simd.ops import broadcast, load, store
from edgellm.simd.types import F32, F32_IR, I64_IR, LANES, Tile

_F32 = ir.FloatType()
_LOADED = 4  # numbers of as many rows are loaded together, where instructions take them by lane


def each(b, tile, emit):
    """A tile whose vectors are emit(n, vector n of `tile`)."""
    count = tile.type.count
    vectors = [emit(n, b.extract_value(tile, n)) for n in range(count)]
    out = ir.Constant(ir.ArrayType(vectors[0].type, count), ir.Undefined)
    for n, vector in enumerate(vectors):
        out = b.insert_value(out, vector, n)
    return out


def number_for(b, tile, n, base, step, kind, after=None):
    """In all lanes of `kind`, the number for the row of vector n; row r's is at base + step * (after + r).
    Those of interleaved rows come in turn, and stand side by side. Where `after` is told, there are more
    numbers than rows: as many as fill the last `_LOADED`.
    """
    together = tile.interleaved
    number = (after or 0) + n // (tile.across * together) * together
    first, count = number, together
    if ops.target.by_lane and together == 1 and isinstance(step, ir.Constant) and step.constant == 4:
        first = number // _LOADED * _LOADED
        count = _LOADED if after is not None else min(_LOADED, tile.rows - first)
    place = b.add(base, b.mul(step, ir.Constant(I64_IR, first)))
    if count == 1:
        return broadcast(b, load(b, place, kind.element), kind)
    numbers = load(b, place, ir.VectorType(kind.element, count))
    lanes = [number - first + i % together for i in range(LANES)]
    return shuffle(b, numbers, ir.Constant(numbers.type, ir.Undefined), lanes)


def across(b, kind, row, n):
    """What vector n of a tile meets of a row, which is a vector or a tile of one row."""
    return b.extract_value(row, n % kind.across) if isinstance(kind, Tile) else row


def place_of(b, tile, base, stride, n):
    """Where vector n of a tile stands whose rows are `stride` bytes apart."""
    row, column = divmod(n, tile.across)
    start = b.add(base, b.mul(stride, ir.Constant(I64_IR, row)))
    return b.add(start, ir.Constant(I64_IR, 64 * column)) if column else start


@intrinsic(prefer_literal=True)
def zeros(typing, count):
    """A tile of `count` zero vectors of f32."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    tile = Tile(F32, count.literal_value)
    return tile(count), lambda context, b, signature, args: ir.Constant(tile.ir, None)


@intrinsic
def zeros_like(typing, tile):
    """Zeros in the shape of `tile`."""
    return tile(tile), lambda context, b, signature, args: ir.Constant(tile.ir, None)


@intrinsic(prefer_literal=True)
def zeros_across(typing, tile, across):
    """Zeros with as many rows as `tile`, of `across` vectors each."""
    if not isinstance(across, types.IntegerLiteral):
        return None
    result = Tile(tile.vector, tile.rows, across.literal_value)
    return result(tile, across), lambda context, b, signature, args: ir.Constant(result.ir, None)


@intrinsic(prefer_literal=True)
def zeros_part(typing, rows, across, pitch):
    """Zeros for `rows` of a tile of `pitch` rows, of `across` vectors each."""
    if not all(isinstance(number, types.IntegerLiteral) for number in (rows, across, pitch)):
        return None
    result = Tile(F32, rows.literal_value, across.literal_value, pitch=pitch.literal_value)
    return result(rows, across, pitch), lambda context, b, signature, args: ir.Constant(result.ir, None)


@intrinsic
def beside(typing, left, right):
    """A row of two vectors."""
    result = Tile(left, 1, 2)

    def emit(context, b, signature, args):
        row = b.insert_value(ir.Constant(result.ir, ir.Undefined), args[0], 0)
        return b.insert_value(row, args[1], 1)

    return result(left, right), emit


@intrinsic
def size(typing, tile):
    """How many rows the tile has."""
    rows = tile.rows
    return types.int64(tile), lambda context, b, signature, args: ir.Constant(I64_IR, rows)


@intrinsic
def pitch(typing, tile):
    """How many rows' numbers stand side by side in memory: the tile's, or those of the tile it is part of."""
    rows = tile.pitch
    return types.int64(tile), lambda context, b, signature, args: ir.Constant(I64_IR, rows)


@intrinsic(prefer_literal=True)
def fma_splat(typing, acc, row, address, stride):
    """acc[n] + row * the f32 at address + n * stride; `row` is a vector, or as many as a row of acc has."""

    def emit(context, b, signature, args):
        tile, vectors, base, step = args
        if isinstance(stride, types.IntegerLiteral):
            step = ir.Constant(I64_IR, stride.literal_value)

        def one(n, a):
            return ops.target.fma(b, across(b, row, vectors, n), number_for(b, acc, n, base, step, F32_IR), a)

        return each(b, tile, one)

    return acc(acc, row, types.int64, stride), emit


@intrinsic
def scaled_sum(typing, x, x_scales, y, y_scales):
    """x[n] * the f32 at x_scales + 4n, + y[n] * the f32 at y_scales + 4n."""

    def emit(context, b, signature, args):
        def one(n, v):
            at = 4 * (n // x.across)
            x_scale, y_scale = (broadcast(b, load(b, args[i], _F32, at), F32_IR) for i in (1, 3))
            return ops.target.fma(b, v, x_scale, b.fmul(b.extract_value(args[2], n), y_scale))

        return each(b, args[0], one)

    return x(x, types.int64, y, types.int64), emit


@intrinsic
def fma_row(typing, acc, x, row):
    """acc[n] + x[n] * row; `row` is a vector, or as many as a row of acc has."""

    def emit(context, b, signature, args):
        def one(n, v):
            return ops.target.fma(b, b.extract_value(args[1], n), across(b, row, args[2], n), v)

        return each(b, args[0], one)

    return acc(acc, x, row), emit


@intrinsic
def add_row(typing, acc, address):
    """acc[n] + the row at address."""

    def emit(context, b, signature, args):
        tile, base = args
        return each(b, tile, lambda n, v: b.fadd(v, load(b, base, F32_IR, 64 * (n % acc.across))))

    return acc(acc, types.int64), emit


@intrinsic
def add_rows(typing, acc, address, stride):
    """acc[n] + the row at address + n * stride."""

    def emit(context, b, signature, args):
        tile, base, step = args
        return each(b, tile, lambda n, v: b.fadd(v, load(b, place_of(b, acc, base, step, n), F32_IR)))

    return acc(acc, types.int64, types.int64), emit


@intrinsic
def load_rows(typing, like, address, stride):
    """A tile like `like`, row n from address + n * stride."""

    def emit(context, b, signature, args):
        tile, base, step = args
        return each(b, tile, lambda n, v: load(b, place_of(b, like, base, step, n), F32_IR))

    return like(like, types.int64, types.int64), emit


def _fold_all(combine):
    """An intrinsic (vector, tile): the vector with vector 0, with vector 1, ..."""

    @intrinsic
    def op(typing, acc, tile):
        def emit(context, b, signature, args):
            total = args[0]
            for n in range(tile.count):
                total = combine(b, total, b.extract_value(args[1], n))
            return total

        return acc(acc, tile), emit

    return op


add_all = _fold_all(lambda b, x, y: b.fadd(x, y))
max_all, min_all = _fold_all(larger), _fold_all(smaller)


@intrinsic
def load_pairs(typing, like, address, stride):
    """A tile like `like`, row 2n from address + n * stride; zeros between. What `pair_sums` took."""

    def emit(context, b, signature, args):
        tile, base, step = args

        def one(n, v):
            row, column = divmod(n, like.across)
            if row % 2:
                return ir.Constant(v.type, None)
            return load(b, place_of(b, like, base, step, row // 2 * like.across + column), F32_IR)

        return each(b, tile, one)

    return like(like, types.int64, types.int64), emit


def _of_pairs(tile, one):
    """A tile of one(builder, row 0, row 1), one(builder, row 2, row 3), ..., vector by vector; a tile of one
    row stays as it is.
    """
    if tile.rows == 1:
        return tile(tile), lambda context, b, signature, args: args[0]
    result = Tile(tile.vector, tile.rows // 2, tile.across)

    def emit(context, b, signature, args):
        out = ir.Constant(result.ir, ir.Undefined)
        for n in range(result.count):
            row, column = divmod(n, tile.across)
            pair = (b.extract_value(args[0], (2 * row + i) * tile.across + column) for i in range(2))
            out = b.insert_value(out, one(b, *pair), n)
        return out

    return result(tile), emit


@intrinsic
def pair_sums(typing, tile):
    """Rows 0 + 1, 2 + 3, ..."""
    return _of_pairs(tile, lambda b, first, second: b.fadd(first, second))


@intrinsic
def pair_firsts(typing, tile):
    """Rows 0, 2, ..."""
    return _of_pairs(tile, lambda b, first, second: first)


@intrinsic
def store_rows(typing, tile, address, stride):
    """Row n to address + n * stride."""

    def emit(context, b, signature, args):
        for n in range(tile.count):
            store(b, b.extract_value(args[0], n), place_of(b, tile, args[1], args[2], n))
        return context.get_dummy_value()

    return types.none(tile, types.int64, types.int64), emit
