"""From a row of logits to a token, in the step that computed them: what `edgellm.sampling` does in NumPy, for
the samplers that nearly every request asks for, without the half millisecond of Python that has left the
caches meanwhile.

A chunk is an output row. Its best tokens, at most MOST_BEST, are found in one reading; penalties and biases
are put into the row for as long as the kernel runs. Where that does not suffice (a top_p that more tokens
hold, logits that are not numbers) DR_TOKEN stays -1, and NumPy decides from the same row.
"""

from __future__ import annotations

import math

from edgellm.kernels.jit import device, float32, int64, kernel
from edgellm.kernels.layout import (
    DR_FREQUENCY,
    DR_LEAST,
    DR_PATCH_COUNT,
    DR_PATCHES,
    DR_PRESENCE,
    DR_REPEAT,
    DR_TEMPERATURE,
    DR_TOKEN,
    DR_TOP_K,
    DR_TOP_P,
    DR_UNIFORM,
    DR_VOCAB,
    DR_WORDS,
    H_DRAWS,
    LANES,
    MOST_BEST,
    PA_BIAS,
    PA_LOGIT,
    PA_SEEN,
    PA_TOKEN,
    PA_WORDS,
    SM_LOGITS,
    SM_STRIDE,
)
from edgellm.kernels.math import exp
from edgellm.simd.folds import max_f32, sum_f32
from edgellm.simd.ops import (
    get_f32,
    get_f64,
    get_i64,
    load_f32,
    maximum,
    put_f32,
    put_f64,
    put_i64,
    room,
    splat,
    store_f32,
    where_less,
)

_TILE = 64  # logits that are looked at together
_INFINITE = math.inf
_COLDEST = 1e-30  # a smaller temperature changes nothing: all but the best are out
# After the best logits: their tokens (i64), their weights, and room for a tile's weights.
_IDS, _WEIGHTS, _TILE_WEIGHTS = 4 * MOST_BEST, 12 * MOST_BEST, 16 * MOST_BEST
_ROOM = _TILE_WEIGHTS + 4 * _TILE


# -- the best ----------------------------------------------------------------------------------------


@device
def _known(x):
    """Infinite where a logit is not a number."""
    limit = splat(float32(_INFINITE))
    return where_less(x, limit, x, limit)


@device
def _peak(logits):
    """The largest of a tile."""
    a = maximum(_known(load_f32(logits)), _known(load_f32(logits + 64)))
    b = maximum(_known(load_f32(logits + 128)), _known(load_f32(logits + 192)))
    return max_f32(maximum(a, b))


@device
def _insert(best, count, most, logit, token):
    """Into the best, by falling logit, after its equals; how many there are then."""
    place = min(count, most - 1)
    while place > 0 and get_f32(best + 4 * (place - 1)) < logit:
        put_f32(best + 4 * place, get_f32(best + 4 * (place - 1)))
        put_i64(best + _IDS + 8 * place, get_i64(best + _IDS + 8 * (place - 1)))
        place -= 1
    put_f32(best + 4 * place, logit)
    put_i64(best + _IDS + 8 * place, token)
    return min(count + 1, most)


@device
def _find_best(logits, vocab, most, best):
    """The `most` best logits and tokens to `best`: how many, or 0 where a logit is not a finite number."""
    count, bound = 0, float32(-_INFINITE)
    for first in range(0, vocab, _TILE):
        end = min(first + _TILE, vocab)
        if end - first == _TILE and not _peak(logits + 4 * first) > bound:
            continue
        for token in range(first, end):
            logit = get_f32(logits + 4 * token)
            if not logit < float32(_INFINITE):
                return 0
            if logit > bound:
                count = _insert(best, count, most, logit, token)
                if count == most:
                    bound = get_f32(best + 4 * (most - 1))
    return count


# -- one of the best -----------------------------------------------------------------------------------


@device
def _weigh(best, count):
    """Softmax before its division: 1 for the first. The weights' sum."""
    peak = splat(get_f32(best))
    for at in range(0, 4 * count, 4 * LANES):
        store_f32(best + _WEIGHTS + at, exp(load_f32(best + at) - peak))
    total = 0.0
    for i in range(count):
        total += get_f32(best + _WEIGHTS + 4 * i)
    return total


@device
def _holding(best, count, mass):
    """How many of the best hold so much of the weights' sum: count + 1 if all do not."""
    held = 0.0
    for i in range(count):
        held += get_f32(best + _WEIGHTS + 4 * i)
        if held >= mass:
            return i + 1
    return count + 1


@device
def _draw_best(best, count, draw):
    """One of them, at draw * temperature."""
    least = float32(get_f32(best) + get_f64(draw + 8 * DR_LEAST))
    while get_f32(best + 4 * (count - 1)) < least:
        count -= 1
    peak, temperature = get_f32(best), get_f64(draw + 8 * DR_TEMPERATURE)
    for i in range(count):
        put_f32(best + 4 * i, float32(float(get_f32(best + 4 * i) - peak) / temperature))
    target = _weigh(best, count) * get_f64(draw + 8 * DR_UNIFORM)
    held, token = 0.0, get_i64(best + _IDS)
    for i in range(count):
        weight = get_f32(best + _WEIGHTS + 4 * i)
        if weight > 0:
            token = get_i64(best + _IDS + 8 * i)
        held += weight
        if held > target:
            break
    return token


