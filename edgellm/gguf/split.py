"""Models in several files, NAME-00001-of-0000N.gguf: the first has the metadata, each has some of the
tensors.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FormatError, ModelNotFoundError, UsageError, shown
from edgellm.gguf.file import GGUFFile, open_single
from edgellm.gguf.tensors import TensorInfo

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_MAX_FILES = 1024


def open_gguf(path: str | os.PathLike[str]) -> GGUFFile:
    """Map a GGUF file, or all files of a split set of which `path` is the first.

    Raises as `file.open_single` does, for each of them; and FormatError or UsageError where the set does
    not fit together, ModelNotFoundError where one is missing.
    """
    first = open_single(path)
    try:
        count = first.metadata.int("split.count", 1)
        return first if count <= 1 else _open_set(first, count)
    except Exception:
        first.close()
        raise


class SplitFile(GGUFFile):
    """The files of a set as one: the first one's metadata, everybody's tensors."""

    def __init__(self, parts: list[GGUFFile]) -> None:
        self._parts = parts
        self._holder: dict[str, GGUFFile] = {}
        tensors: dict[str, TensorInfo] = {}
        for part in parts:
            for name, info in part.tensors.items():
                if name in tensors:
                    raise FormatError(
                        f"{part.path}: tensor {shown(name)} is in {self._holder[name].path.name}, too"
                    )
                tensors[name], self._holder[name] = info, part
        first = parts[0]
        self.path, self.version, self.alignment = first.path, first.version, first.alignment
        self.metadata, self.tensors = first.metadata, MappingProxyType(tensors)

    @property
    def file_bytes(self) -> int:
        """The size of all files together."""
        return sum(part.file_bytes for part in self._parts)

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, as `GGUFFile.data` gives them."""
        return self._holder.get(name, self._parts[0]).data(name)

    def release(self, name: str) -> None:
        """As `GGUFFile.release`."""
        self._holder[name].release(name)

    def close(self) -> None:
        """Give all maps back."""
        for part in self._parts:
            part.close()


def _open_set(first: GGUFFile, count: int) -> SplitFile:
    if count > _MAX_FILES:
        raise FormatError(f"{first.path}: split.count is {count}; at most {_MAX_FILES} files are possible")
    name = _NAME.fullmatch(first.path.name)
    if name is None or int(name["count"]) != count:
        raise UsageError(
            f"{first.path} is one of {count} files, whose names must end in -00001-of-{count:05}.gguf "
            "and so on"
        )
    number = first.metadata.int("split.no", 0)
    if number != 0:
        raise UsageError(
            f"{first.path} is file {number + 1} of {count}; give the first, {_part(first.path, name, 1)}"
        )
    parts = [first]
    try:
        for i in range(1, count):
            parts.append(_open_part(_part(first.path, name, i + 1), i, count))
        joined = SplitFile(parts)
        wanted = first.metadata.int("split.tensors.count", len(joined.tensors))
        if len(joined.tensors) != wanted:
            raise FormatError(
                f"{first.path}: its {count} files have {len(joined.tensors)} tensors, not {wanted}"
            )
    except Exception:
        for part in parts[1:]:
            part.close()
        raise
    return joined


def _part(first: Path, name: re.Match[str], number: int) -> Path:
    return first.with_name(f"{name['stem']}-{number:05}-of-{name['count']}.gguf")


def _open_part(path: Path, number: int, count: int) -> GGUFFile:
    try:
        part = open_single(path)
    except ModelNotFoundError:
        raise ModelNotFoundError(
            f"{path}, file {number + 1} of {count} of its set, is missing; fetch it, too"
        ) from None
    if part.metadata.int("split.no", -1) != number or part.metadata.int("split.count", -1) != count:
        part.close()
        raise FormatError(
            f"{path} does not say that it is file {number + 1} of {count}; it belongs to another set"
        )
    return part
