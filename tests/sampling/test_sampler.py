from collections import Counter

import numpy as np
import pytest

from edgellm.errors import EdgeLLMError
from edgellm.sampling import Sampler, SamplingParams, token_logprobs, uniform

PLAIN = {"top_k": 0, "top_p": 1, "min_p": 0}


def draw(params, logits, history=(1,), seed=0, choice=0, forbidden=()):
    sampler = Sampler(params, seed, choice, forbidden)
    return sampler.sample(sampler.biased(np.asarray(logits, np.float32)), list(history))


def test_temperature_zero_takes_the_lowest_of_the_likeliest():
    assert draw(SamplingParams(temperature=0), [0, 3, 1, 3]) == 1


def test_temperature_zero_still_obeys_bias_and_penalties():
    assert draw(SamplingParams(temperature=0, logit_bias={2: 5}), [0, 3, 1, 3]) == 2
    assert draw(SamplingParams(temperature=0, presence_penalty=1), [0, 3, 1, 3], history=[1]) == 3
    assert (
        draw(SamplingParams(temperature=0, presence_penalty=1, repeat_last_n=2), [0, 3, 1, 3], [1, 0, 0]) == 1
    )
    assert draw(SamplingParams(temperature=0, presence_penalty=1, repeat_last_n=0), [0, 3, 1, 3], [1]) == 1
    assert (
        draw(SamplingParams(temperature=0, presence_penalty=1, repeat_last_n=-1), [0, 3, 1, 3], [1] * 99) == 3
    )


def test_forbidden_tokens_are_never_chosen():
    assert draw(SamplingParams(temperature=0), [9, 3], forbidden=[0]) == 1


def test_the_draw_follows_the_probabilities():
    logits = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    params = SamplingParams(temperature=1, **PLAIN)
    counts = Counter(draw(params, logits, history=[0] * n) for n in range(3000))
    np.testing.assert_allclose([counts[i] / 3000 for i in range(3)], [0.1, 0.2, 0.7], atol=0.03)


def test_equal_seeds_draw_alike_and_others_do_not():
    logits = np.zeros(1000, np.float32)
    params = SamplingParams(temperature=1, **PLAIN)
    same = [draw(params, logits, [0] * n, seed=7) for n in range(20)]
    assert same == [draw(params, logits, [0] * n, seed=7) for n in range(20)]
    assert same != [draw(params, logits, [0] * n, seed=8) for n in range(20)]
    assert same != [draw(params, logits, [0] * n, seed=7, choice=1) for n in range(20)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_broken_logits_are_an_error_and_no_token(bad, temperature):
    with pytest.raises(EdgeLLMError, match="largest logit"):
        draw(SamplingParams(temperature=temperature), [0.0, bad, 1.0])


@pytest.mark.parametrize("place", [0, 127, 128, 129])
@pytest.mark.parametrize("params", [{"temperature": 0}, {"top_k": 0}, {}, {"temperature": 1, **PLAIN}])
def test_what_is_no_number_is_found_wherever_it_stands(place, params):
    logits = np.zeros(130, np.float32)
    logits[3], logits[place] = 5, np.nan
    with pytest.raises(EdgeLLMError, match="largest logit is nan"):
        draw(SamplingParams(**params), logits)


LARGEST_BIASES = [{}, {"temperature": 0}, {"temperature": 1e-30}, {"top_n_sigma": 1}, {"typical_p": 0.5}]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("params", [*LARGEST_BIASES, {"xtc_probability": 1}, {"top_p": 0.5, "min_p": 0}])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("most", [1e15, -1e15])
def test_the_largest_biases_leave_numbers(params, penalty, most):
    given = SamplingParams(**{"top_k": 0, **params, "repeat_penalty": penalty}, logit_bias={1: most})
    token = draw(given, np.linspace(-9, 9, 300), history=[1, 2])
    assert token == 1 if most > 0 else token != 1


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_nothing_left_to_choose_is_an_error(temperature):
    with pytest.raises(EdgeLLMError, match="no token to choose"):
        draw(SamplingParams(temperature=temperature), [0.0, 0.0], forbidden=[0, 1])


def test_uniform_is_in_range_even_and_a_pure_function():
    xs = np.array([uniform(s, c, p) for s in (0, 1, -1, 2**64 - 1) for c in range(5) for p in range(500)])
    assert ((xs >= 0) & (xs < 1)).all()
    assert len(set(xs.tolist())) >= 7500  # seeds -1 and 2**64 - 1 are the same 64 bits
    np.testing.assert_allclose(np.histogram(xs, 10, (0, 1))[0] / len(xs), 0.1, atol=0.02)
    assert uniform(3, 1, 4) == uniform(3, 1, 4)


def test_uniform_has_a_stream_for_each_purpose():
    assert len({uniform(1, 2, 3, stream) for stream in range(100)}) == 100


def test_logprobs_are_over_the_whole_vocabulary():
    logits = np.log(np.array([0.25, 0.125, 0.5, 0.125], np.float32)) + 3
    logprob, top = token_logprobs(logits, 1, 2)
    assert logprob == pytest.approx(np.log(0.125), abs=1e-6)
    assert [i for i, _ in top] == [2, 0]
    assert [x for _, x in top] == pytest.approx(np.log([0.5, 0.25]), abs=1e-6)
    assert token_logprobs(logits, 1, 0)[1] == ()
