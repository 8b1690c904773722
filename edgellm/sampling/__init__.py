"""From logits to a token: parameters, an ordered table of samplers, a counter-based draw, stop strings.

How to add one: write a pure function from candidates to candidates in `samplers.py` and give it a row in
`TABLE` there, at the place where it acts, with a test of when it is on. Its fields go into `SamplingParams`,
their limits into `NUMBERS` beside it. There is no third place; but `kernels/sample.py` does these samplers
again where the logits are, and leaves a request that asks for another to NumPy, until `Draw` has that, too.
"""

from edgellm.sampling.draw import Draw
from edgellm.sampling.logprobs import token_logprobs
from edgellm.sampling.params import SamplingParams
from edgellm.sampling.rng import random_seed, uniform
from edgellm.sampling.sampler import Sampler
from edgellm.sampling.stop import StopMatcher

__all__ = ["Draw", "Sampler", "SamplingParams", "StopMatcher", "random_seed", "token_logprobs", "uniform"]
