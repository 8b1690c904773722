"""Independent slow twins: loops so plain that they are evidently right, not derived from what they check."""

from __future__ import annotations

import itertools
import math
import struct

import numpy as np

# -- quant blocks: one loop over blocks, one over columns, from the format's description -----------


def _half(raw: bytes) -> np.float32:
    return np.float32(struct.unpack("<e", raw)[0])


def dequantize_q4_0(row: bytes) -> list[np.float32]:
    """Blocks of 18 bytes: scale, then 16 bytes; column j is the low nibble of byte j, j + 16 the high."""
    values = []
    for start in range(0, len(row), 18):
        d = _half(row[start : start + 2])
        for column in range(32):
            byte = row[start + 2 + column % 16]
            code = byte % 16 if column < 16 else byte // 16
            values.append(d * np.float32(code - 8))
    return values


def dequantize_q4_1(row: bytes) -> list[np.float32]:
    """Blocks of 20 bytes: scale, minimum, then nibbles as in Q4_0."""
    values = []
    for start in range(0, len(row), 20):
        d, m = _half(row[start : start + 2]), _half(row[start + 2 : start + 4])
        for column in range(32):
            byte = row[start + 4 + column % 16]
            code = byte % 16 if column < 16 else byte // 16
            values.append(d * np.float32(code) + m)
    return values


def dequantize_q8_0(row: bytes) -> list[np.float32]:
    """Blocks of 34 bytes: scale, then 32 signed bytes."""
    values = []
    for start in range(0, len(row), 34):
        d = _half(row[start : start + 2])
        for column in range(32):
            code = row[start + 2 + column]
            values.append(d * np.float32(code - 256 if code > 127 else code))
    return values


def dequantize_q6_k(row: bytes) -> list[np.float32]:
    """Blocks of 210 bytes: 128 of low nibbles, 64 of upper bit pairs, 16 signed scales, a float scale."""
    values = []
    for start in range(0, len(row), 210):
        d = _half(row[start + 208 : start + 210])
        for column in range(256):
            half, within = divmod(column, 128)
            run, at = divmod(within, 32)
            low_byte = row[start + half * 64 + (run % 2) * 32 + at]
            low = low_byte % 16 if run < 2 else low_byte // 16
            high = row[start + 128 + half * 32 + at] // 4**run % 4
            scale = row[start + 192 + column // 16]
            scale = scale - 256 if scale > 127 else scale
            values.append(d * np.float32(scale) * np.float32(low + 16 * high - 32))
    return values


# -- sampling: plain lists, plain loops ------------------------------------------------------------


def naive_softmax(logits):
    peak = max(logits)
    weights = [math.exp(x - peak) for x in logits]
    return [w / sum(weights) for w in weights]


def naive_order(logits):
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))


def naive_top_k(logits, k):
    return naive_order(logits)[:k]


def naive_top_p(logits, p):
    probabilities, kept, mass = naive_softmax(logits), [], 0.0
    for i in naive_order(logits):
        kept.append(i)
        mass += probabilities[i]
        if mass >= p:
            break
    return kept


def naive_min_p(logits, p):
    probabilities = naive_softmax(logits)
    return [i for i, x in enumerate(probabilities) if x >= p * max(probabilities)]


def naive_typical(logits, p):
    probabilities, kept, mass = naive_softmax(logits), [], 0.0
    entropy = -sum(x * math.log(x) for x in probabilities if x > 0)
    order = naive_order(logits)
    order.sort(key=lambda i: round(abs(-math.log(probabilities[i]) - entropy), 9))
    for i in order:
        kept.append(i)
        mass += probabilities[i]
        if mass > p:
            break
    return kept


def naive_top_n_sigma(logits, n):
    mean = sum(logits) / len(logits)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logits) / len(logits))
    return [i for i, x in enumerate(logits) if x >= max(logits) - n * deviation]


def naive_xtc(logits, threshold):
    probabilities, order = naive_softmax(logits), naive_order(logits)
    likely = [i for i in order if probabilities[i] >= threshold]
    return [i for i in order if i not in likely[:-1]]


def naive_penalize(logits, history, repeat, presence, frequency):
    out = list(logits)
    for token in set(history):
        out[token] = out[token] * repeat if out[token] <= 0 else out[token] / repeat
        for seen in history:
            if seen == token:
                out[token] -= frequency
        out[token] -= presence
    return out


def naive_stop(stops, text):
    """The text before the stop string that is complete first, and whether there was one."""
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stops if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)], True
    return text, False


def byte_pairs(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """BPE of one word: over and over, join every occurrence of the pair that comes first in `merges`."""
    parts = list(word)
    while True:
        pairs = list(itertools.pairwise(parts))
        known = [merge for merge in merges if merge in pairs]
        if not known:
            return parts
        best = known[0]
        joined: list[str] = []
        i = 0
        while i < len(parts):
            if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                joined.append(parts[i] + parts[i + 1])
                i += 2
            else:
                joined.append(parts[i])
                i += 1
        parts = joined


def scored_pieces(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece BPE: over and over, join the pair that makes the best piece, the leftmost of equals."""
    parts = list(text)
    while True:
        best: tuple[float, int] | None = None
        for i in range(len(parts) - 1):
            score = scores.get(parts[i] + parts[i + 1])
            if score is not None and (best is None or score > best[0]):
                best = (score, i)
        if best is None:
            return parts
        i = best[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


# -- activations, norms, attention -----------------------------------------------------------------


def quantize_activations(x):
    """int8 with a scale for each 16 columns (max |x| / 127, to nearest even), as the values they stand for."""
    out = np.zeros(x.shape, np.float64)
    for t in range(x.shape[0]):
        for start in range(0, x.shape[1], 16):
            group = x[t, start : start + 16].astype(np.float32)
            peak = np.float32(np.abs(group).max())
            if peak == 0:
                continue
            inverse = np.float32(127.0) / peak
            scale = peak / np.float32(127.0)
            for i, value in enumerate(group):
                out[t, start + i] = float(np.rint(np.float32(value * inverse))) * float(scale)
    return out


def naive_rope(x, position, theta, style):
    """One head's vector, turned pair by pair."""
    half = len(x) // 2
    y = [float(v) for v in x]
    for i in range(half):
        angle = position * theta ** (-2.0 * i / len(x))
        a, b = (2 * i, 2 * i + 1) if style == "norm" else (i, i + half)
        c, s = math.cos(angle), math.sin(angle)
        y[a], y[b] = float(x[a]) * c - float(x[b]) * s, float(x[a]) * s + float(x[b]) * c
    return np.array(y)


def naive_attention(q, keys, values, scale, first=0):
    """softmax(q . k * scale) v for one head: q [D], keys and values [n, D], from key number `first` on."""
    scores = [sum(float(a) * float(b) for a, b in zip(q, k, strict=True)) * scale for k in keys[first:]]
    peak = max(scores)
    weights = [math.exp(s - peak) for s in scores]
    total = sum(weights)
    out = np.zeros(values.shape[1])
    for weight, value in zip(weights, values[first:], strict=True):
        out += weight / total * value.astype(np.float64)
    return out
