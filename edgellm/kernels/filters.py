"""The samplers that narrow a race, each as `edgellm.sampling.samplers` defines it. Those that may find equals
at a border, or more tokens than can be sorted, say whether they could tell.
"""

from __future__ import annotations

import math

from edgellm.kernels.jit import device, float32, int64
from edgellm.kernels.layout import FIRST_BEST, MOST_BEST
from edgellm.kernels.math import exp
from edgellm.kernels.race import (
    INFINITE,
    RACE_BYTES,
    TILE,
    count_of,
    find_best,
    is_sorted,
    keep_best,
    keep_row,
    logit_of,
    lower_high,
    mass,
    peak_of,
    raise_low,
    read,
    tile_weights,
    weight_of,
)
from edgellm.simd.folds import max_f32, sum_f32
from edgellm.simd.ops import (
    absolute,
    get_f32,
    get_f64,
    maximum,
    minimum,
    put_f64,
    splat,
    store_f32,
    where_less,
)
from edgellm.simd.types import LANES

_HOPELESS = 200.0  # so far below the best that nothing weighs anything
_TINY = 1e-300  # less than any weight
_BUCKETS = 1024  # of nearly equal tokens
_SCALE = 32.0  # buckets in a unit of a logit; at the next level each is divided into _BUCKETS
_LEVELS = 3
# After a race: the buckets' masses (f64), and 16 tokens' places in them and weights.
_MASSES, _PLACES = RACE_BYTES, RACE_BYTES + 8 * _BUCKETS
ROOM = _PLACES + 8 * LANES


@device
def keep_near_peak(race, n):
    """top_n_sigma: within n standard deviations of the peak."""
    count, total, squares = 0.0, 0.0, 0.0
    peak, out = splat(peak_of(race)), splat(float32(-INFINITE))
    zero, one = splat(float32(0.0)), splat(float32(1.0))
    for first in range(0, count_of(race), TILE):
        finite, apart, square = zero, zero, zero
        for at in range(first, min(first + TILE, count_of(race)), LANES):
            x = read(race, at)
            below = where_less(out, x, x - peak, zero)
            finite = finite + where_less(out, x, one, zero)
            apart, square = apart + below, square + below * below
        count += float(sum_f32(finite))
        total += float(sum_f32(apart))
        squares += float(sum_f32(square))
    variance = max(squares / count - (total / count) ** 2, 0.0)
    raise_low(race, float32(float(peak_of(race)) - n * math.sqrt(variance)))


@device
def _below(x, peak):
    """How far below the peak, but at most where nothing weighs anything."""
    return minimum(peak - x, splat(float32(_HOPELESS)))


@device
def keep_typical(race, p):
    """typical_p: those nearest to the expected logit, until they hold the mass p."""
    total, expected, peak = 0.0, 0.0, splat(peak_of(race))
    for first in range(0, count_of(race), TILE):
        weights, terms = splat(float32(0.0)), splat(float32(0.0))
        for at in range(first, min(first + TILE, count_of(race)), LANES):
            x = read(race, at)
            weight = exp(x - peak)
            weights, terms = weights + weight, terms + weight * _below(x, peak)
        total += float(sum_f32(weights))
        expected += float(sum_f32(terms))
    more = max(p * total * (1 + 2.0**-52), _TINY)
    return _keep_nearest(race, float32(expected / total), more)


@device
def keep_likeliest(race, p):
    """top_p: the fewest best that hold the mass p, at least one."""
    needed, whole = max(p * mass(race, float32(1.0)), _TINY), not is_sorted(race)
    if whole:
        keep_best(race, find_best(race, int64(FIRST_BEST)))
    held = 0.0
    for first in range(0, count_of(race), TILE):
        tile_weights(race, first, float32(1.0))
        for place in range(first, min(first + TILE, count_of(race))):
            held += weight_of(race, place)
            if held >= needed:
                keep_best(race, place + 1)
                return True
    if not whole or count_of(race) < FIRST_BEST:
        return True
    keep_row(race)
    return _keep_nearest(race, float32(0.0), needed)


