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
    """int8, as the values they stand for: 32 columns have a scale, and 16 of them may have it divided by a
    power of two, the first up to 2^4, the last up to 2^8. Rounded at max |x| / 127, then the scale fitted.
    """
    out = np.zeros(x.shape, np.float64)
    for t in range(x.shape[0]):
        for start in range(0, x.shape[1], 32):
            block = x[t, start : start + 32].astype(np.float32)
            peak = np.float32(np.abs(block).max())
            if peak == 0:
                continue
            inverse, steps = np.float32(127.0) / peak, []
            for group, most in ((block[:16], 4), (block[16:], 8)):
                below = next(n for n in range(most, -1, -1) if np.abs(group).max() <= peak / 2**n)
                steps += [2.0**-below] * 16
            codes = [
                step * float(np.rint(np.float32(value * inverse / np.float32(step))))
                for value, step in zip(block, steps, strict=True)
            ]
            # The scale that fits these codes best: least squares.
            scale = sum(float(v) * c for v, c in zip(block, codes, strict=True)) / sum(c * c for c in codes)
            out[t, start : start + 32] = [c * scale for c in codes]
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


def naive_yarn(dims, theta, factor, context, position, factors=None, fast=32.0, slow=1.0):
    """Angles of the pairs at a position, and the factor on what they turn. YaRN, sections 3.2 to 3.4."""
    angles = []
    low = max(0, math.floor(dims * math.log(context / (fast * 2 * math.pi)) / (2 * math.log(theta))))
    high = min(dims - 1, math.ceil(dims * math.log(context / (slow * 2 * math.pi)) / (2 * math.log(theta))))
    for i in range(dims // 2):
        plain = position * theta ** (-2.0 * i / dims) / (1.0 if factors is None else float(factors[i]))
        interpolated = min(1.0, max(0.0, (i - low) / max(high - low, 0.001)))
        angles.append(plain / factor * interpolated + plain * (1.0 - interpolated))
    return np.array(angles), 0.1 * math.log(factor) + 1.0


# -- layers with a state, experts ----------------------------------------------------------------------------


def naive_short_conv(x, weight, bias):
    """x [n, C], weight [C, W]: each channel is a sum over its own last W inputs, the oldest first."""
    out = np.zeros(x.shape)
    width = weight.shape[1]
    for t in range(x.shape[0]):
        for c in range(x.shape[1]):
            total = float(bias[c])
            for w in range(width):
                source = t - (width - 1) + w
                if source >= 0:
                    total += float(weight[c, w]) * float(x[source, c])
            out[t, c] = total
    return out


def naive_delta_rule(q, k, v, decay, beta, scale):
    """One head: q and k [n, Dk], v [n, Dv], decay and beta [n]; the memory answers keys with values."""
    memory = np.zeros((k.shape[1], v.shape[1]))
    out = []
    for t in range(len(q)):
        memory *= math.exp(decay[t])
        answer = memory.T @ k[t]
        memory += beta[t] * np.outer(k[t], v[t] - answer)
        out.append(memory.T @ q[t] * scale)
    return np.array(out)


def naive_state_space(x, dt, b, c, a, d):
    """One head: x [n, P], dt [n], b and c [n, N], a and d numbers."""
    state = np.zeros((x.shape[1], b.shape[1]))
    out = []
    for t in range(len(x)):
        state = math.exp(dt[t] * a) * state + dt[t] * np.outer(x[t], b[t])
        out.append(state @ c[t] + d * x[t])
    return np.array(out)


def naive_route(scores, k, gating, normalize, scale, bias=None, groups=1, groups_used=1):
    """One token: ids and weights of its experts."""
    odds = [math.exp(s - max(scores)) for s in scores]
    p = [1 / (1 + math.exp(-s)) for s in scores] if gating == "sigmoid" else [o / sum(odds) for o in odds]
    p = list(scores) if gating == "softmax_weight" else p
    merit = [p[i] + (bias[i] if bias is not None else 0.0) for i in range(len(p))]
    size = len(p) // groups
    best_of = [sum(sorted(merit[g * size : (g + 1) * size])[-2:]) for g in range(groups)]
    allowed = sorted(range(groups), key=lambda g: -best_of[g])[:groups_used]
    ids = sorted((i for i in range(len(p)) if i // size in allowed), key=lambda i: (-merit[i], i))[:k]
    weights = [p[i] for i in ids]
    weights = naive_softmax(weights) if gating == "softmax_weight" else weights
    if normalize:
        weights = [w / sum(weights) for w in weights]
    return ids, [w * scale for w in weights]


# -- a whole encoder -----------------------------------------------------------------------------------------


def naive_layer_norm(x, weight, bias, eps=1e-12):
    mean = sum(x) / len(x)
    spread = sum((v - mean) ** 2 for v in x) / len(x)
    return np.array([(v - mean) / math.sqrt(spread + eps) for v in x]) * weight + bias


def naive_bert(tensors, tokens, heads, layers, pooling):
    """The vector of one text: every token looks at all the others, norms come after each part."""
    w = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    size = w["token_embd.weight"].shape[1] // heads

    def dense(x, name):
        return w[name + ".weight"] @ x + w[name + ".bias"]

    def norm(x, name):
        return naive_layer_norm(x, w[name + ".weight"], w[name + ".bias"])

    rows = []
    for position, token in enumerate(tokens):
        row = w["token_embd.weight"][token] + w["position_embd.weight"][position]
        row = row + w["token_types.weight"][0] if "token_types.weight" in w else row
        rows.append(norm(row, "token_embd_norm"))
    for i in range(layers):
        q, k, v = (np.array([dense(x, f"blk.{i}.attn_{part}") for x in rows]) for part in "qkv")
        after = []
        for t, x in enumerate(rows):
            seen = np.concatenate(
                [
                    naive_attention(q[t, cut], k[:, cut], v[:, cut], size**-0.5)
                    for cut in (slice(h * size, (h + 1) * size) for h in range(heads))
                ]
            )
            x = norm(x + dense(seen, f"blk.{i}.attn_output"), f"blk.{i}.attn_output_norm")
            inner = dense(x, f"blk.{i}.ffn_up")
            inner = np.array([0.5 * u * (1 + math.erf(u / math.sqrt(2))) for u in inner])
            after.append(norm(x + dense(inner, f"blk.{i}.ffn_down"), f"blk.{i}.layer_output_norm"))
        rows = after
    return {"mean": sum(rows) / len(rows), "first": rows[0], "last": rows[-1]}[pooling]
