"""The ops: each a frozen dataclass whose fields are its constants.

`T` below stands for any row count. Inputs come first, then weights after a bar; `?` marks an optional weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ActivationKind = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "softplus", "tanh"]
Gating = Literal["softmax", "sigmoid", "softmax_weight"]


@dataclass(frozen=True)
class Op:
    """The root of all ops."""


@dataclass(frozen=True)
class Embed(Op):
    """`| table [vocab, D]` -> [T, D]: the rows of the step's token ids (or positions, or zeros)."""

    of: Literal["tokens", "positions", "token_types"] = "tokens"


@dataclass(frozen=True)
class MatMul(Op):
    """`x [T, K] | weight [N, K], bias? [N]` -> x @ weight.T + bias, [T, N]."""


@dataclass(frozen=True)
class HeadMatMul(Op):
    """`x [T, H, K] | weight [H, N, K]` -> [T, H, N]: each head through its own matrix, weight[h] @ x[h]."""


@dataclass(frozen=True)
class RepeatHeads(Op):
    """`x [T, H, D]` -> [T, H * times, D]: each head `times` times, or (`tile`) all heads over and over."""

    times: int
    tile: bool = False


@dataclass(frozen=True)
class RMSNorm(Op):
    """`x [..., D] | weight? [D] or [G, D]` -> x / sqrt(mean(x^2) + eps) * weight, over the last axis.

    A weight [G, D] is for x [T, G, D].

    Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
    """

    eps: float


@dataclass(frozen=True)
class LayerNorm(Op):
    """`x [..., D] | weight? [D], bias? [D]` -> (x - mean) / sqrt(var + eps) * weight + bias."""

    eps: float


@dataclass(frozen=True)
class L2Norm(Op):
    """`x [..., D]` -> x / max(sqrt(sum(x^2)), eps), over the last axis."""

    eps: float


@dataclass(frozen=True)
class RopeConfig:
    """How positions become angles. Su et al. 2021, https://arxiv.org/abs/2104.09864

    `style` "norm" turns neighbouring pairs (2i, 2i+1), "neox" turns (i, i + dims/2).
    `scale` multiplies positions (linear scaling); YaRN (https://arxiv.org/abs/2309.00071) blends
    interpolated and plain angles between `beta_slow` and `beta_fast` turns when `ext_factor` is not 0.
    """

    dims: int
    theta: float
    style: Literal["norm", "neox"] = "norm"
    scale: float = 1.0
    ext_factor: float = 0.0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    original_context: int = 0


@dataclass(frozen=True)
class Rope(Op):
    """`x [T, H, D] | factors? [dims/2]` -> the first `dims` of each head turned by its token's position.

    `factors` divide the frequencies (Llama 3 and LongRoPE files carry them).
    """

    config: RopeConfig


@dataclass(frozen=True)
class Attention(Op):
    """`q [T, H, Dk], k [T, Hkv, Dk], v [T, Hkv, Dv] | sinks? [H]` -> [T, H, Dv].

    Keys and values of the step join cache `cache` first; then each row attends to its own sequence, to
    positions up to its own (`causal`) and, with `window` w, no further back than w - 1:
    softmax(q.k * scale) v, where `softcap` c bends scores to c tanh(s/c), and a sink is one more score
    without a value.
    Without v the values are the first `value_dim` columns of the keys (latent attention).
    When not causal, a sequence's tokens all come in one step, and nothing is read from the cache.
    """

    cache: int
    scale: float
    value_dim: int
    causal: bool = True
    window: int = 0
    softcap: float = 0.0


@dataclass(frozen=True)
class Activation(Op):
    """`x` -> f(x), element by element; relu2 is max(x, 0)^2, gelu_tanh the usual approximation of gelu."""

    kind: ActivationKind


@dataclass(frozen=True)
class Glu(Op):
    """`gate [T, N], up [T, N]` -> f(gate) * up. Shazeer 2020, https://arxiv.org/abs/2002.05202"""

    kind: ActivationKind


