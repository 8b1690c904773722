"""From a row of logits to a token, in the step that computed them: what `edgellm.sampling` does in NumPy,
without the half millisecond of Python that has left the caches meanwhile.

A chunk is an output row. Penalties and biases are put into it for as long as the kernel runs, while others
may look at parts of it. Where a sampler can't tell (many equals at a border, logits that are not numbers)
DR_TOKEN stays -1, and NumPy decides from the same row.
"""

from __future__ import annotations

from edgellm.kernels.best import find_best, find_best_of
from edgellm.kernels.buckets import fill_buckets
from edgellm.kernels.filters import (
    drop_likely,
    keep_likeliest,
    keep_near_peak,
    keep_typical,
    measure_spread,
)
from edgellm.kernels.jit import device, float32, int64, kernel
from edgellm.kernels.layout import (
    DR_FREQUENCY,
    DR_LEAST,
    DR_PATCH_COUNT,
    DR_PATCHES,
    DR_PRESENCE,
    DR_REPEAT,
    DR_SIGMA,
    DR_TEMPERATURE,
    DR_TOKEN,
    DR_TOP_K,
    DR_TOP_P,
    DR_TYPICAL,
    DR_UNIFORM,
    DR_VOCAB,
    DR_WORDS,
    DR_XTC,
    H_DRAWS,
    PA_BIAS,
    PA_LOGIT,
    PA_SEEN,
    PA_TOKEN,
    PA_WORDS,
    SM_LOGITS,
    SM_PART,
    SM_STRIDE,
)
from edgellm.kernels.nearest import ROOM, list_near
from edgellm.kernels.race import (
    ADD_WEIGHTS,
    FILL_BUCKETS,
    FIND_BEST,
    LIST_NEAR,
    MEASURE_SPREAD,
    add_weights,
    choose,
    enter,
    keep_best,
    pass_of,
    peak_of,
    raise_low,
    restore,
    token_of,
)
from edgellm.simd.ops import get_f32, get_f64, get_i64, put_f32, put_f64, put_i64, room

_COLDEST = 1e-30  # a smaller temperature changes nothing: all but the best are out


@device
def _patch(logits, draw):
    """Biases and penalties into the row; `_unpatch` takes them out again."""
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
def _unpatch(logits, draw):
    patches = get_i64(draw + 8 * DR_PATCHES)
    for i in range(get_i64(draw + 8 * DR_PATCH_COUNT)):
        patch = patches + 8 * PA_WORDS * i
        at = logits + 4 * int64(get_f64(patch + 8 * PA_TOKEN))
        put_f32(at, float32(get_f64(patch + 8 * PA_LOGIT)))


@device
def _narrow(race, draw):
    """The samplers between top_k and the temperature, in their order: whether all could tell."""
    typical, top_p = get_f64(draw + 8 * DR_TYPICAL), get_f64(draw + 8 * DR_TOP_P)
    xtc = get_f64(draw + 8 * DR_XTC)
    if typical < 1 and not keep_typical(race, typical):
        return False
    if top_p < 1 and not keep_likeliest(race, top_p):
        return False
    raise_low(race, float32(peak_of(race) + get_f64(draw + 8 * DR_LEAST)))
    return xtc == 1 or drop_likely(race, xtc)


@device
def _decide(race, draw):
    """A token of those that have entered, or -1."""
    top_k, sigma = get_i64(draw + 8 * DR_TOP_K), get_f64(draw + 8 * DR_SIGMA)
    temperature = get_f64(draw + 8 * DR_TEMPERATURE)
    if sigma > 0:
        if find_best(race, int64(1)) == 0:
            return int64(-1)
        keep_near_peak(race, sigma)
    count = find_best(race, max(top_k, 1))
    if count == 0:
        return int64(-1)
    if top_k > 0:
        keep_best(race, count)
    if temperature == 0:
        return token_of(race, int64(0))
    if not _narrow(race, draw):
        return int64(-1)
    return choose(race, float32(1 / max(temperature, _COLDEST)), get_f64(draw + 8 * DR_UNIFORM))


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
    race = room(ROOM)
    _patch(logits, row)
    enter(race, logits, get_i64(row + 8 * DR_VOCAB), header, get_i64(args + 8 * SM_PART), worker)
    put_i64(row + 8 * DR_TOKEN, _decide(race, row))
    restore(race)
    _unpatch(logits, row)


@kernel
def part(race, header, chunk, worker):
    """A part of a pass over one row's logits, for whoever draws from them."""
    what = pass_of(race)
    if what == FIND_BEST:
        find_best_of(race, chunk)
    elif what == ADD_WEIGHTS:
        add_weights(race, chunk)
    elif what == MEASURE_SPREAD:
        measure_spread(race, chunk)
    elif what == FILL_BUCKETS:
        fill_buckets(race, chunk)
    elif what == LIST_NEAR:
        list_near(race, chunk)
