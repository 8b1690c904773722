"""What a backend must know to choose a token itself, right where the logits are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Patch(NamedTuple):
    """A token whose logit is not just the model's: what is added to it, and how often it was seen."""

    token: int
    bias: float
    seen: int


class Draw(NamedTuple):
    """One choice among the first `vocab` tokens, as `Sampler.sample` makes it.

    Fields as in SamplingParams, but: `sigma` is top_n_sigma (0: off), `least` is log(min_p), `xtc` the
    threshold (1: not this time), `uniform` the random number in [0, 1), and `patches` has each token with a
    bias or a penalty once.
    """

    vocab: int
    top_k: int
    sigma: float
    typical: float
    top_p: float
    least: float
    xtc: float
    temperature: float
    uniform: float
    repeat: float
    presence: float
    frequency: float
    patches: Sequence[Patch]
