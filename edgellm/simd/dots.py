"""Tiles of integer sums: dot products, what they begin with, and their way to f32."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd import ops
from edgellm.simd.tiles import across, each, number_for
from edgellm.simd.types import BYTES_IR, F32_IR, I32, I32_IR, I64_IR

_STEP = ir.Constant(I64_IR, 4)  # from a row's number to the next row's


@intrinsic
def zeros_i32(typing, tile):
    """An i32 tile of zeros, with as many vectors as `tile`."""
    result = tile.of(I32)
    return result(tile), lambda context, b, signature, args: ir.Constant(result.ir, None)


@intrinsic
def start(typing, tile, address):
    """An i32 tile like `tile`: row n holds the i32 at address + 4n in every lane."""
    result = tile.of(I32)

    def emit(context, b, signature, args):
        return each(b, args[0], lambda n, _: number_for(b, tile, n, args[1], _STEP, I32_IR))

    return result(tile, types.int64), emit


def products(method):
    """An intrinsic (tile, weights, address, word) of the target's `method`."""

    @intrinsic(prefer_literal=True)
    def op(typing, tile, weights, address, word):
        after = word.literal_value * tile.pitch if isinstance(word, types.IntegerLiteral) else None

        def emit(context, b, signature, args):
            acc, w, x, number = args
            lower = getattr(ops.target, method)
            if after is None:
                x = b.add(x, b.mul(number, ir.Constant(I64_IR, 4 * tile.pitch)))

            def one(n, vector):
                codes = across(b, weights, w, n)
                four = number_for(b, tile, n, x, _STEP, I32_IR, after)
                return lower(b, vector, codes, b.bitcast(four, BYTES_IR))

            return each(b, acc, one)

        return tile(tile, weights, types.int64, word), emit

    return op


# tile n += the four products of each lane's u8 codes with the four s8 of word number `word` of row n: at
# `address` stand a word of each row, the next word of each ... A literal number is one of a block's eight.
dot4 = products("dot4")
dot4_signed = products("dot4_signed")  # the same for signed weights of the full range


@intrinsic
def fma_scaled(typing, acc, sums, scales, d):
    """acc[n] + f32(sums[n]) * the f32 at scales + 4n, * d, a vector or as many as a row of acc has."""

    def emit(context, b, signature, args):
        tile, whole, address, rows = args

        def one(n, vector):
            scale = number_for(b, acc, n, address, _STEP, F32_IR)
            product = b.fmul(b.sitofp(b.extract_value(whole, n), F32_IR), scale)
            return ops.target.fma(b, product, across(b, d, rows, n), vector)

        return each(b, tile, one)

    return acc(acc, sums, types.int64, d), emit


@intrinsic
def scale_fma(typing, acc, low, high, ratios, scales, d):
    """acc[n] + (f32(low[n]) * f32 n at ratios, + f32(high[n])) * f32 n at scales, * d, as there."""

    def emit(context, b, signature, args):
        tile, lows, highs, ratio_address, scale_address, rows = args

        def one(n, vector):
            low_sums, high_sums = (b.sitofp(b.extract_value(sums, n), F32_IR) for sums in (lows, highs))
            ratio = number_for(b, acc, n, ratio_address, _STEP, F32_IR)
            scale = number_for(b, acc, n, scale_address, _STEP, F32_IR)
            total = b.fmul(ops.target.fma(b, low_sums, ratio, high_sums), scale)
            return ops.target.fma(b, total, across(b, d, rows, n), vector)

        return each(b, tile, one)

    return acc(acc, low, high, types.int64, types.int64, d), emit


@intrinsic
def fma_two_rows(typing, acc, low, high, scales, low_d, high_d):
    """acc[n] + (low[n] * low_d + high[n] * high_d) * the f32 at scales + 4n, of f32 tiles; low_d and high_d
    are vectors, or as many as a row of acc has.
    """

    def emit(context, b, signature, args):
        tile, lows, highs, address, low_rows, high_rows = args

        def one(n, vector):
            total = b.fmul(b.extract_value(lows, n), across(b, low_d, low_rows, n))
            total = ops.target.fma(b, b.extract_value(highs, n), across(b, high_d, high_rows, n), total)
            return ops.target.fma(b, total, number_for(b, acc, n, address, _STEP, F32_IR), vector)

        return each(b, tile, one)

    return acc(acc, low, high, types.int64, low_d, high_d), emit


@intrinsic
def times_power(typing, sums, powers):
    """sums[n] << the i32 at powers + 4n."""

    def emit(context, b, signature, args):
        tile, address = args

        def one(n, vector):
            return ops.target.shift_left(b, vector, number_for(b, sums, n, address, _STEP, I32_IR))

        return each(b, tile, one)

    return sums(sums, types.int64), emit


@intrinsic
def times_splat(typing, tile, address):
    """tile[n] * the f32 at address + 4n."""

    def emit(context, b, signature, args):
        whole, base = args
        return each(b, whole, lambda n, v: b.fmul(v, number_for(b, tile, n, base, _STEP, F32_IR)))

    return tile(tile, types.int64), emit
