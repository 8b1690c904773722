"""An open GGUF file. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import EdgeLLMError, FormatError, ModelNotFoundError, UnsupportedError, UsageError, shown
from edgellm.gguf.cursor import Cursor
from edgellm.gguf.metadata import Metadata
from edgellm.gguf.tensors import MIN_ENTRY_BYTES, TensorInfo, check_extents, read_tensor_info
from edgellm.gguf.values import read_value

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MIN_PAIR_BYTES = 13  # key length, type, one byte of value
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20

# What people give instead of a model, by how it begins.
_IMPOSTORS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model itself; fetch it with `git lfs pull`"),
    (
        b"<",
        "is a web page or XML, not a model; download the file itself (on Hugging Face: the `resolve` link)",
    ),
    (
        b"PK\x03\x04",
        "is a ZIP archive (perhaps a PyTorch checkpoint), not a GGUF file; convert it to GGUF first",
    ),
    (b"lmgg", "is in the old GGML format; use a GGUF file of the same model"),
    (b"fmgg", "is in the old GGMF format; use a GGUF file of the same model"),
    (b"tjgg", "is in the old GGJT format; use a GGUF file of the same model"),
)


class GGUFFile:
    """A mapped file: `metadata` by key, `tensors` by name, `data(name)` for the bytes of one.

    `meta` is the metadata under the architecture's own prefix. A context manager.
    """

    def __init__(
        self,
        path: Path,
        buffer: mmap.mmap,
        version: int,
        alignment: int,
        metadata: Metadata,
        tensors: dict[str, TensorInfo],
    ) -> None:
        self.path = path
        self.version = version
        self.alignment = alignment
        self.metadata = metadata
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self._buffer = buffer
        self._bytes: NDArray[np.uint8] | None = np.frombuffer(buffer, np.uint8)

    @property
    def architecture(self) -> str:
        """`general.architecture`. Raises FormatError in a file without one (later files of a split set)."""
        return self.metadata.str("general.architecture")

    @property
    def meta(self) -> Metadata:
        """The metadata under the architecture's prefix: `meta.int("block_count")`."""
        return self.metadata.under(self.architecture + ".")

    @property
    def file_bytes(self) -> int:
        """The file's size."""
        return len(self._buffer)

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, uint8 [nbytes]: a read-only view of the map, good for as long as it is held.

        Raises FormatError when there is no such tensor, UsageError once the file is closed.
        """
        if name not in self.tensors:
            raise FormatError(f"{self.path}: there is no tensor {shown(name)} among its {len(self.tensors)}")
        if self._bytes is None:
            raise UsageError(f"{self.path} is closed; read its tensors before closing it")
        info = self.tensors[name]
        return self._bytes[info.offset : info.offset + info.nbytes]

    def release(self, name: str) -> None:
        """Give back the memory that a tensor's pages of the map occupy; reading it again brings them back."""
        info = self.tensors[name]
        first = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (info.offset + info.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(mmap, "MADV_DONTNEED") and not self._buffer.closed:
            self._buffer.madvise(mmap.MADV_DONTNEED, first, length)

    def close(self) -> None:
        """Give the map back: at once, or as soon as nobody holds a view of it."""
        self._bytes = None
        _close(self._buffer)

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"GGUFFile({str(self.path)!r}, {len(self.metadata)} metadata pairs, {len(self.tensors)} tensors)"
        )


def open_single(path: str | os.PathLike[str]) -> GGUFFile:
    """Map one GGUF file of version 2 or 3 and check all that it says about itself.

    Raises ModelNotFoundError when there is no file, FormatError when it is broken or no GGUF file,
    UnsupportedError for versions, byte orders and tensor types that edgellm does not read, UsageError for
    what cannot be opened at all.
    """
    path = Path(path)
    buffer = _map(path)
    try:
        return _parse(Cursor(buffer, path))
    except EdgeLLMError:
        _close(buffer)
        raise


