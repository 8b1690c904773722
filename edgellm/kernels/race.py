"""The tokens still in the race, for `kernels/sample.py`: logits where they stand, and bounds that say which
count.

Whatever the samplers leave is an interval of logits. So nothing is moved or marked; a pass over the
candidates reads all logits, and takes those outside the bounds for -inf, which weighs nothing. The best of
a row are the exception: sorted, at most MOST_BEST, in a place of their own, beside their tokens
(`kernels/best.py`).

A pass over many goes in parts, which other workers may take (`kernels/helping.py`). How many there are
depends only on how many logits there are, and what they find is put together in their order: so a sum has
the same bits whoever helped.
"""

from __future__ import annotations

import math

from edgellm.kernels.helping import in_parts
from edgellm.kernels.jit import device, float32, int32, int64
from edgellm.kernels.layout import MOST_BEST
from edgellm.kernels.math import exp_of_negative
from edgellm.simd.arithmetic import lane_numbers, splat, splat_i32, where_at_most, where_less
from edgellm.simd.folds import sum_f32
from edgellm.simd.ops import get_f32, get_f64, get_i64, load_f32, put_f32, put_f64, put_i64, store_f32
from edgellm.simd.tiles import add_all, load_rows, store_rows, zeros
from edgellm.simd.types import LANES

TILE = 64  # logits that are looked at together
_TILE_VECTORS = TILE // LANES
MOST_PARTS = 32
_FEWEST_TILES = 32  # of a part
INFINITE = math.inf
LINE = 64  # bytes of a cache line, on which everything begins that vectors are stored to

# A race: so many words; room for the best logits (a vector may be read across their end) and their tokens
# (i64); the weights of a tile, and the logits of the row's last one; three numbers of each part, mostly sums
# (f64); what was struck. _TOKENS is an address, or 0: places are tokens.
_ROW, _VOCAB, _LOGITS, _TOKENS, _COUNT, _LOW, _HIGH, _PEAK, _SHARPNESS = range(0, 72, 8)
_PASS, _PARTS, _HEADER, _KERNEL, _WORKER, _STRUCK = range(72, 120, 8)
BEST = 128
BEST_TOKENS = BEST + 4 * (MOST_BEST + LANES)
_WEIGHTS = BEST_TOKENS + 8 * MOST_BEST
_LAST_TILE = _WEIGHTS + 4 * TILE
_SUMS = _LAST_TILE + 4 * TILE
_MOST_STRUCK = 16
_STRUCK_LOGITS = _SUMS + 3 * 8 * MOST_PARTS  # their addresses, then what stood there
RACE_BYTES = _STRUCK_LOGITS + 16 * _MOST_STRUCK

# What a pass is for: `sample.part` knows who does it.
FIND_BEST, ADD_WEIGHTS, MEASURE_SPREAD, FILL_BUCKETS, LIST_NEAR = range(5)


@device
def enter(race, row, vocab, header, kernel, worker):
    """All of a row. The address of `sample.part`, and what else it takes to have help."""
    put_i64(race + _ROW, row)
    put_i64(race + _VOCAB, vocab)
    put_f32(race + _LOW, float32(-INFINITE))
    put_f32(race + _HIGH, float32(INFINITE))
    put_f32(race + _SHARPNESS, float32(1.0))
    put_i64(race + _HEADER, header)
    put_i64(race + _KERNEL, kernel)
    put_i64(race + _WORKER, worker)
    put_i64(race + _STRUCK, 0)
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
    put_i64(race + _LOGITS, race + BEST)
    put_i64(race + _TOKENS, race + BEST_TOKENS)
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
def set_peak(race, peak):
    """The largest logit, as it was found."""
    put_f32(race + _PEAK, peak)


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
def low_of(race):
    """The lowest that counts."""
    return get_f32(race + _LOW)


@device
def is_within(race, logit):
    """Whether a logit is between the bounds."""
    return get_f32(race + _LOW) <= logit <= get_f32(race + _HIGH)


@device
def logits_of(race):
    """Where the logits are."""
    return get_i64(race + _LOGITS)


@device
def logit_of(race, place):
    """One logit, within the bounds or not."""
    return get_f32(logits_of(race) + 4 * place)


@device
def token_of(race, place):
    """Whose logit that is."""
    tokens = get_i64(race + _TOKENS)
    return place if tokens == 0 else get_i64(tokens + 8 * place)


@device
def read(race, at):
    """The 16 logits from place `at` on; -inf for those that are out, or not there."""
    logits, out = load_f32(logits_of(race) + 4 * at), splat(float32(-INFINITE))
    x = where_less(splat(get_f32(race + _HIGH)), logits, out, logits)
    x = where_less(logits, splat(get_f32(race + _LOW)), out, x)
    last = count_of(race) - 1 - at
    if last < LANES:
        x = where_at_most(lane_numbers(), splat_i32(int32(last)), x, out)
    return x


