"""Metadata with types: what a reader of a file wants is an integer, or a clear word about why there is none."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgellm.errors import FormatError
from edgellm.gguf.cursor import shown
from edgellm.gguf.strings import StringArray
from edgellm.gguf.values import LazyNumbers, LazyText

_MAX_COUNT = 1 << 16
_V = TypeVar("_V")


class Metadata(Mapping[str, Any]):
    """The key-value pairs of a file; `prefix` is put before every key that is asked for.

    Values are Python scalars, `str`, read-only NumPy arrays (arrays of numbers), `StringArray`, or lists of these
    (nested arrays). The typed getters raise FormatError, with the key, the type found and the type wanted, for a
    value of another type, and for an absent one unless a default is given.
    """

    def __init__(self, values: dict[str, Any], path: Path, prefix: str = "") -> None:
        self._values = values
        self._path = path
        self.prefix = prefix

    def under(self, prefix: str) -> Metadata:
        """The pairs whose keys begin with `prefix`, without it."""
        return Metadata(self._values, self._path, self.prefix + prefix)

    def name(self, key: str) -> str:
        """The full key, as it stands in the file."""
        return self.prefix + key

    # -- a mapping ----------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        full = self.name(key)
        value = _load(self._values[full])
        self._values[full] = value
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.name(key) in self._values

    def __iter__(self) -> Iterator[str]:
        return (key[len(self.prefix) :] for key in self._values if key.startswith(self.prefix))

    def __len__(self) -> builtins.int:
        return sum(1 for _ in self)

    # -- one value ----------------------------------------------------------------------------------------------

    def int(self, key: str, default: builtins.int | None = None) -> builtins.int:
        """An integer of any width."""
        return self._typed(key, default, builtins.int, "an integer")

    def float(self, key: str, default: builtins.float | None = None) -> builtins.float:
        """A float; an integer will do."""
        value: builtins.float = self._typed(key, default, (builtins.float, builtins.int), "a float")
        return builtins.float(value)

    def bool(self, key: str, default: builtins.bool | None = None) -> builtins.bool:
        """A bool; 0 or 1 as an integer is not one."""
        return self._typed(key, default, builtins.bool, "a bool")

    def str(self, key: str, default: builtins.str | None = None) -> builtins.str:
        """A string."""
        return self._typed(key, default, builtins.str, "a string")

    # -- many values --------------------------------------------------------------------------------------------

    def strings(self, key: str, default: list[builtins.str] | None = None) -> list[builtins.str]:
        """An array of strings."""
        if key not in self and default is not None:
            return default
        value = self._present(key, "an array of strings")
        if isinstance(value, np.ndarray) and value.size == 0:
            return []  # writers without a type for an empty array choose any
        if not isinstance(value, StringArray):
            raise self._wrong(key, value, "an array of strings")
        return value.tolist()

    def get_array(self, key: str, count: builtins.int | None = None, default: Any = None) -> list[Any]:
        """One Python number (or bool) for each of `count` layers; a value that is not an array counts for every layer.

        `count` is "block_count" unless given; `default` is such a value, or a list of them. Raises FormatError for an
        array of any other length.
        """
        count = self.int("block_count") if count is None else count
        if not 0 <= count <= _MAX_COUNT:
            raise FormatError(
                f"{self._path}: {self.name(key)} is wanted {count} times; at most {_MAX_COUNT} is possible"
            )
        value = (
            default if key not in self and default is not None else self._present(key, "a number or an array")
        )
        if isinstance(value, builtins.bool | builtins.int | builtins.float):
            return [value] * count
        if not isinstance(value, np.ndarray | list):
            raise self._wrong(key, value, "a number or an array of numbers")
        if len(value) != count:
            raise FormatError(f"{self._path}: {self.name(key)} has {len(value)} entries; {count} are needed")
        return list(value) if isinstance(value, list) else value.tolist()

    def ints(self, key: str, count: builtins.int | None = None, default: Any = None) -> list[builtins.int]:
        """`get_array` whose entries must be integers."""
        return self._all(key, self.get_array(key, count, default), builtins.int, "integers")

    def floats(
        self, key: str, count: builtins.int | None = None, default: Any = None
    ) -> list[builtins.float]:
        """`get_array` whose entries must be numbers."""
        values = self._all(key, self.get_array(key, count, default), (builtins.float, builtins.int), "floats")
        return [builtins.float(value) for value in values]

    def bools(self, key: str, count: builtins.int | None = None, default: Any = None) -> list[builtins.bool]:
        """`get_array` whose entries must be bools."""
        return self._all(key, self.get_array(key, count, default), builtins.bool, "bools")

    # -- errors -------------------------------------------------------------------------------------------------

    def _typed(self, key: builtins.str, default: _V | None, types: Any, wanted: builtins.str) -> _V:
        if key not in self and default is not None:
            return default
        value = self._present(key, wanted)
        if not _is(value, types):
            raise self._wrong(key, value, wanted)
        return value  # type: ignore[no-any-return]

    def _all(self, key: builtins.str, values: list[Any], types: Any, wanted: builtins.str) -> list[Any]:
        for value in values:
            if not _is(value, types):
                raise self._wrong(key, value, f"{wanted} only")
        return values

    def _present(self, key: builtins.str, wanted: builtins.str) -> Any:
        if key not in self:
            raise FormatError(
                f"{self._path}: metadata key {shown(self.name(key))} is missing; {wanted} is needed"
            )
        return self[key]

    def _wrong(self, key: builtins.str, value: Any, wanted: builtins.str) -> FormatError:
        return FormatError(
            f"{self._path}: metadata {shown(self.name(key))} is {_kind(value)}; {wanted} is needed"
        )


def _load(value: Any) -> Any:
    if isinstance(value, LazyText | LazyNumbers):
        return value.load()
    if isinstance(value, list):
        return [_load(item) for item in value]
    return value


def _is(value: Any, types: Any) -> builtins.bool:
    # Python's bool is an int, the format's is not.
    return isinstance(value, types) and (types is builtins.bool or not isinstance(value, builtins.bool))


def _kind(value: Any) -> builtins.str:
    """What a value is, for a message."""
    if isinstance(value, np.ndarray):
        return f"an array of {len(value)} {value.dtype.name}"
    if isinstance(value, StringArray):
        return f"an array of {len(value)} strings"
    if isinstance(value, builtins.str):
        return f"the string {shown(value, 40)}"
    return (
        f"an array of {len(value)} arrays"
        if isinstance(value, list)
        else f"the {type(value).__name__} {value}"
    )
