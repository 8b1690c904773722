"""The samplers: pure functions from candidates to candidates, and the table that says in which order.

The definitions are llama.cpp's (`src/llama-sampler.cpp`), the papers': top-p (Holtzman 2019), typical
(Meister 2022), min-p (Nguyen 2024), top-n-sigma (Tang 2024), XTC (p-e-w 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from edgellm.sampling.candidates import F32, Candidates, Ids, best, weights
from edgellm.sampling.params import SamplingParams

_FIRST_GUESS = 64  # candidates that top-p sorts at first; nearly always enough
_STEPS, _BUCKETS = 32, 1024  # buckets of nearly equal logits: for each unit of a logit, and in all
_HOPELESS = np.float32(200)  # so far below the best that nothing weighs anything
_LEAST_LIKELY = 1.2e-38  # e^-87.3, the least that weighs anything: what is forbidden is never likely
_TILE = 64  # weights that `choose` adds up before it looks at them one by one


def add_bias(logits: F32, bias: Mapping[int, float]) -> F32:
    """Logits [vocab] with `bias` added per token id."""
    out = logits.copy()
    for token, value in bias.items():
        out[token] += np.float32(value)
    return out


def penalize(logits: F32, counts: Mapping[int, int], repeat: float, presence: float, frequency: float) -> F32:
    """Logits [vocab] lowered for tokens that were seen, `counts` saying how often."""
    out = logits.copy()
    ids = np.fromiter(counts.keys(), np.int64, len(counts))
    seen = np.fromiter(counts.values(), np.float32, len(counts))
    hit = out[ids]
    hit = np.where(hit <= 0, hit * np.float32(repeat), hit / np.float32(repeat))
    out[ids] = hit - seen * np.float32(frequency) - np.float32(presence)
    return out


def top_n_sigma(c: Candidates, n: float) -> Candidates:
    """Those whose logit is within n standard deviations of the best."""
    finite = np.isfinite(c.logits)
    logits = c.logits if finite.all() else c.logits[finite]
    apart = logits - np.float32(logits.mean(dtype=np.float64))
    variance = np.square(apart).mean(dtype=np.float64) - apart.mean(dtype=np.float64) ** 2
    return c.keep(c.logits >= float(c.peak) - n * math.sqrt(max(variance, 0.0)))


def top_k(c: Candidates, k: int) -> Candidates:
    """The k best."""
    return best(c, k)


def typical(c: Candidates, p: float) -> Candidates:
    """Those whose surprise is nearest to the expected one, until they hold the mass p."""
    weight = weights(c)
    total = float(weight.sum(dtype=np.float64))
    # A token's surprise less the expected one is the expected logit less its own.
    below = np.minimum(c.peak - c.logits, _HOPELESS)
    expected = float((weight * below).sum(dtype=np.float64)) / total
    return c.keep(_first_to_hold(np.abs(below - expected), weight, math.nextafter(p * total, math.inf)))


def top_p(c: Candidates, p: float) -> Candidates:
    """The fewest best that hold the mass p together, at least one."""
    weight = weights(c)
    needed = p * float(weight.sum(dtype=np.float64))
    head = c if c.ordered else best(c, _FIRST_GUESS)
    mass = np.cumsum(weight if head is c else weights(head), dtype=np.float64)
    if mass[-1] < needed and len(head) < len(c):
        return c.keep(_first_to_hold(c.peak - c.logits, weight, needed))
    return head.keep(slice(0, int(np.searchsorted(mass, needed, side="left")) + 1))


def _first_to_hold(key: F32, weight: F32, needed: float) -> Ids:
    """Places, rising, of the fewest with the smallest keys (equals: the first) whose weights hold `needed`.

    Buckets of nearly equal keys say where the border is; only what is in its bucket must be sorted.
    """
    bucket = np.minimum(key * _STEPS, _BUCKETS).astype(np.intp)
    mass = np.cumsum(np.bincount(bucket, weights=weight))
    border = min(int(np.searchsorted(mass, needed, side="left")), len(mass) - 1)
    kept = bucket < border
    inside = np.flatnonzero(bucket == border)
    inside = inside[np.argsort(key[inside], kind="stable")]
    held = (mass[border - 1] if border else 0.0) + np.cumsum(weight[inside], dtype=np.float64)
    kept[inside[: int(np.searchsorted(held, needed, side="left")) + 1]] = True
    return np.flatnonzero(kept)


def min_p(c: Candidates, p: float) -> Candidates:
    """Those at least p times as likely as the best."""
    return c.keep(c.logits >= float(c.peak) + math.log(p))


def xtc(c: Candidates, threshold: float, chance: float, draw: float) -> Candidates:
    """With this chance: without the best ones, but for the last that is at least `threshold` likely."""
    if draw >= chance:
        return c
    weight = weights(c)
    likely = max(threshold * float(weight.sum(dtype=np.float64)), _LEAST_LIKELY)
    above = np.flatnonzero(weight >= likely)
    above = above[np.argsort(-c.logits[above], kind="stable")]
    return c.drop(above[:-1])


def temperature(c: Candidates, t: float) -> Candidates:
    """Logits, from the best one down, divided by t: never too large, however small t is."""
    with np.errstate(over="ignore"):
        cooled = (c.logits - c.peak).astype(np.float64) / t
        return Candidates(c.ids, cooled.astype(np.float32), c.ordered)


def choose(c: Candidates, draw: float) -> int:
    """The token id at `draw` in [0, 1) of the cumulated probabilities; never one whose probability is 0."""
    weight = weights(c)
    mass = np.cumsum(np.add.reduceat(weight, np.arange(0, len(c), _TILE)), dtype=np.float64)
    target = min(draw * mass[-1], _just_below(mass[-1]))
    tile = int(np.searchsorted(mass, target, side="right"))
    within = np.cumsum(weight[tile * _TILE : (tile + 1) * _TILE], dtype=np.float64)
    rest = target - (mass[tile - 1] if tile else 0.0)
    place = int(np.searchsorted(within, min(rest, _just_below(within[-1])), side="right"))
    return int(c.ids[tile * _TILE + place])


def _just_below(x: float) -> float:
    return math.nextafter(x, 0.0)


class Row(NamedTuple):
    """One sampler: its name, whether these params ask for it, what it does, given XTC's random number."""

    name: str
    active: Callable[[SamplingParams], bool]
    apply: Callable[[Candidates, SamplingParams, float], Candidates]


TABLE: tuple[Row, ...] = (
    Row("top_n_sigma", lambda p: p.top_n_sigma > 0, lambda c, p, _: top_n_sigma(c, p.top_n_sigma)),
    Row("top_k", lambda p: p.top_k > 0, lambda c, p, _: top_k(c, p.top_k)),
    Row("typical_p", lambda p: p.typical_p < 1, lambda c, p, _: typical(c, p.typical_p)),
    Row("top_p", lambda p: p.top_p < 1, lambda c, p, _: top_p(c, p.top_p)),
    Row("min_p", lambda p: p.min_p > 0, lambda c, p, _: min_p(c, p.min_p)),
    Row(
        "xtc",
        lambda p: p.xtc_probability > 0 and p.xtc_threshold <= 0.5,
        lambda c, p, draw: xtc(c, p.xtc_threshold, p.xtc_probability, draw),
    ),
    Row("temperature", lambda p: p.temperature != 1, lambda c, p, _: temperature(c, p.temperature)),
)
