"""The same model in the forms that files have: one tensor or several, split or not, scaled or not."""

import numpy as np
import pytest
from naive import naive_rope, naive_yarn
from support import nmse, run_backend

from edgellm import models
from edgellm.backends.base import BackendConfig
from edgellm.backends.reference import ReferenceBackend
from edgellm.backends.rope import RopeTable
from edgellm.gguf import open_gguf, write_gguf
from edgellm.graph.ops import RopeConfig

TOKENS = np.random.default_rng(5).integers(0, 48, 20).tolist()
HIDDEN, VOCAB = 32, 48
CONFIG = BackendConfig(kv_type="f32", num_pages=4, num_slots=2)
SIZES = {
    "context_length": 64,
    "embedding_length": HIDDEN,
    "block_count": 1,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-6,
}


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def logits(tmp_path):
    def logits(architecture, settings, tensors):
        path = tmp_path / "model.gguf"
        write_gguf(path, architecture, {f"{architecture}.{k}": v for k, v in settings.items()}, tensors)
        with open_gguf(path) as file:
            return run_backend(ReferenceBackend(models.build(file), file, CONFIG), TOKENS, 7)

    return logits


def matrix(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def ends(rng, *norms):
    """Embeddings, output and the norms of one layer."""
    names = ["output_norm.weight", *(f"blk.0.{norm}.weight" for norm in norms)]
    tensors = {name: np.ones(HIDDEN, np.float32) for name in names}
    return tensors | {
        "token_embd.weight": matrix(rng, VOCAB, HIDDEN),
        "output.weight": matrix(rng, VOCAB, HIDDEN),
    }


def layer(**tensors):
    return {f"blk.0.{name}.weight": value for name, value in tensors.items()}


def expert_layer(rng):
    return layer(
        ffn_gate_inp=matrix(rng, 4, HIDDEN),
        ffn_gate_exps=matrix(rng, 4, 24, HIDDEN),
        ffn_up_exps=matrix(rng, 4, 24, HIDDEN),
        ffn_down_exps=matrix(rng, 4, HIDDEN, 24),
    )


def moe(rng):
    q, k, v = matrix(rng, 32, HIDDEN), matrix(rng, 16, HIDDEN), matrix(rng, 16, HIDDEN)
    attention = layer(attn_q=q, attn_k=k, attn_v=v, attn_output=matrix(rng, HIDDEN, 32))
    return ends(rng, "attn_norm", "ffn_norm") | attention | expert_layer(rng)


MOE = SIZES | {"expert_count": 4, "expert_used_count": 2}


def test_one_projection_for_q_k_and_v(rng, logits):
    split = moe(rng)
    parts = [split[f"blk.0.attn_{x}.weight"] for x in "qkv"]
    whole = {n: t for n, t in split.items() if n not in {f"blk.0.attn_{x}.weight" for x in "qkv"}}
    whole["blk.0.attn_qkv.weight"] = np.concatenate(parts)
    assert nmse(logits("llama", MOE, whole), logits("llama", MOE, split)) < 1e-12


def test_one_tensor_for_gate_and_up(rng, logits):
    split = moe(rng)
    both = dict(split)
    gate, up = (both.pop(f"blk.0.ffn_{x}_exps.weight") for x in ("gate", "up"))
    both["blk.0.ffn_gate_up_exps.weight"] = np.concatenate([gate, up], axis=1)
    assert nmse(logits("qwen3moe", MOE, both), logits("qwen3moe", MOE, split)) < 1e-12


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("expert_weights_norm", False),
        ("expert_weights_scale", 2.5),
        ("expert_gating_func", 2),
        ("expert_used_count", 1),
        ("rope.freq_base", 500.0),
        ("rope.scaling.factor", 4.0),
    ],
)
def test_settings_of_experts_and_rope_count(rng, logits, setting, value):
    tensors = moe(rng)
    assert nmse(logits("qwen3moe", MOE | {setting: value}, tensors), logits("qwen3moe", MOE, tensors)) > 1e-6


@pytest.mark.parametrize(
    ("setting", "value"),
    [("expert_weights_scale", 0.0), ("rope.scaling.factor", 0.0), ("expert_gating_func", 0)],
)
def test_zero_means_not_set(rng, logits, setting, value):
    tensors = moe(rng)
    assert nmse(logits("qwen3moe", MOE | {setting: value}, tensors), logits("qwen3moe", MOE, tensors)) == 0


def test_split_and_unsplit_latent_attention(rng, logits):
    """Absorbing the matrices into queries and results changes nothing but the order of sums."""
    heads, rank, nope, turned, value = 2, 24, 8, 4, 12
    k_up, v_up = matrix(rng, heads, nope, rank), matrix(rng, heads, value, rank)
    common = ends(rng, "attn_norm", "ffn_norm") | layer(
        attn_q=matrix(rng, heads * (nope + turned), HIDDEN),
        attn_kv_a_mqa=matrix(rng, rank + turned, HIDDEN),
        attn_kv_a_norm=np.ones(rank, np.float32),
        attn_output=matrix(rng, HIDDEN, heads * value),
        ffn_gate=matrix(rng, 40, HIDDEN),
        ffn_up=matrix(rng, 40, HIDDEN),
        ffn_down=matrix(rng, HIDDEN, 40),
    )
    split = layer(attn_k_b=np.ascontiguousarray(k_up.transpose(0, 2, 1)), attn_v_b=v_up)
    unsplit = layer(attn_kv_b=np.concatenate([k_up, v_up], axis=1).reshape(-1, rank))
    sizes = SIZES | {"attention.kv_lora_rank": rank, "rope.dimension_count": turned}
    own = {"attention.key_length": nope + turned, "attention.value_length": value}
    latent = {f"{key}_mla": length for key, length in own.items()} | {"attention.key_length": rank + turned}
    a, b = (
        logits("deepseek2", sizes | latent, common | split),
        logits("deepseek2", sizes | own, common | unsplit),
    )
    assert nmse(a, b) < 1e-11


@pytest.mark.parametrize("style", ["norm", "neox"])
def test_linear_scaling_divides_positions(style):
    table = RopeTable(RopeConfig(8, 10000.0, style, scale=0.25), None, 16)
    table.ensure(13)
    ones = naive_rope(np.ones(8), 3, 10000.0, style)
    cos, sin = table.rows[12]
    first = (cos - sin).repeat(2) if style == "norm" else np.concatenate([cos - sin, cos - sin])
    half = slice(0, None, 2) if style == "norm" else slice(0, 4)
    assert np.allclose(first[half], ones[half], atol=1e-6)


@pytest.mark.parametrize("factors", [None, np.linspace(1, 4, 32).astype(np.float32)])
def test_yarn_is_that_of_the_paper(factors):
    config = RopeConfig(64, 10000.0, scale=1 / 8, ext_factor=1.0, original_context=512)
    table = RopeTable(config, factors, 600)
    table.ensure(600)
    for position in (0, 1, 100, 599):
        angles, magnitude = naive_yarn(64, 10000.0, 8.0, 512, position, factors)
        assert np.allclose(table.rows[position, 0], magnitude * np.cos(angles), atol=1e-6)
        assert np.allclose(table.rows[position, 1], magnitude * np.sin(angles), atol=1e-6)
