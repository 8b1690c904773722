import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import (
    naive_min_p,
    naive_order,
    naive_penalize,
    naive_softmax,
    naive_top_k,
    naive_top_n_sigma,
    naive_top_p,
    naive_typical,
    naive_xtc,
)

from edgellm.sampling import samplers
from edgellm.sampling.candidates import Candidates, all_tokens, best, weights
from edgellm.sampling.params import SamplingParams

# Half, a quarter, two eighths: token 2 is the likeliest, tokens 1 and 3 are equal.
FOUR = np.log(np.array([0.25, 0.125, 0.5, 0.125], np.float32))
LOGITS = st.lists(st.integers(-40, 40), min_size=1, max_size=60).map(lambda xs: np.array(xs, np.float32) / 4)


def ids(c: Candidates) -> list[int]:
    return sorted(c.ids.tolist())


def probabilities(c: Candidates) -> np.ndarray:
    weight = weights(c).astype(np.float64)
    return weight / weight.sum()


def test_best_orders_by_logit_and_equals_by_id():
    assert best(all_tokens(FOUR), 4).ids.tolist() == [2, 0, 1, 3]
    assert best(all_tokens(FOUR), 3).ids.tolist() == [2, 0, 1]


def test_top_k_keeps_the_best():
    assert ids(samplers.top_k(all_tokens(FOUR), 2)) == [0, 2]
    assert ids(samplers.top_k(all_tokens(FOUR), 9)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("p", "kept"), [(0.0, [2]), (0.5, [2]), (0.51, [0, 2]), (0.8, [0, 1, 2]), (0.99, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_fewest_that_hold_the_mass(p, kept):
    assert ids(samplers.top_p(all_tokens(FOUR), p)) == kept


@pytest.mark.parametrize(("p", "kept"), [(0.2, [0, 1, 2, 3]), (0.3, [0, 2]), (0.6, [2]), (1.0, [2])])
def test_min_p_is_relative_to_the_best(p, kept):
    assert ids(samplers.min_p(all_tokens(FOUR), p)) == kept


def test_typical_prefers_the_expected_surprise():
    # Entropy is 1.75 bits; a quarter (2 bits) is nearest to it, then half (1), then the eighths (3).
    assert ids(samplers.typical(all_tokens(FOUR), 0.1)) == [0]
    assert ids(samplers.typical(all_tokens(FOUR), 0.5)) == [0, 2]


def test_top_n_sigma_cuts_by_standard_deviations():
    logits = np.array([0, 0, 0, 4], np.float32)  # mean 1, deviation sqrt(3)
    assert ids(samplers.top_n_sigma(all_tokens(logits), 2.0)) == [3]
    assert ids(samplers.top_n_sigma(all_tokens(logits), 2.4)) == [0, 1, 2, 3]


def test_xtc_drops_the_best_but_one_of_the_likely():
    assert ids(samplers.xtc(all_tokens(FOUR), 0.2, 1.0, 0.0)) == [0, 1, 3]
    assert ids(samplers.xtc(all_tokens(FOUR), 0.4, 1.0, 0.0)) == [0, 1, 2, 3]
    assert ids(samplers.xtc(all_tokens(FOUR), 0.2, 0.5, 0.5)) == [0, 1, 2, 3]


def test_temperature_sharpens_and_survives_the_smallest():
    cold = probabilities(samplers.temperature(all_tokens(FOUR), 0.5))
    np.testing.assert_allclose(cold, np.array([4, 1, 16, 1]) / 22, rtol=1e-6)
    frozen = probabilities(samplers.temperature(all_tokens(FOUR), 1e-300))
    assert frozen.tolist() == [0, 0, 1, 0]


def test_choose_walks_the_cumulated_probabilities():
    c = best(all_tokens(FOUR), len(FOUR))
    drawn = [samplers.choose(c, x) for x in (0.0, 0.49, 0.51, 0.74, 0.76, 0.88, 0.9999999)]
    assert drawn == [2, 2, 0, 0, 1, 3, 3]


def test_choose_never_takes_what_is_impossible():
    logits = np.array([-np.inf, 0.0, -np.inf], np.float32)
    assert {samplers.choose(all_tokens(logits), x) for x in (0.0, 0.5, 1 - 2**-53)} == {1}


def test_penalties_push_seen_tokens_down_whatever_their_sign():
    logits = np.array([2.0, -2.0, 2.0, 1.0], np.float32)
    out = samplers.penalize(logits, {0: 1, 1: 3}, repeat=2.0, presence=0.5, frequency=0.25)
    assert out.tolist() == [0.25, -5.25, 2.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 2.0, 1.0]


def test_bias_is_added_and_may_forbid():
    assert samplers.add_bias(np.zeros(3, np.float32), {1: 2.5, 2: -math.inf}).tolist() == [0, 2.5, -math.inf]


NAIVE = {
    "top_k": lambda x: (samplers.top_k(all_tokens(x), 7), naive_top_k(x.tolist(), 7)),
    "top_p": lambda x: (samplers.top_p(all_tokens(x), 0.9), naive_top_p(x.tolist(), 0.9)),
    "min_p": lambda x: (samplers.min_p(all_tokens(x), 0.07), naive_min_p(x.tolist(), 0.07)),
    "typical_p": lambda x: (samplers.typical(all_tokens(x), 0.61), naive_typical(x.tolist(), 0.61)),
    "top_n_sigma": lambda x: (samplers.top_n_sigma(all_tokens(x), 1.3), naive_top_n_sigma(x.tolist(), 1.3)),
    "xtc": lambda x: (samplers.xtc(all_tokens(x), 0.11, 1, 0), naive_xtc(x.tolist(), 0.11)),
}


@pytest.mark.parametrize("name", [row.name for row in samplers.TABLE if row.name != "temperature"])
@settings(max_examples=60, deadline=None)
@given(logits=LOGITS)
def test_filters_equal_their_naive_twins(name, logits):
    kept, expected = NAIVE[name](logits)
    assert ids(kept) == sorted(expected)


@pytest.mark.parametrize("spread", [0.01, 1, 4, 30])
@pytest.mark.parametrize("name", [row.name for row in samplers.TABLE if row.name != "temperature"])
def test_filters_of_many_equal_their_naive_twins(name, spread):
    logits = (np.random.default_rng(11).standard_normal(2000) * spread).astype(np.float32)
    kept, expected = NAIVE[name](logits)
    assert len(set(ids(kept)) ^ set(expected)) <= 2  # at the border, by rounding


def test_filters_pass_over_what_is_forbidden():
    logits = np.concatenate([FOUR, np.full(3, -np.inf, np.float32)])
    assert ids(samplers.typical(all_tokens(logits), 0.5)) == [0, 2]
    assert ids(samplers.top_n_sigma(all_tokens(logits), 1.5)) == [0, 2]
    assert ids(samplers.xtc(all_tokens(logits), 0.2, 1.0, 0.0)) == [0, 1, 3, 4, 5, 6]
    assert ids(samplers.xtc(all_tokens(logits), 0.0, 1.0, 0.0)) == [3, 4, 5, 6]


@settings(max_examples=40, deadline=None)
@given(logits=LOGITS)
def test_weights_equal_the_naive_softmax(logits):
    np.testing.assert_allclose(probabilities(all_tokens(logits)), naive_softmax(logits.tolist()), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(logits=LOGITS, data=st.data())
def test_penalties_equal_their_naive_twin(logits, data):
    history = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=20))
    counts = {t: history.count(t) for t in history}
    out = samplers.penalize(logits, counts, 1.3, 0.4, 0.2)
    np.testing.assert_allclose(
        out, naive_penalize(logits.tolist(), history, 1.3, 0.4, 0.2), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("spread", [0.01, 1, 4, 30])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.95, 0.9999])
@pytest.mark.parametrize("levels", [3, 100_000])
def test_top_p_of_many_is_the_shortest_head_of_the_order(spread, p, levels):
    rng = np.random.default_rng(7)
    logits = (np.round(rng.standard_normal(2000) * levels) / levels * spread).astype(np.float32)
    logits[rng.integers(0, len(logits), 50)] = -np.inf
    kept = ids(samplers.top_p(all_tokens(logits), p))
    order = naive_order(logits.tolist())
    assert kept == sorted(order[: len(kept)])
    mass = np.cumsum(np.array(naive_softmax(logits.tolist()))[order])
    assert mass[len(kept) - 1] >= p - 1e-5
    assert len(kept) == 1 or mass[len(kept) - 2] < p + 1e-5


@pytest.mark.parametrize("size", [1, 64, 65, 1000, 5000])
def test_choose_among_many_follows_the_cumulated_probabilities(size):
    rng = np.random.default_rng(size)
    logits = rng.standard_normal(size).astype(np.float32)
    logits[rng.integers(0, size, size // 2)] = -np.inf
    logits[size // 3] = 1
    probabilities = np.array(naive_softmax(logits.tolist()))
    mass = np.cumsum(probabilities)
    for draw in [0.0, *rng.random(300).tolist(), 1 - 2**-53]:
        token = samplers.choose(all_tokens(logits), draw)
        assert probabilities[token] > 0
        assert mass[token] - probabilities[token] - 1e-6 <= draw <= mass[token] + 1e-6


def test_top_p_finds_a_mass_spread_over_many():
    flat = np.zeros(5000, np.float32)
    assert samplers.top_p(all_tokens(flat), 0.5).ids.tolist() == list(range(2500))


ON = {
    "top_n_sigma": {"top_n_sigma": 1.0},
    "top_k": {"top_k": 5},
    "typical_p": {"typical_p": 0.5},
    "top_p": {"top_p": 0.5},
    "min_p": {"min_p": 0.1},
    "xtc": {"xtc_probability": 0.5},
    "temperature": {"temperature": 0.5},
}
OFF = SamplingParams(temperature=1, top_k=0, top_p=1, min_p=0)


@pytest.mark.parametrize("row", samplers.TABLE, ids=lambda row: row.name)
def test_every_row_is_off_at_its_neutral_value_and_on_elsewhere(row):
    assert not row.active(OFF)
    assert row.active(
        SamplingParams(**{"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, **ON[row.name]})
    )


def test_the_order_is_llama_cpps():
    names = [row.name for row in samplers.TABLE]
    assert names == ["top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 4096])
@pytest.mark.parametrize("k", [1, 2, 40, 64])
@pytest.mark.parametrize("levels", [2, 1000])
def test_the_best_of_many_equal_the_naive_twin_with_and_without_ties(size, k, levels):
    logits = np.random.default_rng(size).integers(0, levels, size).astype(np.float32)
    assert best(all_tokens(logits), k).ids.tolist() == naive_top_k(logits.tolist(), k)