# -- one of all ----------------------------------------------------------------------------------------


@device
def _tile_weights(logits, count, peak, least, temperature, weights):
    """Weights of a tile: 0 for those below `least`. Their sum."""
    total = splat(float32(0.0))
    for at in range(0, 4 * _TILE, 4 * LANES):
        if at >= 4 * count:
            break
        x = load_f32(logits + at)
        weight = exp((x - splat(peak)) / splat(temperature))
        weight = where_less(x, splat(least), splat(float32(0.0)), weight)
        store_f32(weights + at, weight)
        if at + 4 * LANES <= 4 * count:
            total = total + weight
    rest = 0.0
    for i in range(count // LANES * LANES, count):
        rest += get_f32(weights + 4 * i)
    return float(sum_f32(total)) + rest


@device
def _total(logits, vocab, peak, least, temperature, weights):
    """The sum of all weights."""
    total = 0.0
    for first in range(0, vocab, _TILE):
        count = min(_TILE, vocab - first)
        total += _tile_weights(logits + 4 * first, count, peak, least, temperature, weights)
    return total


@device
def _draw_any(logits, vocab, peak, least, temperature, total, uniform, weights):
    """One of the whole vocabulary, by id: the tile first, then one in it."""
    target = total * uniform
    held, token = 0.0, int64(-1)
    for first in range(0, vocab, _TILE):
        count = min(_TILE, vocab - first)
        mass = _tile_weights(logits + 4 * first, count, peak, least, temperature, weights)
        if held + mass > target or token < 0:
            within = held
            for i in range(count):
                weight = get_f32(weights + 4 * i)
                if weight > 0:
                    token = first + i
                within += weight
                if within > target:
                    break
        held += mass
        if held > target:
            break
    return token


# -- the row -------------------------------------------------------------------------------------------


@device
def _patch(logits, draw):
    """Biases and penalties into the row; `_restore` takes them out again."""
    patches = get_i64(draw + 8 * DR_PATCHES)
    repeat = float32(get_f64(draw + 8 * DR_REPEAT))
    presence, frequency = (
        float32(get_f64(draw + 8 * DR_PRESENCE)),
        float32(get_f64(draw + 8 * DR_FREQUENCY)),
    )
    for i in range(get_i64(draw + 8 * DR_PATCH_COUNT)):
        patch = patches + 8 * PA_WORDS * i
        at = logits + 4 * int64(get_f64(patch + 8 * PA_TOKEN))
        logit = get_f32(at)
        put_f64(patch + 8 * PA_LOGIT, float(logit))
        logit = logit + float32(get_f64(patch + 8 * PA_BIAS))
        seen = float32(get_f64(patch + 8 * PA_SEEN))
        if seen > 0:
            logit = logit * repeat if logit <= 0 else logit / repeat
            logit = logit - seen * frequency - presence
        put_f32(at, logit)


@device
def _restore(logits, draw):
    patches = get_i64(draw + 8 * DR_PATCHES)
    for i in range(get_i64(draw + 8 * DR_PATCH_COUNT)):
        patch = patches + 8 * PA_WORDS * i
        at = logits + 4 * int64(get_f64(patch + 8 * PA_TOKEN))
        put_f32(at, float32(get_f64(patch + 8 * PA_LOGIT)))


@device
def _choose(logits, draw, best):
    vocab, top_k = get_i64(draw + 8 * DR_VOCAB), get_i64(draw + 8 * DR_TOP_K)
    top_p = get_f64(draw + 8 * DR_TOP_P)
    count = _find_best(logits, vocab, top_k if top_k > 0 else MOST_BEST if top_p < 1 else 1, best)
    if count == 0:
        return int64(-1)
    if get_f64(draw + 8 * DR_TEMPERATURE) == 0:
        return get_i64(best + _IDS)
    total = 0.0
    if top_k == 0:
        peak, least, temperature = get_f32(best), float32(-_INFINITE), float32(1.0)
        if top_p >= 1:
            least = float32(peak + get_f64(draw + 8 * DR_LEAST))
            temperature = float32(max(get_f64(draw + 8 * DR_TEMPERATURE), _COLDEST))
        weights = best + _TILE_WEIGHTS
        total = _total(logits, vocab, peak, least, temperature, weights)
        if top_p >= 1:
            uniform = get_f64(draw + 8 * DR_UNIFORM)
            return _draw_any(logits, vocab, peak, least, temperature, total, uniform, weights)
    if top_p < 1:
        among_best = _weigh(best, count)
        held = _holding(best, count, top_p * (total if top_k == 0 else among_best))
        if held > count and top_k == 0 and count < vocab:
            return int64(-1)
        count = min(held, count)
    return _draw_best(best, count, draw)


@kernel
def draw(args, header, chunk, worker):
    """The token of one output row to its DR_TOKEN."""
    table = get_i64(header + 8 * H_DRAWS)
    if table == 0:
        return
    row = table + 8 * DR_WORDS * chunk
    if get_i64(row + 8 * DR_VOCAB) == 0:
        return
    logits = get_i64(args + 8 * SM_LOGITS) + chunk * get_i64(args + 8 * SM_STRIDE)
    best = room(_ROOM)
    _patch(logits, row)
    put_i64(row + 8 * DR_TOKEN, _choose(logits, row, best))
    _restore(logits, row)
