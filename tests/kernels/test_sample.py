"""Tokens chosen by the kernel are the ones that the NumPy samplers choose."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness import address, call, header

from edgellm.backends.cpu.draws import DrawTable
from edgellm.backends.cpu.team import Plan, team_of
from edgellm.kernels import layout as L
from edgellm.kernels.cache import load_kernels
from edgellm.sampling import Draw, Sampler, SamplingParams, samplers
from edgellm.sampling.candidates import Candidates

CHAINS = {
    "greedy": {"temperature": 0},
    "the defaults": {},
    "one of two": {"top_k": 2},
    "as many as can be": {"top_k": 256, "top_p": 1, "min_p": 0, "temperature": 3.0},
    "hot": {"temperature": 100, "min_p": 0, "top_p": 1},
    "cold": {"temperature": 1e-30},
    "plain": {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0},
    "plain and cold": {"temperature": 1e-40, "top_k": 0, "top_p": 1, "min_p": 0},
    "min_p of all": {"temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0.1},
    "top_p of all": {"temperature": 0.7, "top_k": 0, "top_p": 0.9, "min_p": 0},
    "both of all": {"temperature": 1, "top_k": 0, "top_p": 0.99, "min_p": 0.01},
    "a top_p of nothing": {"top_p": 0},
    "a flat top_p": {"temperature": 2, "top_k": 0, "top_p": 0.999, "min_p": 0},
    "typical_p": {"typical_p": 0.6},
    "typical_p of all": {"typical_p": 0.6, "top_k": 0, "top_p": 1, "min_p": 0},
    "typical_p and top_p of all": {"typical_p": 0.9, "top_k": 0, "top_p": 0.9, "min_p": 0},
    "typical_p and a top_p of nothing": {"typical_p": 0.3, "top_p": 0},
    "top_n_sigma": {"top_n_sigma": 1.5},
    "top_n_sigma of all": {"top_n_sigma": 0.7, "top_k": 0, "top_p": 1, "min_p": 0},
    "xtc": {"xtc_probability": 0.7, "xtc_threshold": 0.05},
    "xtc of all": {"xtc_probability": 1, "xtc_threshold": 0.01, "top_k": 0, "top_p": 1, "min_p": 0},
    "xtc of any": {"xtc_probability": 1, "xtc_threshold": 0},
    "every sampler": {"typical_p": 0.9, "top_n_sigma": 3, "xtc_probability": 0.5, "repeat_penalty": 1.1},
    "every sampler of all": {
        "typical_p": 0.95,
        "top_n_sigma": 2,
        "xtc_probability": 0.5,
        "repeat_penalty": 1.1,
        "top_k": 0,
        "top_p": 0.98,
        "min_p": 0.01,
    },
    "penalties": {"repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": -0.2},
    "greedy with penalties": {"temperature": 0, "repeat_penalty": 1.3},
    "bias": {"logit_bias": {0: -np.inf, 3: 9.5, 17: -2}},
    "all there is": {"logit_bias": {0: -np.inf, 5: 3}, "repeat_penalty": 1.1, "repeat_last_n": -1},
}
HARD = {"top_p", "typical_p", "xtc_probability"}  # may have to leave a row to NumPy


def kernel(logits: np.ndarray, draws: list[Draw | None]) -> list[int]:
    """The tokens that the kernel chooses from rows [O, columns], which it leaves as they are."""
    before = logits.copy()
    table, words = DrawTable(draws), header(1, len(draws))
    words[L.H_DRAWS] = table.address
    args = {L.SM_LOGITS: address(logits), L.SM_STRIDE: logits.strides[0], L.SM_PART: part_kernel()}
    call("sample.draw", args, words, len(draws))
    assert logits.tobytes() == before.tobytes()
    return table.tokens()


def part_kernel() -> int:
    """Where the kernel is that does parts of a row."""
    return load_kernels(["sample.part"])["sample.part"]


def room_for(logits: np.ndarray) -> np.ndarray:
    """Rows as the backend has them: whole vectors, what follows the vocabulary being anything."""
    rows = np.full((len(logits), -(-logits.shape[1] // L.LANES) * L.LANES), np.nan, np.float32)
    rows[:, : logits.shape[1]] = logits
    return rows


@pytest.mark.parametrize("vocab", [1, 5, 63, 64, 200, 3000])
@pytest.mark.parametrize("chain", CHAINS)
def test_the_same_tokens_as_in_numpy(chain, vocab):
    rng = np.random.default_rng(vocab)
    params = SamplingParams(**CHAINS[chain])
    forbidden = [v for v in (1,) if vocab > 5]
    sampler = Sampler(params, seed=vocab, forbidden=forbidden)
    logits = (rng.standard_normal((100, vocab)) * rng.choice([0.1, 2, 8], (100, 1))).astype(np.float32)
    histories = [rng.integers(0, vocab, rng.integers(0, 90)).tolist() for _ in logits]
    if vocab < 20:  # a bias is for tokens that there are
        sampler = Sampler(SamplingParams(**{**CHAINS[chain], "logit_bias": {}}), seed=vocab)
    got = kernel(room_for(logits), [sampler.draw(h, vocab) for h in histories])
    want = [sampler.sample(sampler.biased(row), h) for row, h in zip(logits, histories, strict=True)]
    undecided = [g for g, w in zip(got, want, strict=True) if g != w]
    assert set(undecided) <= {-1}
    assert len(undecided) <= (len(logits) // 10 if HARD & CHAINS[chain].keys() else 0)


def test_equals_are_taken_by_id():
    logits = np.zeros((1, 320), np.float32)
    logits[0, [70, 7, 300]] = 5
    draws = [Sampler(SamplingParams(temperature=0), 0).draw([], 320)]
    assert kernel(logits, draws) == [7]
    sampler = Sampler(SamplingParams(top_k=2, top_p=1, min_p=0), 0)
    draws = [sampler.draw([0] * n, 320) for n in range(50)]
    assert set(kernel(np.repeat(logits, 50, axis=0), draws)) == {7, 70}


EQUALS = ["typical_p of all", "a flat top_p", "top_p of all"]


@pytest.mark.parametrize("vocab", [48, 3000, 33_000])
@pytest.mark.parametrize("chain", EQUALS)
def test_of_equals_at_a_border_the_first_are_kept(chain, vocab):
    rng = np.random.default_rng(vocab)
    rows = np.repeat(rng.standard_normal((40, vocab // 3)), 3, axis=1).astype(np.float32)
    sampler = Sampler(SamplingParams(**CHAINS[chain]), 0)
    logits = rng.permuted(rows, axis=1)
    draws = [sampler.draw([0] * n, vocab) for n in range(len(logits))]
    draws = [d._replace(uniform=1 - 2.0**-53) for d in draws[::2]] + draws[1::2]
    got, struck = kernel(room_for(logits), draws), 0
    for row, token, draw in zip(logits, got, draws, strict=True):
        kept = Candidates(np.arange(vocab), row)
        if draw.typical < 1:
            kept = samplers.typical(kept, draw.typical)
        kept = samplers.top_p(kept, draw.top_p) if draw.top_p < 1 else kept
        struck += sum(np.isin(row, row[kept.ids])) > len(kept)
        assert token == samplers.choose(samplers.temperature(kept, draw.temperature), draw.uniform)
    assert struck > 3  # rows some of whose equals are kept and others are not


@pytest.mark.parametrize("chain", ["typical_p of all", "a flat top_p", "xtc"])
def test_many_equals_at_a_border_are_left_to_numpy(chain):
    sampler = Sampler(SamplingParams(**CHAINS[chain] | {"top_k": 0, "xtc_threshold": 3e-4, "top_p": 0.9}), 0)
    assert kernel(np.zeros((1, 3200), np.float32), [sampler.draw([], 3200)]) == [-1]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("chain", CHAINS)
def test_the_same_tokens_whoever_helps(chain, threads):
    rng = np.random.default_rng(1)
    logits = room_for(rng.standard_normal((3, 70_000)).astype(np.float32))
    sampler = Sampler(SamplingParams(**CHAINS[chain]), seed=5)
    draws = [sampler.draw([3, 17, n], 70_000) for n in range(3)]
    want = kernel(logits, draws)
    for rows in (1, 3):
        table, words = DrawTable(draws[:rows]), header(1, rows)
        words[L.H_DRAWS] = table.address
        block = np.array([address(logits), logits.strides[0], part_kernel()], np.int64)
        op = np.zeros((1, L.OP_WORDS), np.int64)
        at = load_kernels(["sample.draw"])["sample.draw"]
        op[0, : L.OP_MUL + 1] = at, block.ctypes.data, L.H_OUTPUTS, 1, 1
        plan = Plan(op, words)
        for _ in range(20):
            team_of(threads).run(plan)
            assert table.tokens() == want[:rows]


SHAPES = {
    "flat": lambda rng, n: rng.standard_normal(n) * 0.01,
    "even": lambda rng, n: rng.standard_normal(n),
    "as models have it": lambda rng, n: rng.standard_normal(n) * 2.5,
    "steep": lambda rng, n: rng.standard_normal(n) * 6,
    "some far above": lambda rng, n: np.where(rng.random(n) < 1e-3, 10, 0) + rng.standard_normal(n),
    "one far above": lambda rng, n: np.where(np.arange(n) == 77, 25, 0) + rng.standard_normal(n),
    "most far below": lambda rng, n: np.where(rng.random(n) < 0.9, -1e4, 0) + rng.standard_normal(n),
    "most impossible": lambda rng, n: np.where(rng.random(n) < 0.9, -np.inf, 0) + rng.standard_normal(n),
    "in two places": lambda rng, n: np.where(rng.random(n) < 0.5, 4, 0) + rng.standard_normal(n) * 0.1,
    "with a long tail": lambda rng, n: -(rng.exponential(3.0, n) ** 1.5),
}


@pytest.mark.parametrize("vocab", [300, 33_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_last_that_is_kept_is_the_one_in_numpy(shape, vocab):
    """Tokens sorted so that the one at the border is the first or the last of those kept."""
    rng, asked, undecided = np.random.default_rng(vocab), 0, 0
    rising = np.sort(SHAPES[shape](rng, vocab).astype(np.float32))
    weight, below = np.exp(rising - rising[-1], dtype=np.float64), np.minimum(rising[-1] - rising, 200)
    apart = np.abs(below - np.float32((weight * below).sum() / weight.sum()))
    nearing = rising[np.argsort(-apart, kind="stable")]
    for chain, p in itertools.product(("top_p", "typical_p"), (0.03, 0.4, 0.9, 0.95, 0.999)):
        all_but = {"temperature": 1, "top_k": 0, "min_p": 0, "top_p": 1, "logit_bias": {}}
        sampler = Sampler(SamplingParams(**all_but | {chain: p}), 0)
        cases = {"top_p": (samplers.top_p, rising), "typical_p": (samplers.typical, nearing)}
        apply, logits = cases[chain]
        kept = apply(Candidates(np.arange(vocab), logits), p)
        draws = [sampler.draw([], vocab)._replace(uniform=u) for u in (0.0, 1 - 2.0**-53)]
        for token, draw in zip(kernel(room_for(np.stack([logits] * 2)), draws), draws, strict=True):
            asked, undecided = asked + 1, undecided + (token < 0)
            off = abs(token - samplers.choose(kept, draw.uniform))
            assert token < 0 or off <= 1  # a sum of f32 may fall on either side of the mass
    assert undecided <= asked // 10


def test_the_draw_follows_the_probabilities():
    logits = np.log(np.array([0.1, 0.2, 0.7], np.float32))[None].repeat(3000, axis=0)
    for chain in ("plain", "as many as can be"):
        sampler = Sampler(SamplingParams(**{**CHAINS[chain], "temperature": 1}), 1)
        got = kernel(room_for(logits), [sampler.draw([0] * n, 3) for n in range(3000)])
        np.testing.assert_allclose(np.bincount(got) / 3000, [0.1, 0.2, 0.7], atol=0.03)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("chain", ["greedy", "the defaults", "plain"])
def test_rows_without_a_best_are_left_to_numpy(chain, bad):
    logits = np.zeros((3, 400), np.float32)
    logits[0] = -np.inf if bad == -np.inf else 0
    logits[0, 399] = logits[1, 77] = bad
    draws = [Sampler(SamplingParams(**CHAINS[chain]), 0).draw([1], 400)] * 3
    got = kernel(logits, draws)
    assert got[0] == -1
    assert got[1] == -1 or bad == -np.inf
    assert got[2] >= 0


def test_rows_that_nobody_draws_stay_undecided():
    logits = np.zeros((3, 64), np.float32)
    draw = Sampler(SamplingParams(temperature=0), 0).draw([1], 64)
    many = Sampler(SamplingParams(top_k=257), 0).draw([1], 64)
    assert kernel(logits, [None, draw, many]) == [-1, 0, -1]
    assert DrawTable([None, many]).address == 0


def test_a_sampler_that_a_draw_does_not_have_is_left_to_numpy(monkeypatch):
    other = samplers.Row("other", lambda p: p.seed == 7, lambda c, p, _: c)
    monkeypatch.setattr(samplers, "TABLE", (*samplers.TABLE, other))
    assert Sampler(SamplingParams(seed=7), 0).draw([1], 64) is None
    assert Sampler(SamplingParams(seed=7, temperature=0), 0).draw([1], 64) is not None
    assert Sampler(SamplingParams(), 0).draw([1], 64) is not None


def test_only_the_first_tokens_may_be_chosen():
    logits = np.arange(128, dtype=np.float32)[None]
    for params in (SamplingParams(temperature=0), SamplingParams(top_k=1)):
        assert kernel(logits, [Sampler(params, 0).draw([1], 70)]) == [69]


def test_patches_of_tokens_that_are_not_there_change_nothing():
    logits = np.zeros((1, 64), np.float32)
    logits[0, 20] = 1
    sampler = Sampler(SamplingParams(temperature=0, logit_bias={40: 9.0, 1 << 40: 1.0}), 0)
    assert kernel(logits, [sampler.draw([1], 30)]) == [20]
