"""The samplers that narrow a race, each as `edgellm.sampling.samplers` defines it. Those that may find equals
at a border, or more tokens than can be sorted, say whether they could tell.
"""

from __future__ import annotations

import math

from edgellm.kernels.best import find_best
from edgellm.kernels.buckets import sampled_mass, weigh
from edgellm.kernels.jit import device, float32, int64
from edgellm.kernels.layout import FIRST_BEST, MOST_BEST
from edgellm.kernels.nearest import keep_nearest
from edgellm.kernels.race import (
    INFINITE,
    MEASURE_SPREAD,
    MOST_PARTS,
    TILE,
    count_of,
    go_over,
    is_sorted,
    keep_best,
    keep_row,
    logit_of,
    lower_high,
    mass,
    part_of,
    peak_of,
    raise_low,
    read_tile,
    sum_at,
    tile_weights,
    weight_of,
)
from edgellm.simd.arithmetic import splat, where_less
from edgellm.simd.folds import sum_f32
from edgellm.simd.ops import get_f64, put_f64
from edgellm.simd.tiles import add_all

_TINY = 1e-300  # less than any weight


@device
def keep_near_peak(race, n):
    """top_n_sigma: within n standard deviations of the peak."""
    count, total, squares = 0.0, 0.0, 0.0
    for part in range(go_over(race, MEASURE_SPREAD, MOST_PARTS)):
        count += get_f64(sum_at(race, part, 0))
        total += get_f64(sum_at(race, part, 1))
        squares += get_f64(sum_at(race, part, 2))
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)
    raise_low(race, float32(float(peak_of(race)) - n * math.sqrt(variance)))


@device
def measure_spread(race, part):
    """Of a part: how many are finite, the sum of their distances from the peak, and of the squares."""
    begin, end = part_of(race, part)
    count, total, squares = 0.0, 0.0, 0.0
    peak, out = splat(peak_of(race)), splat(float32(-INFINITE))
    zero, one = splat(float32(0.0)), splat(float32(1.0))
    for first in range(begin, end, TILE):
        x = read_tile(race, first)
        below = where_less(out, x, x - peak, zero)
        count += float(sum_f32(add_all(zero, where_less(out, x, one, zero))))
        total += float(sum_f32(add_all(zero, below)))
        squares += float(sum_f32(add_all(zero, below * below)))
    put_f64(sum_at(race, part, 0), count)
    put_f64(sum_at(race, part, 1), total)
    put_f64(sum_at(race, part, 2), squares)


@device
def keep_typical(race, p):
    """typical_p: those nearest to the expected logit, until they hold the mass p."""
    total, distances = weigh(race)
    more = max(p * total * (1 + 2.0**-52), _TINY)
    return keep_nearest(race, float32(distances / total), more)


@device
def keep_likeliest(race, p):
    """top_p: the fewest best that hold the mass p, at least one."""
    whole = not is_sorted(race)
    if whole and p * sampled_mass(race) > 2 * FIRST_BEST:  # none of which weighs more than 1
        return _keep_many(race, p)
    needed = max(p * mass(race), _TINY)
    if whole:
        keep_best(race, find_best(race, int64(FIRST_BEST)))
    held = 0.0
    for first in range(0, count_of(race), TILE):
        tile_weights(race, first)
        for place in range(first, min(first + TILE, count_of(race))):
            held += weight_of(race, place)
            if held >= needed:
                keep_best(race, place + 1)
                return True
    if not whole or count_of(race) < FIRST_BEST:
        return True
    keep_row(race)
    return _keep_many(race, p)


@device
def _keep_many(race, p):
    """The same where too many hold it to be sorted."""
    total, _ = weigh(race)
    return keep_nearest(race, float32(0.0), max(p * total, _TINY))


@device
def drop_likely(race, threshold):
    """XTC: without the best, but for the last that is at least `threshold` likely."""
    needed, whole = max(threshold * mass(race), _TINY), not is_sorted(race)
    most = int(min(1 / max(threshold, _TINY), MOST_BEST - 1.0)) + 1  # one more than can be likely
    if whole:
        keep_best(race, find_best(race, most))
    likely, before, last = 0, float32(INFINITE), float32(INFINITE)
    for first in range(0, count_of(race), TILE):
        tile_weights(race, first)
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
