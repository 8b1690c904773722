"""The fewest tokens that are nearest to some distance below the peak and hold a mass together: what typical_p
keeps, and top_p (nearest to 0) where many hold it.

`weigh` reads all of them once, into buckets of nearly equal distance, which say where the border is but for a
few buckets; a second pass lists what is in those; bisection finds the border among these, to the last bit.
"""

from __future__ import annotations

import numpy as np

from edgellm.kernels.jit import device, float32, int32, int64
from edgellm.kernels.math import exp_of_negative, round_to_i32
from edgellm.kernels.race import (
    INFINITE,
    RACE_BYTES,
    TILE,
    count_of,
    lower_high,
    peak_of,
    raise_low,
    read,
)
from edgellm.simd.folds import max_f32, min_f32, sum_f32
from edgellm.simd.ops import (
    absolute,
    any_less,
    bits_float,
    get_f32,
    get_f64,
    get_i32,
    load_f32,
    maximum,
    minimum,
    put_f32,
    put_f64,
    splat,
    splat_i32,
    store_f32,
    store_f64,
    store_i32,
    to_f32,
    where_less,
)
from edgellm.simd.types import LANES

_HOPELESS = 200.0  # so far below the peak that nothing weighs anything
_FARTHEST_BITS = int(np.float32(_HOPELESS).view(np.int32))  # of an f32: no distance is more
_BUCKETS = 2048  # the last is for all beyond, which is never told apart
_MEANS = 3.0  # how many mean distances they reach
_SAMPLED = 8192  # about as many tokens are looked at first
_LISTED = 8192  # tokens near the border; more are left to NumPy
_SLACK = 2  # buckets, on either side of those where the border may be: distances are rounded

# After a race: buckets in a unit of distance, the lowest and the highest logit that is surely kept (f32); the
# buckets' masses (f64); 16 tokens' buckets (i32) or logits, and weights (f64); the list's logits and weights.
_SCALE, _LOWEST, _HIGHEST = range(RACE_BYTES, RACE_BYTES + 12, 4)
_MASSES = RACE_BYTES + 16
_PLACES = _MASSES + 8 * _BUCKETS
_WEIGHTS = _PLACES + 4 * LANES
_LIST = _WEIGHTS + 8 * LANES
_LIST_WEIGHTS = _LIST + 4 * (_LISTED + LANES)
ROOM = _LIST_WEIGHTS + 4 * (_LISTED + LANES)


@device
def _below(x, peak):
    """How far below the peak, but at most where nothing weighs anything."""
    return minimum(peak - x, splat(float32(_HOPELESS)))


# -- all of them -------------------------------------------------------------------------------------


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
        total = total + where_less(out, x, _below(x, peak), zero)
    mean = max(sum_f32(total) / max(sum_f32(count), float32(1.0)), float32(1e-6))
    put_f32(race + _SCALE, float32(_BUCKETS / _MEANS) / mean)


@device
def _places(race, below):
    """Their buckets, as i32."""
    place = minimum(below * splat(get_f32(race + _SCALE)), splat(float32(_BUCKETS - 1)))
    return round_to_i32(place)


@device
def weigh(race):
    """Fill the buckets: the mass of all, and the sum of their distances below the peak by weight."""
    _find_scale(race)
    masses, places, weights = race + _MASSES, race + _PLACES, race + _WEIGHTS
    for bucket in range(_BUCKETS):
        put_f64(masses + 8 * bucket, 0.0)
    peak, total, distances = splat(peak_of(race)), 0.0, 0.0
    for first in range(0, count_of(race), TILE):
        in_tile, terms = splat(float32(0.0)), splat(float32(0.0))
        for at in range(first, min(first + TILE, count_of(race)), LANES):
            x = read(race, at)
            weight, below = exp_of_negative(x - peak), _below(x, peak)
            in_tile, terms = in_tile + weight, terms + weight * below
            store_i32(places, _places(race, below))
            store_f64(weights, weight)
            for i in range(LANES):
                bucket = masses + 8 * int64(get_i32(places + 4 * i))
                put_f64(bucket, get_f64(bucket) + get_f64(weights + 8 * i))
        total += float(sum_f32(in_tile))
        distances += float(sum_f32(terms))
    return total, distances


# -- the border --------------------------------------------------------------------------------------


