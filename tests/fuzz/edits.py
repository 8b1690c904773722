"""Ways to be wrong, before the bytes are written."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from edgellm.gguf import TensorType, ValueType
from fuzz.models import FORMATS, Model
from fuzz.seeds import seeds

EDGES = [0, 1, 2, 3, 7, 31, 32, 33, 127, 128, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
EDGES += [
    2**32,
    2**40,
    2**53,
    2**61,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 2,
    2**64 - 1,
    -1,
    -2,
    -(2**31),
    -(2**63),
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    "",
    "\0",
    "gpt2",
    "llama",
    "bert",
    "é",
    "\ufdd0absent",
    "<|im_end|>",
    "</s>",
    "<unk>",
    "a b",
    " ",
    "▁",
]
TEXTS += ["<0x00>", "<0xZZ>", "x" * 5000, "{{ 1 }}", "{% for x in y %}", "{{ 9**9**9 }}", "yarn", "longrope"]


def some_value(rng: Random) -> tuple[Any, Any]:
    """A type, and a value of it."""
    roll = rng.random()
    if roll < 0.5:
        value = rng.choice(EDGES)
        fitting = [k for k in (0, 1, 2, 3, 4, 5, 10, 11) if _fits(value, FORMATS[k])]
        return ValueType(rng.choice(fitting)), value
    if roll < 0.65:
        return ValueType.FLOAT32, rng.choice(FLOATS)
    if roll < 0.75:
        return ValueType.STRING, rng.choice(TEXTS)
    if roll < 0.8:
        return ValueType.BOOL, rng.randint(0, 2)
    kind, value = some_value(rng)
    while isinstance(kind, list):
        kind, value = some_value(rng)
    count = rng.choice([0, 1, 2, 4, 5, 300])
    return ([kind], [value] * count) if rng.random() < 0.7 else ([[kind]], [[value] * 2] * count)


def _fits(value: int, form: str) -> bool:
    bits = 8 * struct.calcsize(form)
    return 0 <= value < 2**bits if form.isupper() else -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def set_value(model: Model, rng: Random) -> None:
    pair = rng.choice(model.pairs)
    pair[1], pair[2] = some_value(rng)


def set_setting(model: Model, rng: Random) -> None:
    """A number of the architecture or the tokenizer becomes another."""
    numbers = [p for p in model.pairs if isinstance(p[2], int | float)]
    if numbers:
        pair = rng.choice(numbers)
        if isinstance(pair[2], int) and rng.random() < 0.5:
            pair[2] = max(0, pair[2] + rng.choice([-1, 1, pair[2], -pair[2] // 2]))
        else:
            pair[1], pair[2] = some_value(rng)


def drop_pair(model: Model, rng: Random) -> None:
    del model.pairs[rng.randrange(len(model.pairs))]


def repeat_pair(model: Model, rng: Random) -> None:
    model.pairs.insert(rng.randrange(len(model.pairs)), list(rng.choice(model.pairs)))


def add_pair(model: Model, rng: Random) -> None:
    """A key that another seed has."""
    key, kind, value = rng.choice(rng.choice(seeds()).pairs)
    prefix, _, name = key.partition(".")
    if prefix not in ("general", "tokenizer"):
        key = f"{model.architecture()}.{name}"
    if rng.random() < 0.5:
        kind, value = some_value(rng)
    model.pairs = [p for p in model.pairs if p[0] != key] + [[key, kind, value]]


def set_architecture(model: Model, rng: Random) -> None:
    """The same settings under another architecture's name."""
    names = dict.fromkeys(m.architecture() for m in seeds())  # a set's order is another in each process
    old, new = model.architecture(), rng.choice([*names, rng.choice(TEXTS)])
    for pair in model.pairs:
        if pair[0] == "general.architecture":
            pair[2] = new
        elif old and isinstance(pair[0], str) and pair[0].startswith(f"{old}."):
            pair[0] = new + pair[0][len(old) :]


def edit_array(model: Model, rng: Random) -> None:
    """Entries too many, too few, or of another kind."""
    arrays = [p for p in model.pairs if isinstance(p[1], list) and p[2]]
    if not arrays:
        return
    pair = rng.choice(arrays)
    values = pair[2] = list(pair[2])
    at, how = rng.randrange(len(values)), rng.randrange(6)
    if how == 0:
        del values[at:]
    elif how == 1:
        values += values[: rng.choice([1, 2, 200])]
    elif how == 2:
        values[at] = rng.choice(TEXTS if pair[1] == [ValueType.STRING] else EDGES)
    elif how == 3:
        values[at] = values[0]
    elif how == 4:
        rng.shuffle(values)
    else:
        kind, _ = some_value(rng)
        pair[1] = kind if isinstance(kind, list) and not isinstance(kind[0], list) else [ValueType.INT64]