def _map(path: Path) -> mmap.mmap:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a directory; give the .gguf file inside it" if path.is_dir() else "not a regular file"
            raise UsageError(f"{path} is {what}")
        if status.st_size == 0:
            raise FormatError(f"{path} is empty (0 bytes); fetch it again")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelNotFoundError(f"there is no file {path}; check the path, or pull the model") from None
    except (OSError, ValueError) as error:
        if isinstance(error, EdgeLLMError):
            raise
        raise UsageError(f"{path} cannot be read: {error}") from None


def _close(buffer: mmap.mmap) -> None:
    # A map with views outstanding refuses to close; it goes when the last view does.
    with contextlib.suppress(BufferError):
        buffer.close()


def _parse(cursor: Cursor) -> GGUFFile:
    version = _header(cursor)
    num_tensors = cursor.count("tensor_count", MIN_ENTRY_BYTES)
    num_pairs = cursor.count("metadata_kv_count", _MIN_PAIR_BYTES)
    values, places = _pairs(cursor, num_pairs)
    alignment = _alignment(cursor, values, places)
    tensors = _tensors(cursor, num_tensors, alignment)
    return GGUFFile(cursor.path, cursor.buffer, version, alignment, Metadata(values, cursor.path), tensors)


def _header(cursor: Cursor) -> int:
    start = bytes(cursor.buffer[:64])
    if not start.startswith(_MAGIC):
        raise FormatError(f"{cursor.path} {_impostor(start)}")
    cursor.skip(len(_MAGIC), "magic")
    version = cursor.u32("version")
    if version == 1:
        raise UnsupportedError(
            f"{cursor.path}: GGUF version 1 is not supported; convert the model again with a recent llama.cpp"
        )
    if version != 0 and version & 0xFFFF == 0:
        raise UnsupportedError(
            f"{cursor.path}: the file is big-endian (version {version:#010x}); "
            "use the little-endian file of this model"
        )
    if version not in _VERSIONS:
        raise UnsupportedError(
            f"{cursor.path}: version at byte 4 is {version}; supported are 2 and 3; "
            "the file is damaged, or needs a newer edgellm"
        )
    return version


def _impostor(start: bytes) -> str:
    """What a file is that does not begin with the magic bytes."""
    for begin, what in _IMPOSTORS:
        if start.lstrip().startswith(begin):
            return what
    if start[8:9] == b"{":
        return "looks like a safetensors file; convert it to GGUF first"
    kind = "text" if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start) else "something else"
    return f"is not a GGUF file but {kind}: its first bytes are {start[:16]!r} and should be {_MAGIC!r}"


def _pairs(cursor: Cursor, count: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The metadata, and the byte offset of each key."""
    values: dict[str, Any] = {}
    places: dict[str, int] = {}
    for i in range(count):
        at = cursor.position
        key = cursor.name(f"key of metadata pair {i}")
        if key in values:
            raise cursor.error(
                f"metadata key {shown(key)}", at, f"was there before, at byte {places[key]}; a key comes once"
            )
        values[key] = read_value(cursor, f"metadata {shown(key)}")
        places[key] = at
    return values, places


def _alignment(cursor: Cursor, values: dict[str, Any], places: dict[str, int]) -> int:
    key = "general.alignment"
    value = values.get(key, _DEFAULT_ALIGNMENT)
    sound = isinstance(value, int) and 8 <= value <= _MAX_ALIGNMENT and value & (value - 1) == 0
    if not sound:
        found = value if isinstance(value, int) else "not an integer"
        raise cursor.error(
            key, places[key], f"is {found}; it must be a power of two from 8 to {_MAX_ALIGNMENT}"
        )
    return int(value)


def _tensors(cursor: Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for i in range(count):
        at = cursor.position
        info = read_tensor_info(cursor, i, alignment)
        if info.name in tensors:
            raise cursor.error(
                f"name of tensor {i}", at, f"is {shown(info.name)}, which an earlier tensor has"
            )
        tensors[info.name] = info
    start = -(-cursor.position // alignment) * alignment
    tensors = {name: replace(info, offset=start + info.offset) for name, info in tensors.items()}
    check_extents(cursor, tensors.values(), start, alignment)
    return tensors