@dataclass(frozen=True)
class Add(Op):
    """`a, b | weight?` -> a + b (or a + weight), b broadcast over a's trailing axes."""


@dataclass(frozen=True)
class Mul(Op):
    """`a, b | weight?` -> a * b (or a * weight), b broadcast over a's trailing axes."""


@dataclass(frozen=True)
class Scale(Op):
    """`x` -> x * factor."""

    factor: float


@dataclass(frozen=True)
class Softcap(Op):
    """`x` -> cap * tanh(x / cap)."""

    cap: float


@dataclass(frozen=True)
class Reshape(Op):
    """`x` -> the same rows, each in another shape."""


@dataclass(frozen=True)
class Slice(Op):
    """`x [..., N]` -> [..., start:stop]."""

    start: int
    stop: int


@dataclass(frozen=True)
class Concat(Op):
    """`x [..., N1], y [..., N2], ...` -> [..., N1 + N2 + ...]."""


@dataclass(frozen=True)
class Route(Op):
    """`scores [T, E] | selection_bias? [E]` -> ids [T, k] i32 in rank order, weights [T, k].

    The gating turns scores into probabilities; the k largest (of probability + selection_bias; ties to the
    lower id) are taken. `softmax_weight` chooses by raw score and takes the softmax over the chosen ones.
    With `groups` g > 1 the experts stand in g groups of equal size, and only those of the `groups_used`
    groups whose two best sum highest may be chosen (DeepSeek-V3, https://arxiv.org/abs/2412.19437).
    `normalize` makes the weights of a token sum to 1 (a sum below 2^-14 counts as that much); `scale`
    multiplies them at the end.
    """

    k: int
    gating: Gating = "softmax"
    normalize: bool = True
    scale: float = 1.0
    groups: int = 1
    groups_used: int = 1


@dataclass(frozen=True)
class ExpertMatMul(Op):
    """`x [T, K] or [T, k, K], ids [T, k] | weight [E, N, K], bias? [E, N]` -> [T, k, N], by expert."""


@dataclass(frozen=True)
class ExpertSum(Op):
    """`x [T, k, N], weights [T, k]` -> the weighted sum over k, in rank order, [T, N]."""


@dataclass(frozen=True)
class ShortConv(Op):
    """`x [T, C] | weight [C, W], bias? [C]` -> causal depthwise convolution over time, [T, C].

    State `state`, [W - 1, C], holds the sequence's last inputs.
    """

    state: int


@dataclass(frozen=True)
class DeltaRule(Op):
    """`q [T, H, Dk], k [T, H, Dk], v [T, H, Dv], decay [T, H], beta [T, H]` -> [T, H, Dv].

    Gated delta rule, token by token over state `state` = M [H, Dk, Dv]:
    M <- exp(decay) M;  M <- M + beta k (v - k^T M);  y = q^T M * scale.
    Yang et al. 2024, https://arxiv.org/abs/2412.06464
    """

    state: int
    scale: float


@dataclass(frozen=True)
class StateSpaceScan(Op):
    """`x [T, H, P], dt [T, H], b [T, G, N], c [T, G, N] | a [H], d [H]` -> [T, H, P].

    Mamba-2, token by token over state `state` = M [H, P, N]: M <- exp(dt a) M + (dt x) b^T;  y = M c + d x,
    where dt is already positive and head h reads group h * G // H. Dao and Gu 2024, https://arxiv.org/abs/2405.21060
    """

    state: int


@dataclass(frozen=True)
class SelectRows(Op):
    """`x [T, D]` -> the step's output rows, [O, D]."""


@dataclass(frozen=True)
class Pool(Op):
    """`x [T, D]` -> one row for each sequence, [S, D]: its mean, or its first or last token."""

    kind: Literal["mean", "first", "last"]