def edit_text(model: Model, rng: Random) -> None:
    """Bytes that are no UTF-8, or nearly another word, in a string or in an array of strings."""
    texts = [p for p in model.pairs if p[1] == ValueType.STRING or (p[1] == [ValueType.STRING] and p[2])]
    if texts:
        pair = rng.choice(texts)
        bad = rng.choice([b"\xff", b"\xed\xa0\x80", b"\xf0\x9f", "é".encode("latin-1"), b"\0", b"x" * 300])
        if isinstance(pair[1], list):
            pair[2] = list(pair[2])
            pair[2][rng.randrange(len(pair[2]))] = bad
        else:
            pair[2] = bad


def set_key(model: Model, rng: Random) -> None:
    rng.choice(model.pairs)[0] = rng.choice([*TEXTS, "general.alignment", "split.count", "split.no", b"\xff"])


def set_alignment(model: Model, rng: Random) -> None:
    model.pairs.append(["general.alignment", *some_value(rng)])


def set_dim(model: Model, rng: Random) -> None:
    if model.tensors and (dims := rng.choice(model.tensors)[1]):
        i = rng.randrange(len(dims))
        dims[i] = rng.choice([*EDGES, dims[i] * 2, dims[i] // 2, dims[i] + 1])


def set_rank(model: Model, rng: Random) -> None:
    if model.tensors:
        tensor = rng.choice(model.tensors)
        tensor[1] = rng.choice([[], [*tensor[1], 1], tensor[1][:1], tensor[1][::-1], [1] * 5, [2] * 4])


def set_type(model: Model, rng: Random) -> None:
    if model.tensors:
        rng.choice(model.tensors)[2] = rng.choice([*map(int, TensorType), 77, 2**31, 2**32 - 1])


def set_offset(model: Model, rng: Random) -> None:
    if model.tensors:
        rng.choice(model.tensors)[3] = rng.choice([*EDGES, 32 * rng.randrange(2000)]) % 2**64


def drop_tensor(model: Model, rng: Random) -> None:
    if model.tensors:
        del model.tensors[rng.randrange(len(model.tensors))]


def repeat_tensor(model: Model, rng: Random) -> None:
    if model.tensors:
        name, dims, kind, offset = rng.choice(model.tensors)
        model.tensors.append([name, list(dims), kind, offset])


def rename_tensor(model: Model, rng: Random) -> None:
    if model.tensors:
        a, b = rng.choice(model.tensors), rng.choice(model.tensors)
        a[0], b[0] = (b[0], a[0]) if rng.random() < 0.6 else (rng.choice([*TEXTS, b"\xff"]), b[0])


def set_counts(model: Model, rng: Random) -> None:
    if rng.random() < 0.5:
        model.num_pairs = rng.choice([*EDGES, len(model.pairs) - 1, len(model.pairs) + 1]) % 2**64
    else:
        model.num_tensors = rng.choice([*EDGES, len(model.tensors) - 1, len(model.tensors) + 1]) % 2**64


def set_version(model: Model, rng: Random) -> None:
    model.version = rng.choice(EDGES) % 2**32


def set_missing(model: Model, rng: Random) -> None:
    model.missing = rng.choice([1, 31, 32, 4096, 10**6])


# Those that a file survives being opened after are listed more often: they reach what comes later.
SHALLOW = [drop_pair, repeat_pair, edit_text, set_key, set_alignment, set_rank, set_type, set_offset]
SHALLOW += [repeat_tensor, set_counts, set_version, set_missing, drop_tensor, set_dim, set_value]
DEEP = [set_setting, set_setting, set_setting, add_pair, add_pair, edit_array, edit_array, edit_array]
DEEP += [set_architecture, rename_tensor, set_value, drop_pair, drop_tensor]
EDITS = SHALLOW + DEEP * 3


def edited(model: Model, rng: Random) -> Model:
    """A copy with some edits."""
    made = model.copy()
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        if made.pairs:
            rng.choice(EDITS)(made, rng)
    return made
