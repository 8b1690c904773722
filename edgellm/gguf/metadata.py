"""Metadata with types: what a reader wants is an integer, or a clear word about why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from edgellm.errors import FormatError, shown
from edgellm.gguf.strings import StringArray
from edgellm.gguf.values import LazyNumbers, LazyText

_MAX_COUNT = 1 << 16
_V = TypeVar("_V")
# Inside the class, `int` and `str` are its getters.
_Int: TypeAlias = int
_Float: TypeAlias = float
_Bool: TypeAlias = bool
_Str: TypeAlias = str


class Metadata(Mapping[str, Any]):
    """The key-value pairs of a file; `prefix` is put before every key that is asked for.

    Values are Python scalars, `str`, read-only NumPy arrays (arrays of numbers), `StringArray`, or lists of
    these (nested arrays). The typed getters raise FormatError, with the key, the type found and the type
    wanted, for a value of another type, and for an absent one unless a default is given.
    """

    def __init__(self, values: dict[str, Any], path: Path, prefix: str = "") -> None:
        self._values = values
        self._path = path
        self.prefix = prefix

    def under(self, prefix: str) -> Metadata:
        """The pairs whose keys begin with `prefix`, without it."""
        return Metadata(self._values, self._path, self.prefix + prefix)

    def name(self, key: _Str) -> str:
        """The full key, as it stands in the file."""
        return self.prefix + key

    # -- a mapping ---------------------------------------------------------------------------------

    def __getitem__(self, key: _Str) -> Any:
        full = self.name(key)
        value = _load(self._values[full])
        self._values[full] = value
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.name(key) in self._values

    def __iter__(self) -> Iterator[str]:
        return (key[len(self.prefix) :] for key in self._values if key.startswith(self.prefix))

    def __len__(self) -> _Int:
        return sum(1 for _ in self)

    # -- one value ---------------------------------------------------------------------------------

    def int(self, key: _Str, default: _Int | None = None) -> _Int:
        """An integer of any width."""
        return self._typed(key, default, _Int, "an integer")

    def float(self, key: _Str, default: _Float | None = None) -> _Float:
        """A float; an integer will do."""
        value: _Float = self._typed(key, default, (_Float, _Int), "a float")
        return _Float(value)

    def bool(self, key: _Str, default: _Bool | None = None) -> _Bool:
        """A bool; 0 or 1 as an integer is not one."""
        return self._typed(key, default, _Bool, "a bool")

    def str(self, key: _Str, default: _Str | None = None) -> _Str:
        """A string."""
        return self._typed(key, default, _Str, "a string")

    # -- many values -------------------------------------------------------------------------------

    def get_array(self, key: _Str, count: _Int | None = None, default: Any = None) -> list[Any]:
        """One Python number (or bool) for each of `count` layers; a single value counts for every layer.

        `count` is "block_count" unless given; `default` is such a value, or a list of them. Raises
        FormatError for an array of any other length.
        """
        count = self.int("block_count") if count is None else count
        if not 0 <= count <= _MAX_COUNT:
            raise FormatError(
                f"{self._path}: {self.name(key)} is wanted {count} times; at most {_MAX_COUNT} is possible"
            )
        value = (
            default if key not in self and default is not None else self._present(key, "a number or an array")
        )
        if isinstance(value, _Bool | _Int | _Float):
            return [value] * count
        if not isinstance(value, np.ndarray | list):
            raise self._wrong(key, value, "a number or an array of numbers")
        if len(value) != count:
            raise FormatError(f"{self._path}: {self.name(key)} has {len(value)} entries; {count} are needed")
        entries = list(value) if isinstance(value, list) else value.tolist()
        if not all(isinstance(entry, _Bool | _Int | _Float) for entry in entries):
            raise self._wrong(key, value, "a number or an array of numbers")
        return entries

    def ints(self, key: _Str, count: _Int | None = None, default: Any = None) -> list[_Int]:
        """`get_array` whose entries must be integers."""
        values = self.get_array(key, count, default)
        for value in values:
            if not _is(value, _Int):
                raise self._wrong(key, self.get(key, value), "an integer for each entry")
        return values

    # -- errors ------------------------------------------------------------------------------------

    def _typed(self, key: _Str, default: _V | None, types: Any, wanted: _Str) -> _V:
        if key not in self and default is not None:
            return default
        value = self._present(key, wanted)
        if not _is(value, types):
            raise self._wrong(key, value, wanted)
        return value  # type: ignore[no-any-return]

    def _present(self, key: _Str, wanted: _Str) -> Any:
        if key not in self:
            raise FormatError(
                f"{self._path}: metadata key {shown(self.name(key))} is missing; {wanted} is needed"
            )
        return self[key]

    def _wrong(self, key: _Str, value: Any, wanted: _Str) -> FormatError:
        return FormatError(
            f"{self._path}: metadata {shown(self.name(key))} is {_kind(value)}; {wanted} is needed"
        )


def _load(value: Any) -> Any:
    if isinstance(value, LazyText | LazyNumbers):
        return value.load()
    if isinstance(value, list):
        return [_load(item) for item in value]
    return value


def _is(value: Any, types: Any) -> _Bool:
    # Python's bool is an int, the format's is not.
    return isinstance(value, types) and (types is _Bool or not isinstance(value, _Bool))


def _kind(value: Any) -> _Str:
    """What a value is, for a message."""
    if isinstance(value, np.ndarray):
        return f"an array of {len(value)} {value.dtype.name}"
    if isinstance(value, StringArray):
        return f"an array of {len(value)} strings"
    if isinstance(value, _Str):
        return f"the string {shown(value, 40)}"
    return (
        f"an array of {len(value)} arrays"
        if isinstance(value, list)
        else f"the {type(value).__name__} {value}"
    )
