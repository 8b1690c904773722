"""The tokens still in the race, for `kernels/sample.py`: logits where they stand, and bounds that say which
count.

Whatever the samplers leave is an interval of logits. So nothing is moved or marked; a pass over the
candidates reads all logits, and takes those outside the bounds for -inf, which weighs nothing. The best of
a row are the exception: sorted, at most MOST_BEST, in a place of their own, beside their tokens.
"""

from __future__ import annotations

import math

from edgellm.kernels.jit import device, float32, int32, int64
from edgellm.kernels.layout import MOST_BEST
from edgellm.kernels.math import exp_of_negative
from edgellm.simd.folds import max_f32, sum_f32
from edgellm.simd.ops import (
    get_f32,
    get_f64,
    get_i64,
    lane_numbers,
    load_f32,
    maximum,
    put_f32,
    put_f64,
    put_i64,
    splat,
    splat_i32,
    store_f32,
    where_at_most,
    where_less,
)
from edgellm.simd.types import LANES

TILE = 64  # logits that are looked at together
INFINITE = math.inf

# A race: eight words, then room for the best logits (a vector may be read across their end), their tokens
# (i64), the weights of a tile, and marks (f64). _TOKENS is an address, or 0: places are tokens.
_ROW, _VOCAB, _LOGITS, _TOKENS, _COUNT, _LOW, _HIGH, _PEAK = range(0, 64, 8)
_BEST = 64
_BEST_TOKENS = _BEST + 4 * (MOST_BEST + LANES)
_WEIGHTS = _BEST_TOKENS + 8 * MOST_BEST
_MOST_MARKS = 64
_MARKS = _WEIGHTS + 4 * TILE
RACE_BYTES = _MARKS + 8 * _MOST_MARKS


@device
def enter(race, row, vocab):
    """All of a row."""
    put_i64(race + _ROW, row)
    put_i64(race + _VOCAB, vocab)
    put_f32(race + _LOW, float32(-INFINITE))
    put_f32(race + _HIGH, float32(INFINITE))
    keep_row(race)


@device
def keep_row(race):
    """All of the row that are within the bounds."""
    put_i64(race + _LOGITS, get_i64(race + _ROW))
    put_i64(race + _TOKENS, 0)
    put_i64(race + _COUNT, get_i64(race + _VOCAB))


@device
def keep_best(race, count):
    """Only the first so many of the best that `find_best` put down."""
    put_i64(race + _LOGITS, race + _BEST)
    put_i64(race + _TOKENS, race + _BEST_TOKENS)
    put_i64(race + _COUNT, count)


@device
def count_of(race):
    """How many logits there are, between the bounds or not."""
    return get_i64(race + _COUNT)


@device
def is_sorted(race):
    """Whether these are the best of a row."""
    return get_i64(race + _TOKENS) != 0


@device
def peak_of(race):
    """The largest logit."""
    return get_f32(race + _PEAK)


@device
def raise_low(race, low):
    """Only logits of at least `low`."""
    put_f32(race + _LOW, max(low, get_f32(race + _LOW)))


@device
def lower_high(race, high):
    """Only logits of at most `high`, which is one of them."""
    put_f32(race + _HIGH, high)
    put_f32(race + _PEAK, high)


@device
def logit_of(race, place):
    """One logit, within the bounds or not."""
    return get_f32(get_i64(race + _LOGITS) + 4 * place)


@device
def token_of(race, place):
    """Whose logit that is."""
    tokens = get_i64(race + _TOKENS)
    return place if tokens == 0 else get_i64(tokens + 8 * place)


@device
def read(race, at):
    """The 16 logits from place `at` on; -inf for those that are out, or not there."""
    logits, out = load_f32(get_i64(race + _LOGITS) + 4 * at), splat(float32(-INFINITE))
    x = where_less(splat(get_f32(race + _HIGH)), logits, out, logits)
    x = where_less(logits, splat(get_f32(race + _LOW)), out, x)
    last = count_of(race) - 1 - at
    if last < LANES:
        x = where_at_most(lane_numbers(), splat_i32(int32(last)), x, out)
    return x


# -- the best ----------------------------------------------------------------------------------------


