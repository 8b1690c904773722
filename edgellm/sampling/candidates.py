"""The tokens still in the race, and how to find the best of many without sorting them all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Ids = NDArray[np.int64]
_TILE = 64


@dataclass(frozen=True)
class Candidates:
    """Token ids and their logits, both [n]: by falling logit (ties by id) where `ordered`, else by id."""

    ids: Ids
    logits: F32
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def keep(self, which: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Candidates:
        """Only some, in the same order."""
        if not isinstance(which, slice) and which.dtype == bool:
            which = np.flatnonzero(which)  # once, not for ids and for logits
        return Candidates(self.ids[which], self.logits[which], self.ordered)

    def drop(self, places: Ids) -> Candidates:
        """All but these."""
        if not len(places):
            return self
        return Candidates(np.delete(self.ids, places), np.delete(self.logits, places), self.ordered)

    @cached_property
    def peak(self) -> np.float32:
        """The largest logit; NaN where one of those by id is NaN."""
        if self.ordered:
            return self.logits[0]  # type: ignore[no-any-return]
        rest = self.logits[self.peaks.size * _TILE :]
        highest = [part.max() for part in (self.peaks, rest) if part.size]
        return np.max(highest)  # type: ignore[no-any-return]

    @cached_property
    def peaks(self) -> F32:
        """The largest of each tile, [n // 64]: tile t has every (n // 64)-th logit from t on, so that SIMD
        runs across tiles; fewer than 64 are left over at the end.
        """
        tiles = len(self.logits) // _TILE
        return self.logits[: tiles * _TILE].reshape(_TILE, tiles).max(axis=0)  # type: ignore[no-any-return]


def all_tokens(logits: F32) -> Candidates:
    """Every token of the vocabulary, logits [vocab]."""
    return Candidates(_all_ids(len(logits)), logits)


@lru_cache(maxsize=4)
def _all_ids(count: int) -> Ids:
    ids = np.arange(count)
    ids.flags.writeable = False
    return ids


def weights(c: Candidates) -> F32:
    """Softmax before its division, [n]: 1 for the best."""
    return np.asarray(np.exp(c.logits - c.peak))


def best(c: Candidates, k: int) -> Candidates:
    """The k best, ordered."""
    if c.ordered:
        return c.keep(slice(0, k))
    if k < len(c):
        c = c.keep(_places_above(c, k))
        c = c.keep(_places_of_best(c.logits, k))
    order = np.argsort(-c.logits, kind="stable")  # the input is by id, so ties stay by id
    return Candidates(c.ids[order], c.logits[order], ordered=True)


def _places_above(c: Candidates, k: int) -> NDArray[np.int64]:
    """Places that hold the k largest and few others: the k-th best of the tiles' peaks is a lower bound."""
    tiles = len(c.peaks)
    if tiles <= k:
        return np.arange(len(c))
    bound = np.partition(c.peaks, tiles - k)[tiles - k]
    high = np.arange(0, _TILE * tiles, tiles)[:, None] + np.flatnonzero(c.peaks >= bound)  # by id, row by row
    places = np.concatenate([high.ravel(), np.arange(_TILE * tiles, len(c))])
    return np.asarray(places[c.logits[places] >= bound])


def _places_of_best(logits: F32, k: int) -> NDArray[np.bool_]:
    """A mask [n] of the k largest; of equals at the border, those of the lowest ids."""
    if k >= len(logits):
        return np.ones(len(logits), bool)
    border = np.partition(logits, len(logits) - k)[len(logits) - k]
    mask: NDArray[np.bool_] = logits > border
    equal = np.flatnonzero(logits == border)
    mask[equal[: k - int(np.count_nonzero(mask))]] = True
    return mask
