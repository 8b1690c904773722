"""Mamba-2: a selective state space, and no attention. Dao and Gu 2024, https://arxiv.org/abs/2405.21060"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import FormatError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph, Value
from edgellm.models import architecture
from edgellm.models.common import num_layers, output_logits, positive, rms_eps


@dataclass(frozen=True)
class StateSpaceSizes:
    """Sizes of one mixer: `num_heads` heads of `inner / num_heads`, sharing `groups` pairs of B and C."""

    inner: int
    num_heads: int
    groups: int
    state: int
    conv_width: int
    eps: float


@architecture("mamba2")
def mamba2(meta: Metadata, g: Builder) -> Graph:
    """A mixer in each layer, added to the residual stream."""
    hidden, sizes = positive(meta, "embedding_length"), state_space_sizes(meta)

    x = g.embed("token_embd", hidden)
    for i in range(num_layers(meta)):
        h = g.rms_norm(x, f"blk.{i}.attn_norm", sizes.eps)
        x = x + g.linear(mixer(g, h, f"blk.{i}", sizes), f"blk.{i}.ssm_out", hidden)

    x = g.rms_norm(g.select_rows(x), "output_norm", sizes.eps)
    return output_logits(meta, g, x)


def state_space_sizes(meta: Metadata) -> StateSpaceSizes:
    """Read the sizes. Raises FormatError where they do not divide."""
    inner, heads = positive(meta, "ssm.inner_size"), positive(meta, "ssm.time_step_rank")
    groups = positive(meta, "ssm.group_count", 1)
    if inner % heads or inner % groups or heads % groups:
        raise FormatError(
            f"{meta.name('ssm.inner_size')} {inner} cannot be cut into {heads} heads of "
            f"{meta.name('ssm.group_count')} {groups} groups; each must divide the one before"
        )
    state, width = positive(meta, "ssm.state_size"), positive(meta, "ssm.conv_kernel")
    return StateSpaceSizes(inner, heads, groups, state, width, rms_eps(meta))


def mixer(g: Builder, h: Value, blk: str, p: StateSpaceSizes) -> Value:
    """The mixer up to its last projection, [T, inner]."""
    shared = p.groups * p.state
    zxbcdt = g.linear(h, f"{blk}.ssm_in", 2 * p.inner + 2 * shared + p.num_heads)
    z, xbc = zxbcdt.slice(0, p.inner), zxbcdt.slice(p.inner, 2 * p.inner + 2 * shared)
    dt = zxbcdt.slice(2 * p.inner + 2 * shared, 2 * p.inner + 2 * shared + p.num_heads)

    kernel = g.weight(f"{blk}.ssm_conv1d", p.inner + 2 * shared, p.conv_width)
    bias = g.optional(f"{blk}.ssm_conv1d.bias", p.inner + 2 * shared)
    xbc = g.activation(g.short_conv(xbc, kernel, bias), "silu")
    x = xbc.slice(0, p.inner).reshape(p.num_heads, p.inner // p.num_heads)
    b = xbc.slice(p.inner, p.inner + shared).reshape(p.groups, p.state)
    c = xbc.slice(p.inner + shared, p.inner + 2 * shared).reshape(p.groups, p.state)
    dt = g.activation(g.add(dt, g.vector(f"{blk}.ssm_dt.bias", p.num_heads)), "softplus")
    # The file holds A itself, which is negative, not the paper's log(-A).
    a, d = g.vector(f"{blk}.ssm_a", p.num_heads), g.vector(f"{blk}.ssm_d", p.num_heads)

    y = g.state_space_scan(x, dt, b, c, a, d).reshape(p.inner)
    y = g.glu(z, y, "silu")
    if g.has(f"{blk}.ssm_norm"):
        y = g.rms_norm(y.reshape(p.groups, p.inner // p.groups), f"{blk}.ssm_norm", p.eps).reshape(p.inner)
    return y
