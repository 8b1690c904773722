"""One choice's way from a row of logits to a token id."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from edgellm.errors import EdgeLLMError
from edgellm.sampling import samplers
from edgellm.sampling.candidates import F32, all_tokens
from edgellm.sampling.draw import Draw, Patch
from edgellm.sampling.params import SamplingParams
from edgellm.sampling.rng import uniform

_XTC_STREAM = 1  # of random numbers; tokens are chosen by stream 0
_IN_DRAW = frozenset({"top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"})


class Sampler:
    """Chooses tokens as `params` ask, for choice `choice` of a request with this seed.

    `forbidden` are token ids that are never chosen (the ends of generation under `ignore_eos`).
    """

    def __init__(
        self, params: SamplingParams, seed: int, choice: int = 0, forbidden: Sequence[int] = ()
    ) -> None:
        self._params, self._seed, self._choice = params, seed, choice
        self._bias = dict(params.logit_bias) | dict.fromkeys(forbidden, -np.inf)
        self._rows = [row for row in samplers.TABLE if row.active(params)]
        penalties = (params.repeat_penalty, params.presence_penalty, params.frequency_penalty)
        names = {row.name for row in self._rows}
        self._xtc = "xtc" in names
        self._drawable = names <= _IN_DRAW or params.temperature == 0
        self._penalties = penalties if penalties != (1.0, 0.0, 0.0) and params.repeat_last_n else None

    def draw(self, history: Sequence[int], vocab: int) -> Draw | None:
        """How a backend may choose the token that follows `history` among the first `vocab`; None where that
        takes a sampler which a Draw does not have. `sample` chooses the same, but for rounding.
        """
        if not self._drawable:
            return None
        p, bias, seen = self._params, self._bias, self._seen(history)
        patched = [t for t in bias.keys() | seen.keys() if t < vocab]
        greedy = p.temperature == 0
        return Draw(
            vocab,
            1 if greedy else p.top_k,
            0.0 if greedy else max(p.top_n_sigma, 0.0),
            p.typical_p,
            p.top_p,
            math.log(p.min_p) if p.min_p > 0 else -math.inf,
            p.xtc_threshold if self._xtc and self._xtc_draw(history) < p.xtc_probability else 1.0,
            p.temperature,
            uniform(self._seed, self._choice, len(history)),
            *(self._penalties or (1.0, 0.0, 0.0)),
            [Patch(t, bias.get(t, 0.0), seen.get(t, 0)) for t in patched],
        )

    def biased(self, logits: F32) -> F32:
        """The logits [vocab] as the request wants them, before any sampler."""
        return samplers.add_bias(logits, self._bias) if self._bias else logits

    def sample(self, biased: F32, history: Sequence[int]) -> int:
        """The token id that follows `history` (prompt and answer so far), from `biased` logits [vocab].

        Raises EdgeLLMError where the logits leave nothing to choose from.
        """
        logits = self._penalized(biased, history)
        if self._params.temperature == 0:
            token = int(np.argmax(logits))
            _check(float(logits[token]))
            return token
        c = all_tokens(logits)
        _check(float(c.peak))
        xtc_draw = self._xtc_draw(history)
        for row in self._rows:
            c = row.apply(c, self._params, xtc_draw)
        return samplers.choose(c, uniform(self._seed, self._choice, len(history)))

    def _xtc_draw(self, history: Sequence[int]) -> float:
        return uniform(self._seed, self._choice, len(history), _XTC_STREAM)

    def _penalized(self, logits: F32, history: Sequence[int]) -> F32:
        seen = self._seen(history)
        return samplers.penalize(logits, seen, *self._penalties) if self._penalties and seen else logits

    def _seen(self, history: Sequence[int]) -> Mapping[int, int]:
        """How often each token that penalties look at was seen."""
        if self._penalties is None:
            return {}
        last = self._params.repeat_last_n
        return Counter(history if last < 0 else history[-last:])


def _check(peak: float) -> None:
    if not np.isfinite(peak):
        raise EdgeLLMError(
            f"the largest logit is {peak}: the model or the logit bias leaves no token to choose"
        )