@device
def read_tile(race, first):
    """The same for a tile, in one value: what is done with it is done to its four vectors in turn, none of
    which waits for another.
    """
    at, out = logits_of(race) + 4 * first, splat(float32(-INFINITE))
    if count_of(race) - first < TILE:  # the last of a pass, which only one worker reads
        at = race + _LAST_TILE
        for i in range(0, TILE, LANES):
            store_f32(at + 4 * i, read(race, first + i) if first + i < count_of(race) else out)
    logits = load_rows(zeros(_TILE_VECTORS), at, 4 * LANES)
    x = where_less(splat(get_f32(race + _HIGH)), logits, out, logits)
    return where_less(logits, splat(get_f32(race + _LOW)), out, x)


# -- a few that go though they are within the bounds ---------------------------------------------------


@device
def strike(race, place):
    """Put a logit out, until `restore`; False where there were too many."""
    count = get_i64(race + _STRUCK)
    if count == _MOST_STRUCK:
        return False
    at, entry = logits_of(race) + 4 * place, race + _STRUCK_LOGITS + 16 * count
    put_i64(entry, at)
    put_f32(entry + 8, get_f32(at))
    put_f32(at, float32(-INFINITE))
    put_i64(race + _STRUCK, count + 1)
    return True


@device
def restore(race):
    """The row as it was."""
    for i in range(get_i64(race + _STRUCK)):
        entry = race + _STRUCK_LOGITS + 16 * i
        put_f32(get_i64(entry), get_f32(entry + 8))


# -- in parts ------------------------------------------------------------------------------------------


@device
def parts_of(race, most):
    """In how many parts a pass goes that may have `most`."""
    return max(int64(1), min(int64(most), count_of(race) // (TILE * _FEWEST_TILES)))


@device
def go_over(race, what, most):
    """A pass, in at most so many parts: how many there were."""
    parts = parts_of(race, most)
    put_i64(race + _PASS, what)
    put_i64(race + _PARTS, parts)
    in_parts(get_i64(race + _HEADER), get_i64(race + _KERNEL), race, parts, get_i64(race + _WORKER))
    return parts


@device
def pass_of(race):
    """What the present pass is for."""
    return get_i64(race + _PASS)


@device
def part_of(race, part):
    """Where a part of the present pass begins, on a tile, and where it ends."""
    parts, tiles = get_i64(race + _PARTS), -(-count_of(race) // TILE)
    return TILE * (tiles * part // parts), min(TILE * (tiles * (part + 1) // parts), count_of(race))


@device
def sum_at(race, part, number):
    """Where a part's sum is, of the three that it may have."""
    return race + _SUMS + 24 * part + 8 * number


# -- what they weigh -----------------------------------------------------------------------------------


@device
def tile_weights(race, first):
    """Softmax before its division, of the tile that begins at `first`, 1 for the peak; their sum."""
    peak, sharpness = splat(peak_of(race)), splat(get_f32(race + _SHARPNESS))
    weights = exp_of_negative((read_tile(race, first) - peak) * sharpness)
    store_rows(weights, race + _WEIGHTS, 4 * LANES)
    return float(sum_f32(add_all(splat(float32(0.0)), weights)))


@device
def weight_of(race, place):
    """The weight of one of the tile that `tile_weights` was last called for."""
    return float(get_f32(race + _WEIGHTS + 4 * (place % TILE)))


@device
def add_weights(race, part):
    """The sum of a part's weights."""
    begin, end = part_of(race, part)
    peak, sharpness, total = splat(peak_of(race)), splat(get_f32(race + _SHARPNESS)), 0.0
    for first in range(begin, end, TILE):
        weights = exp_of_negative((read_tile(race, first) - peak) * sharpness)
        total += float(sum_f32(add_all(splat(float32(0.0)), weights)))
    put_f64(sum_at(race, part, 0), total)


@device
def mass(race):
    """The sum of all weights."""
    total = 0.0
    for part in range(go_over(race, ADD_WEIGHTS, MOST_PARTS)):
        total += get_f64(sum_at(race, part, 0))
    return total


@device
def choose(race, sharpness, uniform):
    """A token, at `uniform` in [0, 1) of the weights: a part first, then the tile, then one in it."""
    put_f32(race + _SHARPNESS, sharpness)
    target, held, part, place = mass(race) * uniform, 0.0, int64(0), int64(-1)
    parts = get_i64(race + _PARTS)
    while part + 1 < parts and held + get_f64(sum_at(race, part, 0)) < target:
        held += get_f64(sum_at(race, part, 0))
        part += 1
    begin, _ = part_of(race, part)
    for first in range(begin, count_of(race), TILE):
        in_tile = tile_weights(race, first)
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
