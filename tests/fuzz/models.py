"""GGUF files as values, so that any part of one can be made wrong before its bytes are written."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any

from edgellm.gguf import TensorType, ValueType

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
WIDTHS = {form: struct.calcsize(form) for form in FORMATS.values()}


@dataclass
class Model:
    """A file's metadata, [key, type, value], and its tensors, [name, dims, type, offset].

    The type of a list is [element type].
    `dims` are in the file's order, rows last; an offset of None is where the tensor would stand.
    """

    pairs: list[list[Any]]
    tensors: list[list[Any]]
    version: int = 3
    num_pairs: int | None = None
    num_tensors: int | None = None
    missing: int = 0  # bytes that the data lacks at the end

    def copy(self) -> Model:
        """A copy whose pairs and tensors may be changed; lists inside a pair are shared."""
        tensors = [[name, list(dims), kind, offset] for name, dims, kind, offset in self.tensors]
        return replace(self, pairs=[list(pair) for pair in self.pairs], tensors=tensors)

    def architecture(self) -> str:
        named = (p[2] for p in self.pairs if p[0] == "general.architecture" and isinstance(p[2], str))
        return next(named, "")


@dataclass
class Image:
    """A file's first bytes; zeros up to `size` follow. `fields` are (offset, width) of integers in it."""

    head: bytes
    size: int
    fields: list[tuple[int, int]] = field(default_factory=list)


class Writer:
    """Collects bytes, and where the integers are."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.fields: list[tuple[int, int]] = []

    def number(self, value: int, form: str) -> None:
        width = WIDTHS[form]
        self.fields.append((len(self.raw), width))
        self.raw += (value % 2 ** (8 * width)).to_bytes(width, "little")

    def text(self, value: str | bytes) -> None:
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        self.number(len(raw), "Q")
        self.raw += raw

    def value(self, kind: int, value: Any) -> None:
        if kind == ValueType.STRING:
            self.text(value if isinstance(value, str | bytes) else str(value))
        elif FORMATS[kind] in "fd":
            self.raw += struct.pack("<" + FORMATS[kind], _float(value))
        else:
            whole = isinstance(value, int | float) and abs(value) < 2**65
            self.number(int(value) if whole else 0, FORMATS[kind])

    def typed(self, kind: Any, value: Any) -> None:
        """A type, then the value; [kind] is an array of it, [[kind]] one of arrays."""
        if not isinstance(kind, list):
            self.number(kind, "I")
            self.value(kind, value)
            return
        self.number(ValueType.ARRAY, "I")
        self.array(kind[0], value)

    def array(self, kind: Any, values: Any) -> None:
        values = values if isinstance(values, list) else [values]
        self.number(ValueType.ARRAY if isinstance(kind, list) else kind, "I")
        self.number(len(values), "Q")
        for value in values:
            if isinstance(kind, list):
                self.array(kind[0], value)
            else:
                self.value(kind, value)


def _float(value: Any) -> float:
    try:
        number = float(value)
        struct.pack("<f", number)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number


def write(model: Model) -> Image:
    """The bytes of a model, however little sense it makes."""
    w = Writer()
    w.raw += b"GGUF"
    w.number(model.version, "I")
    w.number(len(model.tensors) if model.num_tensors is None else model.num_tensors, "Q")
    w.number(len(model.pairs) if model.num_pairs is None else model.num_pairs, "Q")
    for key, kind, value in model.pairs:
        w.text(key)
        w.typed(kind, value)
    end = 0
    for name, dims, kind, offset in model.tensors:
        w.text(name)
        w.number(len(dims), "I")
        for dim in dims:
            w.number(dim, "Q")
        w.number(kind, "I")
        w.number(end if offset is None else offset, "Q")
        end += -(-_nbytes(dims, kind) // 32) * 32
    start = -(-len(w.raw) // 32) * 32
    return Image(bytes(w.raw), max(0, start + min(end, 2**30) - model.missing), w.fields)


def _nbytes(dims: list[int], kind: int) -> int:
    size = 1
    for dim in dims:
        size *= max(dim, 0)
    stored = kind in TensorType.__members__.values() and TensorType(kind).stored
    return size // TensorType(kind).block_size * TensorType(kind).type_size if stored else 0
