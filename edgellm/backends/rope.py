"""Tables of rope angles, one row a position, shared by all backends so that they turn by the same numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgellm.graph.ops import RopeConfig

_BLOCK = 512  # rows computed at a time: always whole blocks, so a row never depends on who asked for it


def frequencies(
    config: RopeConfig, factors: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float64], float]:
    """Angle per position of each pair, f64 [dims/2], and the factor on the turned vector (YaRN's attention
    factor).
    """
    pairs = config.dims // 2
    freqs = config.theta ** (-np.arange(pairs, dtype=np.float64) * 2 / config.dims)
    if factors is not None:
        freqs = freqs / factors.astype(np.float64)
    magnitude = config.attn_factor
    inner = freqs * config.scale
    if config.ext_factor:
        mix = _yarn_ramp(config, pairs) * config.ext_factor
        inner = inner * (1 - mix) + freqs * mix
        magnitude *= 1.0 + 0.1 * math.log(1.0 / config.scale)
    return inner, magnitude


def _yarn_ramp(config: RopeConfig, pairs: int) -> NDArray[np.float64]:
    """1 where a pair keeps its plain angle, 0 where it is interpolated, a line between (YaRN, section
    3.2).
    """

    def pair_that_turns(turns: float) -> float:
        context = config.original_context / (turns * 2 * math.pi)
        return config.dims * math.log(context) / (2 * math.log(config.theta))

    low = max(0.0, math.floor(pair_that_turns(config.beta_fast)))
    high = min(float(config.dims - 1), math.ceil(pair_that_turns(config.beta_slow)))
    ramp = (np.arange(pairs) - low) / max(0.001, high - low)
    return 1.0 - np.clip(ramp, 0.0, 1.0)


class RopeTable:
    """Cosines and sines for positions 0 to `length`, computed as they are first needed.

    `rows` is f32 [length, 2, dims/2]: cosines, then sines. Its address never changes.
    """

    def __init__(self, config: RopeConfig, factors: NDArray[np.float32] | None, length: int) -> None:
        self._freqs, self._magnitude = frequencies(config, factors)
        blocks = -(-length // _BLOCK)
        self.rows = np.zeros((blocks * _BLOCK, 2, config.dims // 2), np.float32)
        self._ready = 0

    def ensure(self, length: int) -> None:
        """Make sure that the rows before `length` are filled."""
        while self._ready < length:
            block = np.arange(self._ready, self._ready + _BLOCK, dtype=np.float64)
            angles = block[:, None] * self._freqs
            self.rows[self._ready : self._ready + _BLOCK, 0] = np.cos(angles) * self._magnitude
            self.rows[self._ready : self._ready + _BLOCK, 1] = np.sin(angles) * self._magnitude
            self._ready += _BLOCK
