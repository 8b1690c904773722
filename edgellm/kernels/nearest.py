"""The fewest tokens that are nearest to some distance below the peak and hold a mass together: what typical_p
keeps, and top_p (nearest to 0) where many hold it.

`weigh` reads all of them once, into buckets of nearly equal distance (`buckets.py`), which say where the
border is but for a few buckets; a second pass lists what is in those; bisection finds the border among these,
to the last bit. Of equals at the border, the first are kept.
"""

from __future__ import annotations

import numpy as np

from edgellm.kernels.buckets import (
    BUCKETS,
    BUCKETS_BYTES,
    HOPELESS,
    MOST_AREAS,
    below_peak,
    bucket_of,
    buckets_of,
    mass_at,
    scale_of,
)
from edgellm.kernels.jit import device, float32, int32, int64
from edgellm.kernels.math import exp_of_negative
from edgellm.kernels.race import (
    INFINITE,
    LINE,
    LIST_NEAR,
    TILE,
    count_of,
    go_over,
    lower_high,
    part_of,
    parts_of,
    peak_of,
    raise_low,
    read,
    read_tile,
    strike,
)
from edgellm.simd.arithmetic import (
    absolute,
    any_less,
    bits_float,
    splat,
    splat_i32,
    to_f32,
    where_less,
)
from edgellm.simd.folds import max_f32, min_f32, sum_f32
from edgellm.simd.ops import get_f32, get_i32, get_i64, load_f32, put_f32, put_i64, store_f32
from edgellm.simd.tiles import max_all, min_all, store_rows
from edgellm.simd.types import LANES

_FARTHEST_BITS = int(np.float32(HOPELESS).view(np.int32))  # of an f32: no distance is more
_LISTED = 4096  # tokens near the border, of a part; more are left to NumPy
_SLACK = 2  # buckets, on either side of those where the border may be: distances are rounded

# After the buckets: what to list, from where; and for each part the lowest and the highest logit that is
# surely kept (f32); how many are listed, or -1; a tile's logits; the list's logits and weights.
_MIDDLE, _SURE, _UNSURE = range(BUCKETS_BYTES, BUCKETS_BYTES + 12, 4)
_AREAS = BUCKETS_BYTES + LINE
_LOWEST, _HIGHEST, _COUNT, _LANES = 0, 4, 8, LINE
_LIST = _LANES + 4 * TILE
_LIST_WEIGHTS = _LIST + 4 * (_LISTED + LANES)
_AREA_BYTES = _LIST_WEIGHTS + 4 * (_LISTED + LANES)
ROOM = _AREAS + MOST_AREAS * _AREA_BYTES


@device
def _area(race, part):
    return race + _AREAS + _AREA_BYTES * part


@device
def keep_nearest(race, center, needed):
    """After `weigh`: only the fewest that are nearest to `center` below the peak and hold the mass `needed`.
    False where what weighs next to nothing, or too many, must be told apart.

    Where it takes the buckets up to `reach` from the center's to hold that, the border is `reach` - 1 to
    `reach` + 1 bucket widths from the center.
    """
    middle, reach = bucket_of(race, center), int64(0)
    held, surely = mass_at(race, middle), 0.0  # by the buckets up to `reach`, and up to `sure`
    one_less, two_less = 0.0, 0.0
    while held < needed:
        reach += 1
        if reach == BUCKETS:
            return False
        one_less, two_less, surely = held, one_less, two_less
        held += mass_at(race, middle - reach) + mass_at(race, middle + reach)
    sure, unsure = reach - 1 - _SLACK, reach + _SLACK
    if middle + max(sure, 0) >= BUCKETS - 1:
        return False
    put_f32(race + _MIDDLE, float32(middle))
    put_f32(race + _SURE, float32(sure))
    put_f32(race + _UNSURE, float32(unsure))
    for part in range(go_over(race, LIST_NEAR, MOST_AREAS)):
        if get_i64(_area(race, part) + _COUNT) < 0:
            return False
    border_bits, held = _find_border(race, center, sure, unsure, surely, needed)
    return border_bits >= 0 and _keep_within(race, center, border_bits, held, needed)


@device
def list_near(race, part):
    """List those whose buckets are more than _SURE and at most _UNSURE from the middle, and put down the
    lowest and the highest of those nearer; how many are listed, or -1 where they are too many.
    """
    area, (begin, end) = _area(race, part), part_of(race, part)
    middle, sure, unsure = (
        splat(get_f32(race + _MIDDLE)),
        splat(get_f32(race + _SURE)),
        splat(get_f32(race + _UNSURE)),
    )
    peak, out, nowhere = splat(peak_of(race)), splat(float32(-INFINITE)), splat(float32(INFINITE))
    count, highest, lowest = int64(0), out, nowhere
    for first in range(begin, end, TILE):
        x = read_tile(race, first)
        apart = absolute(to_f32(buckets_of(race, below_peak(x, peak))) - middle)
        near = where_less(sure, apart, out, x)
        highest = max_all(highest, near)
        lowest = min_all(lowest, where_less(out, near, near, nowhere))
        listed = where_less(sure, apart, where_less(unsure, apart, out, x), out)
        if any_less(out, max_all(out, listed)):
            if count > _LISTED - TILE:
                put_i64(area + _COUNT, -1)
                return
            store_rows(listed, area + _LANES, 4 * LANES)
            count = _append(area, count)
    store_f32(area + _LIST + 4 * count, out)
    for at in range(0, count, LANES):
        store_f32(area + _LIST_WEIGHTS + 4 * at, exp_of_negative(load_f32(area + _LIST + 4 * at) - peak))
    put_f32(area + _HIGHEST, max_f32(highest))
    put_f32(area + _LOWEST, min_f32(lowest))
    put_i64(area + _COUNT, count)


