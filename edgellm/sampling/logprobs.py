"""Log probabilities over the full vocabulary, computed only for who asks."""

from __future__ import annotations

import numpy as np

from edgellm.sampling.candidates import F32, all_tokens, best, weights


def token_logprobs(logits: F32, token: int, top: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Natural log probability of `token` under logits [vocab], and the `top` likeliest (id, logprob)."""
    c = all_tokens(logits)
    total = float(c.peak) + float(np.log(weights(c).sum(dtype=np.float64)))
    head = best(c, top) if top else None
    likeliest = zip(head.ids.tolist(), head.logits.tolist(), strict=True) if head else ()
    return float(logits[token]) - total, tuple((i, x - total) for i, x in likeliest)