@device
def _known(x):
    """Infinite where a logit is not a number."""
    limit = splat(float32(INFINITE))
    return where_less(x, limit, x, limit)


@device
def _tile_peak(logits):
    """The largest of a tile."""
    a = maximum(_known(load_f32(logits)), _known(load_f32(logits + 64)))
    b = maximum(_known(load_f32(logits + 128)), _known(load_f32(logits + 192)))
    return max_f32(maximum(a, b))


@device
def _insert(race, count, most, logit, token):
    """Into the best, by falling logit, after its equals; how many there are then."""
    best, tokens = race + _BEST, race + _BEST_TOKENS
    place = min(count, most - 1)
    while place > 0 and get_f32(best + 4 * (place - 1)) < logit:
        put_f32(best + 4 * place, get_f32(best + 4 * (place - 1)))
        put_i64(tokens + 8 * place, get_i64(tokens + 8 * (place - 1)))
        place -= 1
    put_f32(best + 4 * place, logit)
    put_i64(tokens + 8 * place, token)
    return min(count + 1, most)


@device
def find_best(race, most):
    """Put down the `most` best of a row: how many there are, or 0 where a logit is not a finite number."""
    logits, vocab = get_i64(race + _ROW), get_i64(race + _VOCAB)
    low, high = get_f32(race + _LOW), get_f32(race + _HIGH)
    count, bound = int64(0), float32(-INFINITE)
    for first in range(0, vocab, TILE):
        end = min(first + TILE, vocab)
        if end - first == TILE:
            peak = _tile_peak(logits + 4 * first)
            if not (peak > bound and peak >= low):
                continue
        for token in range(first, end):
            logit = get_f32(logits + 4 * token)
            if not logit < float32(INFINITE):
                return int64(0)
            if logit > bound and low <= logit <= high:
                count = _insert(race, count, most, logit, token)
                if count == most:
                    bound = get_f32(race + _BEST + 4 * (most - 1))
    if count:
        put_f32(race + _PEAK, get_f32(race + _BEST))
    return count


# -- what they weigh -----------------------------------------------------------------------------------


@device
def tile_weights(race, first, sharpness):
    """Softmax before its division, of the tile that begins at `first`, 1 for the peak; their sum."""
    peak, total = splat(peak_of(race)), splat(float32(0.0))
    for at in range(0, min(TILE, count_of(race) - first), LANES):
        weight = exp_of_negative((read(race, first + at) - peak) * splat(sharpness))
        store_f32(race + _WEIGHTS + 4 * at, weight)
        total = total + weight
    return float(sum_f32(total))


@device
def weight_of(race, place):
    """The weight of one of the tile that `tile_weights` was last called for."""
    return float(get_f32(race + _WEIGHTS + 4 * (place % TILE)))


@device
def mass(race, sharpness):
    """The sum of all weights, and on the way what it was at some tiles: `choose` begins at one of them."""
    total, step = 0.0, _tiles_between_marks(race)
    for first in range(0, count_of(race), TILE):
        if first // TILE % step == 0:
            put_f64(_mark(race, first // TILE // step), total)
        total += tile_weights(race, first, sharpness)
    return total


@device
def _tiles_between_marks(race):
    return count_of(race) // TILE // _MOST_MARKS + 1


@device
def _mark(race, number):
    return race + _MARKS + 8 * number


@device
def choose(race, sharpness, uniform):
    """A token, at `uniform` in [0, 1) of the weights: a mark first, then the tile, then one in it."""
    target = mass(race, sharpness) * uniform
    step, mark = _tiles_between_marks(race) * TILE, int64(0)
    while (mark + 1) * step < count_of(race) and get_f64(_mark(race, mark + 1)) < target:
        mark += 1
    held, place = get_f64(_mark(race, mark)), int64(-1)
    for first in range(mark * step, count_of(race), TILE):
        in_tile = tile_weights(race, first, sharpness)
        if held + in_tile > target or place < 0:
            within = held
            for i in range(first, min(first + TILE, count_of(race))):
                if weight_of(race, i) > 0:
                    place = i
                within += weight_of(race, i)
                if within > target:
                    break
        held += in_tile
        if held > target:
            break
    return token_of(race, place)