@device
def drop_likely(race, threshold):
    """XTC: without the best, but for the last that is at least `threshold` likely."""
    needed, whole = max(threshold * mass(race, float32(1.0)), _TINY), not is_sorted(race)
    most = int(min(1 / max(threshold, _TINY), MOST_BEST - 1.0)) + 1  # one more than can be likely
    if whole:
        keep_best(race, find_best(race, most))
    likely, before, last = 0, float32(INFINITE), float32(INFINITE)
    for first in range(0, count_of(race), TILE):
        tile_weights(race, first, float32(1.0))
        for place in range(first, min(first + TILE, count_of(race))):
            if weight_of(race, place) >= needed:
                before, last = last, logit_of(race, place)
                likely += 1
    if whole:
        keep_row(race)
        if likely == most:
            return False
    if likely > 1:
        lower_high(race, last)
    return likely < 2 or last < before


# -- the nearest that hold a mass ----------------------------------------------------------------------


@device
def _places(x, peak, center, start, scale):
    """In which bucket logits are, by their distance from `center` below the peak: the whole part of it."""
    return (absolute(_below(x, peak) - splat(center)) - splat(start)) * splat(scale)


@device
def _fill_buckets(race, center, start, scale):
    """The mass of each bucket."""
    masses, places, weights = race + _MASSES, race + _PLACES, race + _PLACES + 4 * LANES
    for bucket in range(_BUCKETS):
        put_f64(masses + 8 * bucket, 0.0)
    peak, zero, end = splat(peak_of(race)), splat(float32(0.0)), splat(float32(_BUCKETS))
    outside = splat(float32(-1.0))
    for at in range(0, count_of(race), LANES):
        x = read(race, at)
        place = _places(x, peak, center, start, scale)
        place = where_less(place, end, place, outside)
        if max_f32(place) < 0:
            continue
        store_f32(places, maximum(place, zero))
        store_f32(weights, where_less(place, zero, zero, exp(x - peak)))
        for i in range(0, 4 * LANES, 4):
            bucket = masses + 8 * int64(get_f32(places + i))
            put_f64(bucket, get_f64(bucket) + float(get_f32(weights + i)))


@device
def _keep_nearest(race, center, needed):
    """The fewest that are nearest to `center` below the peak and hold the mass `needed`. False where equals,
    or what weighs next to nothing, must be told apart.

    Buckets of nearly equal distance say where the border is, then finer ones within that.
    """
    start, scale, held, border = float32(0.0), float32(_SCALE), 0.0, 0
    for level in range(_LEVELS):
        _fill_buckets(race, center, start, scale)
        border = 0
        while border < _BUCKETS and held + get_f64(race + _MASSES + 8 * border) < needed:
            held += get_f64(race + _MASSES + 8 * border)
            border += 1
        if border == _BUCKETS:
            return False
        if level < _LEVELS - 1:
            start += float32(border) / scale
            scale *= float32(_BUCKETS)
    return _keep_before(race, center, start, scale, float32(border))


@device
def _keep_before(race, center, start, scale, border):
    """Those in buckets up to `border`, of which one must be in it."""
    out, zero, one = splat(float32(-INFINITE)), splat(float32(0.0)), splat(float32(1.0))
    begin, end, peak = splat(border), splat(border + float32(1.0)), splat(peak_of(race))
    negative_low, high, there = out, out, zero
    for at in range(0, count_of(race), LANES):
        x = read(race, at)
        place = _places(x, peak, center, start, scale)
        high = maximum(high, where_less(place, end, x, out))
        negative_low = maximum(negative_low, where_less(place, end, zero - x, out))
        there = there + where_less(place, begin, zero, where_less(place, end, one, zero))
    raise_low(race, -max_f32(negative_low))
    lower_high(race, max_f32(high))
    return sum_f32(there) == 1
