"""The best logits of a row, sorted. Only the very best is found in parts: lists of more take longer to put
together.
"""

from __future__ import annotations

from edgellm.kernels.jit import device, float32, int64
from edgellm.kernels.race import (
    BEST,
    BEST_TOKENS,
    FIND_BEST,
    INFINITE,
    LINE,
    RACE_BYTES,
    TILE,
    go_over,
    is_within,
    logit_of,
    logits_of,
    low_of,
    part_of,
    set_peak,
    sum_at,
)
from edgellm.simd.arithmetic import maximum, splat, where_less
from edgellm.simd.folds import max_f32
from edgellm.simd.ops import get_f32, get_i64, load_f32, put_f32, put_i64

_PARTS = 8  # for the one best: each part begins with tiles that beat what little it has seen
_WANTED = RACE_BYTES  # after a race: how many
BEST_BYTES = _WANTED + LINE


@device
def find_best(race, most):
    """Put down the `most` best of a row: how many there are, or 0 where a logit is not a finite number."""
    put_i64(race + _WANTED, most)
    parts = go_over(race, FIND_BEST, _PARTS if most == 1 else 1)
    count = get_i64(sum_at(race, 0, 0))
    for part in range(1, parts):
        found = get_i64(sum_at(race, part, 0))
        if found < 0 or count < 0:
            count = int64(-1)
        elif found > 0 and (count == 0 or get_f32(race + BEST + 4 * part) > get_f32(race + BEST)):
            put_f32(race + BEST, get_f32(race + BEST + 4 * part))
            put_i64(race + BEST_TOKENS, get_i64(race + BEST_TOKENS + 8 * part))
            count = found
    if count > 0:
        set_peak(race, get_f32(race + BEST))
    return max(count, 0)


@device
def find_best_of(race, part):
    """Put down a part's best, behind those of the parts before it, and how many there are; -1 where a logit
    is not a finite number.
    """
    most = get_i64(race + _WANTED)
    best, tokens = race + BEST + 4 * part, race + BEST_TOKENS + 8 * part
    begin, end = part_of(race, part)
    logits, low = logits_of(race), low_of(race)
    count, bound = int64(0), float32(-INFINITE)
    for first in range(begin, end, TILE):
        if end - first >= TILE:
            peak = _tile_peak(logits + 4 * first)
            if not (peak > bound and peak >= low):
                continue
        for token in range(first, min(first + TILE, end)):
            logit = logit_of(race, token)
            if not logit < float32(INFINITE):
                put_i64(sum_at(race, part, 0), -1)
                return
            if logit > bound and is_within(race, logit):
                count = _insert(best, tokens, count, most, logit, token)
                if count == most:
                    bound = get_f32(best + 4 * (most - 1))
    put_i64(sum_at(race, part, 0), count)


@device
def _tile_peak(logits):
    """The largest of a tile; infinite where one is not a number."""
    a = maximum(_known(load_f32(logits)), _known(load_f32(logits + 64)))
    b = maximum(_known(load_f32(logits + 128)), _known(load_f32(logits + 192)))
    return max_f32(maximum(a, b))


@device
def _known(x):
    """Infinite where a logit is not a number."""
    limit = splat(float32(INFINITE))
    return where_less(x, limit, x, limit)


@device
def _insert(best, tokens, count, most, logit, token):
    """Into a list, by falling logit, after its equals; how many it has then."""
    place = min(count, most - 1)
    while place > 0 and get_f32(best + 4 * (place - 1)) < logit:
        put_f32(best + 4 * place, get_f32(best + 4 * (place - 1)))
        put_i64(tokens + 8 * place, get_i64(tokens + 8 * (place - 1)))
        place -= 1
    put_f32(best + 4 * place, logit)
    put_i64(tokens + 8 * place, token)
    return min(count + 1, most)
