"""Compiled kernels on disk: found, checked and loaded without Numba; what is missing is compiled in child
processes.

A file holds one object: a checksum of 32 bytes, then the object code. Its folder is named by a hash of all
that could change it: the sources of `simd` and `kernels`, the target, the CPU and its features, the
versions of Numba and LLVM and Python. Whatever goes wrong with the cache (a file cut short or changed, a
folder that cannot be written) costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import llvmlite.binding as llvm

from edgellm.config import load_config
from edgellm.errors import EdgeLLMError, UsageError
from edgellm.kernels.compilers import Compilers, Progress
from edgellm.simd import targets

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKSUM = 32
_engines: list[llvm.ExecutionEngine] = []  # loaded code stays loaded: addresses must remain good
_loaded: dict[str, int] = {}
_lock = threading.Lock()
_begun: list[Compilers] = []  # at most one: for kernels that are to be loaded later


def cache_key(target: targets.Target) -> str:
    """A hash of everything that compiled code depends on."""
    digest = hashlib.sha256()
    for folder in ("simd", "kernels"):
        for path in sorted((_PACKAGE / folder).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    facts = [target.name, targets.host_cpu(), *targets.llvm_cpu(target), *versions, sys.version, sys.platform]
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()[:24]


def cache_folder(target: targets.Target) -> Path:
    """Where this target's objects are kept."""
    return load_config().kernels / f"{target.name}-{cache_key(target)}"


def _target() -> targets.Target:
    """What this process runs. Raises UsageError if it is to compile for another machine."""
    config = load_config()
    if config.cross is not None:
        raise UsageError(
            "EDGELLM_CROSS is set: kernels that are compiled for another machine do not run here; unset it"
        )
    return targets.choose(config.target)


def begin_kernels(names: Sequence[str]) -> None:
    """Have what the cache lacks compiled in the background, for a `load_kernels` that will want it."""
    with _lock:
        target = _target()
        folder = cache_folder(target)
        missing = [n for n in names if n not in _loaded and read_object(folder / f"{n}.o") is None]
        if missing and _writable(folder):
            if not _begun or _begun[0].idle:
                _begun[:] = [Compilers(target, folder)]
            with contextlib.suppress(EdgeLLMError):  # a process more than there may be: it is for later, then
                _begun[0].add(missing)


def load_kernels(names: Sequence[str], progress: Progress | None = None) -> dict[str, int]:
    """Addresses of kernels, by name, for this process's target; compiles what the cache lacks.

    Raises EdgeLLMError if a kernel cannot be compiled.
    """
    with _lock:
        missing = [n for n in dict.fromkeys(names) if n not in _loaded]
        _load(missing, progress)
        return {n: _loaded[n] for n in names}


def _load(missing: list[str], progress: Progress | None) -> None:
    if not missing:
        return
    target = _target()
    folder = cache_folder(target)
    objects = {n: code for n in missing if (code := read_object(folder / f"{n}.o")) is not None}
    to_compile = [n for n in missing if n not in objects]
    if to_compile:
        objects |= _compile(to_compile, target, folder, progress)
    for name in missing:
        _loaded[name] = _link(name, objects[name])


def read_object(path: Path) -> bytes | None:
    """The object code in a cache file, or None if it is not there or not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    code = data[_CHECKSUM:]
    return code if code and hashlib.sha256(code).digest() == data[:_CHECKSUM] else None


def write_object(path: Path, code: bytes) -> None:
    """Put object code into a cache file, whole or not at all. Whoever may read the folder may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(hashlib.sha256(code).digest() + code)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _link(name: str, code: bytes) -> int:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    address = engine.get_function_address("edgellm_" + name.replace(".", "_"))
    if not address:
        raise EdgeLLMError(
            f"kernel {name} is not in its own object; remove {load_config().kernels} and try again"
        )
    return int(address)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _compile(
    names: list[str], target: targets.Target, folder: Path, progress: Progress | None
) -> dict[str, bytes]:
    """Compile into the cache; what does not get there (a full disk, a compiler that was killed) once more,
    into a folder that goes away.
    """
    objects: dict[str, bytes] = {}
    if _writable(folder):
        for stale in folder.glob("*.tmp"):
            _remove_stale(stale)
        groups = [_begun.pop()] if _begun and _begun[0].folder == folder else []
        for compilers in [*groups, Compilers(target, folder)]:
            objects |= _have_compiled(compilers, [n for n in names if n not in objects], progress)
    if missing := [n for n in names if n not in objects]:
        with _scratch() as scratch:
            compilers = Compilers(target, Path(scratch))
            objects |= _have_compiled(compilers, missing, progress)
    if failed := [n for n in missing if n not in objects]:
        raise EdgeLLMError(
            f"kernel {failed[0]} could not be compiled for {target.name}: {compilers.trouble(failed[0])}"
        )
    return objects


def _have_compiled(compilers: Compilers, names: list[str], progress: Progress | None) -> dict[str, bytes]:
    """The objects of those kernels that could be compiled."""
    if names:
        compilers.add(names, progress)
        compilers.wait()
    found = {n: read_object(compilers.folder / f"{n}.o") for n in names}
    return {n: code for n, code in found.items() if code is not None}


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes away. Raises EdgeLLMError where there can be none."""
    try:
        return tempfile.TemporaryDirectory(prefix="edgellm-kernels-")
    except OSError as error:
        raise EdgeLLMError(
            f"compiled kernels can be kept neither in {load_config().kernels} nor in a temporary folder"
            f" ({error.strerror}); set EDGELLM_HOME to a folder that can be written, with 50 MB of room"
        ) from error


def _remove_stale(path: Path) -> None:
    """What a killed process left behind; younger files may belong to a living one."""
    try:
        if time.time() - path.stat().st_mtime > 3600:
            path.unlink()
    except OSError:
        pass