@device
def _append(area, count):
    """All of a tile but -inf to the list: how many it has then."""
    logits, lanes = area + _LIST, area + _LANES
    for at in range(0, 4 * TILE, 4 * LANES):
        if any_less(splat(float32(-INFINITE)), load_f32(lanes + at)):
            for i in range(0, 4 * LANES, 4):
                logit = get_f32(lanes + at + i)
                put_f32(logits + 4 * count, logit)
                count += int64(logit > float32(-INFINITE))
    return count


@device
def _distances(race, x, center):
    return absolute(below_peak(x, splat(peak_of(race))) - splat(center))


@device
def _listed_mass(race, center, bits):
    """What those weigh, in the lists, that are at most as far as the f32 with these bits."""
    total, farthest, zero = 0.0, bits_float(splat_i32(int32(bits))), splat(float32(0.0))
    for part in range(parts_of(race, MOST_AREAS)):
        area = _area(race, part)
        count = get_i64(area + _COUNT)
        for first in range(0, count, TILE):
            in_tile = zero
            for at in range(first, min(first + TILE, count), LANES):
                apart = _distances(race, load_f32(area + _LIST + 4 * at), center)
                weight = load_f32(area + _LIST_WEIGHTS + 4 * at)
                in_tile = in_tile + where_less(farthest, apart, zero, weight)
            total += float(sum_f32(in_tile))
    return total


@device
def _bits_of(race, buckets):
    """The bits of a distance of so many buckets, at least of 0."""
    put_f32(race + _MIDDLE, float32(max(buckets, 0)) / scale_of(race))
    return int64(get_i32(race + _MIDDLE))


@device
def _find_border(race, center, sure, unsure, held, needed):
    """How far the farthest is that must be kept, as bits, and the mass of what is nearer, all that is nearer
    than the lists holding the mass `held`; -1 where the lists do not hold enough. They have what is `sure` to
    `unsure` buckets away.
    """
    within, far = _bits_of(race, sure - 1) - 1, min(_bits_of(race, unsure + 1), int64(_FARTHEST_BITS))
    if held + _listed_mass(race, center, far) < needed:
        return int64(-1), held
    nearer = held
    while far - within > 1:
        bits = (within + far) >> 1
        mass = held + _listed_mass(race, center, bits)
        if mass < needed:
            within, nearer = bits, mass
        else:
            far = bits
    return far, nearer


@device
def _keep_within(race, center, border_bits, held, needed):
    """Keep what is nearer than the border, which holds the mass `held`, and as many of those at the border as
    it takes; False where too many others are left there.
    """
    low, high, kept, left = float32(INFINITE), float32(-INFINITE), int64(0), int64(0)
    out, nowhere = splat(float32(-INFINITE)), splat(float32(INFINITE))
    for part in range(parts_of(race, MOST_AREAS)):
        area = _area(race, part)
        low, high = min(low, get_f32(area + _LOWEST)), max(high, get_f32(area + _HIGHEST))
        for at in range(0, get_i64(area + _COUNT), LANES):
            x = load_f32(area + _LIST + 4 * at)
            nearer, at_border = _split(race, x, center, border_bits)
            high = max(high, max_f32(nearer))
            low = min(low, min_f32(where_less(out, nearer, nearer, nowhere)))
            if not any_less(out, at_border):
                continue
            store_f32(area + _LANES, at_border)
            for i in range(LANES):
                logit = get_f32(area + _LANES + 4 * i)
                if logit > float32(-INFINITE) and held < needed:
                    held += float(get_f32(area + _LIST_WEIGHTS + 4 * (at + i)))
                    low, high, kept = min(low, logit), max(high, logit), kept + 1
                else:
                    left += int64(logit > float32(-INFINITE))
    if left and not _strike_after(race, center, border_bits, kept):
        return False
    raise_low(race, low)
    lower_high(race, high)
    return True


@device
def _split(race, x, center, border_bits):
    """Those nearer than the border, and those at it; -inf for all others."""
    border, out = bits_float(splat_i32(int32(border_bits))), splat(float32(-INFINITE))
    apart = _distances(race, x, center)
    up_to = where_less(border, apart, out, x)
    return where_less(apart, border, x, out), where_less(apart, border, out, up_to)


@device
def _strike_after(race, center, border_bits, kept):
    """Put out all at the border but the first `kept`; False where they were too many."""
    lanes = _area(race, 0) + _LANES
    for at in range(0, count_of(race), LANES):
        _, at_border = _split(race, read(race, at), center, border_bits)
        if not any_less(splat(float32(-INFINITE)), at_border):
            continue
        store_f32(lanes, at_border)
        for i in range(LANES):
            if get_f32(lanes + 4 * i) > float32(-INFINITE):
                kept -= 1
                if kept < 0 and not strike(race, at + i):
                    return False
    return True