@device
def keep_nearest(race, center, needed):
    """After `weigh`: only the fewest that are nearest to `center` below the peak and hold the mass `needed`.
    False where equals, what weighs next to nothing, or too many must be told apart.

    Where it takes the buckets up to `reach` from the center's to hold that, the border is `reach` - 1 to
    `reach` + 1 bucket widths from the center.
    """
    middle, reach = int64(center * get_f32(race + _SCALE) + float32(0.5)), int64(0)
    held = _mass_at(race, middle)
    while held < needed:
        reach += 1
        if reach == _BUCKETS:
            return False
        held += _mass_at(race, middle - reach) + _mass_at(race, middle + reach)
    sure, unsure = reach - 1 - _SLACK, reach + _SLACK
    if middle + max(sure, 0) >= _BUCKETS - 1:
        return False
    held = 0.0
    for bucket in range(middle - sure, middle + sure + 1):
        held += _mass_at(race, bucket)
    count = _list(race, float32(middle), float32(sure), float32(unsure))
    return count >= 0 and _keep_listed(race, count, center, held, needed)


@device
def _mass_at(race, bucket):
    return get_f64(race + _MASSES + 8 * bucket) if 0 <= bucket < _BUCKETS - 1 else 0.0


@device
def _list(race, middle, sure, unsure):
    """List those whose buckets are more than `sure` and at most `unsure` from the middle, and put down the
    lowest and the highest of those nearer; how many are listed, or -1 where they are too many.
    """
    peak, out, nowhere = splat(peak_of(race)), splat(float32(-INFINITE)), splat(float32(INFINITE))
    count, highest, lowest = int64(0), out, nowhere
    for at in range(0, count_of(race), LANES):
        x = read(race, at)
        apart = absolute(to_f32(_places(race, _below(x, peak))) - splat(middle))
        near = where_less(splat(sure), apart, out, x)
        highest = maximum(highest, near)
        lowest = minimum(lowest, where_less(out, near, near, nowhere))
        x = where_less(splat(sure), apart, where_less(splat(unsure), apart, out, x), out)
        if any_less(out, x):
            if count > _LISTED - LANES:
                return int64(-1)
            count = _append(race, count, x)
    store_f32(race + _LIST + 4 * count, out)
    for at in range(0, count, LANES):
        store_f32(race + _LIST_WEIGHTS + 4 * at, exp_of_negative(load_f32(race + _LIST + 4 * at) - peak))
    put_f32(race + _HIGHEST, max_f32(highest))
    put_f32(race + _LOWEST, min_f32(lowest))
    return count


@device
def _append(race, count, x):
    """All but -inf to the list: how many it has then."""
    logits, lanes = race + _LIST, race + _PLACES
    store_f32(lanes, x)
    for i in range(LANES):
        logit = get_f32(lanes + 4 * i)
        put_f32(logits + 4 * count, logit)
        count += int64(logit > float32(-INFINITE))
    return count


@device
def _listed_distances(race, at, center):
    return absolute(_below(load_f32(race + _LIST + 4 * at), splat(peak_of(race))) - splat(center))


@device
def _listed_mass(race, count, center, bits):
    """What those weigh that are at most as far as the f32 with these bits."""
    total, farthest, zero = 0.0, bits_float(splat_i32(int32(bits))), splat(float32(0.0))
    for first in range(0, count, TILE):
        in_tile = zero
        for at in range(first, min(first + TILE, count), LANES):
            weight = load_f32(race + _LIST_WEIGHTS + 4 * at)
            in_tile = in_tile + where_less(farthest, _listed_distances(race, at, center), zero, weight)
        total += float(sum_f32(in_tile))
    return total


@device
def _keep_listed(race, count, center, held, needed):
    """Keep what is nearer than the list, which holds the mass `held`, and the nearest of the list."""
    within, far = int64(-1), int64(_FARTHEST_BITS)
    if held + _listed_mass(race, count, center, far) < needed:
        return False
    while far - within > 1:
        bits = (within + far) >> 1
        if held + _listed_mass(race, count, center, bits) < needed:
            within = bits
        else:
            far = bits
    border = bits_float(splat_i32(int32(far)))
    out, nowhere = splat(float32(-INFINITE)), splat(float32(INFINITE))
    zero, one, at_border = splat(float32(0.0)), splat(float32(1.0)), splat(float32(0.0))
    highest, lowest = splat(get_f32(race + _HIGHEST)), splat(get_f32(race + _LOWEST))
    for at in range(0, count, LANES):
        x, distance = load_f32(race + _LIST + 4 * at), _listed_distances(race, at, center)
        kept = where_less(border, distance, out, x)
        highest = maximum(highest, kept)
        lowest = minimum(lowest, where_less(out, kept, kept, nowhere))
        at_border = at_border + where_less(distance, border, zero, where_less(out, kept, one, zero))
    raise_low(race, min_f32(lowest))
    lower_high(race, max_f32(highest))
    return sum_f32(at_border) == 1
