"""All tokens by their distance below the peak, in buckets: what each bucket's tokens weigh."""

from __future__ import annotations

from edgellm.kernels.best import BEST_BYTES
from edgellm.kernels.jit import device, float32, int64
from edgellm.kernels.math import exp_of_negative, round_to_i32
from edgellm.kernels.race import (
    FILL_BUCKETS,
    INFINITE,
    LINE,
    TILE,
    count_of,
    go_over,
    part_of,
    peak_of,
    read,
    read_tile,
    sum_at,
)
from edgellm.simd.arithmetic import minimum, splat, where_less
from edgellm.simd.folds import sum_f32
from edgellm.simd.ops import get_f32, get_f64, get_i32, put_f32, put_f64
from edgellm.simd.tiles import add_all, store_rows
from edgellm.simd.types import LANES

HOPELESS = 200.0  # so far below the peak that nothing weighs anything
BUCKETS = 2048  # the last is for all beyond, which is never told apart
MOST_AREAS = 4  # parts of a pass that has buckets or a list
_MEANS = 3.0  # how many mean distances the buckets reach
_SAMPLED = 8192  # about as many tokens are looked at first

# After a race and its best: buckets in a unit of distance; and for each part the buckets' masses (f64), and
# a tile's buckets (i32) and weights (f32).
_SCALE = BEST_BYTES
_AREAS = _SCALE + LINE
_PLACES = 8 * BUCKETS
_WEIGHTS = _PLACES + 4 * TILE
_AREA_BYTES = _WEIGHTS + 4 * TILE
BUCKETS_BYTES = _AREAS + MOST_AREAS * _AREA_BYTES


@device
def _area(race, part):
    return race + _AREAS + _AREA_BYTES * part


@device
def below_peak(x, peak):
    """How far below the peak, but at most where nothing weighs anything."""
    return minimum(peak - x, splat(float32(HOPELESS)))


@device
def _sample_step(race):
    return LANES * (count_of(race) // _SAMPLED + 1)


@device
def sampled_mass(race):
    """About the mass of all."""
    peak, total = splat(peak_of(race)), splat(float32(0.0))
    for at in range(0, count_of(race), _sample_step(race)):
        total = total + exp_of_negative(read(race, at) - peak)
    return sum_f32(total) * (_sample_step(race) // LANES)


@device
def _find_scale(race):
    """From a sample: buckets are to reach some mean distances."""
    peak, out = splat(peak_of(race)), splat(float32(-INFINITE))
    zero, one = splat(float32(0.0)), splat(float32(1.0))
    count, total = zero, zero
    for at in range(0, count_of(race), _sample_step(race)):
        x = read(race, at)
        count = count + where_less(out, x, one, zero)
        total = total + where_less(out, x, below_peak(x, peak), zero)
    mean = max(sum_f32(total) / max(sum_f32(count), float32(1.0)), float32(1e-6))
    put_f32(race + _SCALE, float32(BUCKETS / _MEANS) / mean)


@device
def scale_of(race):
    """Buckets in a unit of distance."""
    return get_f32(race + _SCALE)


@device
def buckets_of(race, below):
    """Their buckets, as i32."""
    place = minimum(below * splat(scale_of(race)), splat(float32(BUCKETS - 1)))
    return round_to_i32(place)


@device
def weigh(race):
    """Fill the buckets: the mass of all, and the sum of their distances below the peak by weight."""
    _find_scale(race)
    total, distances = 0.0, 0.0
    for part in range(go_over(race, FILL_BUCKETS, MOST_AREAS)):
        total += get_f64(sum_at(race, part, 0))
        distances += get_f64(sum_at(race, part, 1))
        if part > 0:
            _add_masses(race, part)
    return total, distances


@device
def _add_masses(race, part):
    """A part's buckets to those of the first."""
    all_parts, more = _area(race, 0), _area(race, part)
    for at in range(0, 8 * BUCKETS, 8):
        put_f64(all_parts + at, get_f64(all_parts + at) + get_f64(more + at))


@device
def fill_buckets(race, part):
    """A part's buckets, and its two sums."""
    area, (begin, end) = _area(race, part), part_of(race, part)
    places, weights = area + _PLACES, area + _WEIGHTS
    for bucket in range(BUCKETS):
        put_f64(area + 8 * bucket, 0.0)
    peak, total, distances = splat(peak_of(race)), 0.0, 0.0
    for first in range(begin, end, TILE):
        x, zero = read_tile(race, first), splat(float32(0.0))
        weight, below = exp_of_negative(x - peak), below_peak(x, peak)
        store_rows(buckets_of(race, below), places, 4 * LANES)
        store_rows(weight, weights, 4 * LANES)
        for at in range(0, TILE, LANES):
            for i in range(LANES):
                bucket = area + 8 * int64(get_i32(places + 4 * (at + i)))
                put_f64(bucket, get_f64(bucket) + float(get_f32(weights + 4 * (at + i))))
        total += float(sum_f32(add_all(zero, weight)))
        distances += float(sum_f32(add_all(zero, weight * below)))
    put_f64(sum_at(race, part, 0), total)
    put_f64(sum_at(race, part, 1), distances)


@device
def bucket_of(race, distance):
    """The bucket of one distance."""
    return int64(distance * scale_of(race) + float32(0.5))


@device
def mass_at(race, bucket):
    """What a bucket's tokens weigh; 0 where there is none, and for the last."""
    return get_f64(_area(race, 0) + 8 * bucket) if 0 <= bucket < BUCKETS - 1 else 0.0
