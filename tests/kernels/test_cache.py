"""The kernel cache: whatever happens to it costs time only."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgellm.config import load_config
from edgellm.errors import EdgeLLMError, UsageError
from edgellm.kernels import cache, compilers
from edgellm.simd import targets

KERNEL = "pointwise.gather"  # the quickest to compile
LOAD = f"from edgellm.kernels.cache import load_kernels; assert load_kernels([{KERNEL!r}])[{KERNEL!r}]"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty EDGELLM_HOME, and nothing loaded yet."""
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache, "_loaded", {})
    return tmp_path / "home"


def entry():
    return cache.cache_folder(targets.choose(load_config().target)) / f"{KERNEL}.o"


def test_a_kernel_is_compiled_once_and_found_again(home, monkeypatch):
    calls = []
    assert cache.load_kernels([KERNEL], lambda *args: calls.append(args))[KERNEL]
    assert calls == [("compiling kernels", 0, 1), ("compiling kernels", 1, 1)]
    assert entry().is_file()
    monkeypatch.setattr(cache, "_loaded", {})
    monkeypatch.setattr(cache, "_compile", lambda *args: pytest.fail("compiled again"))
    assert cache.load_kernels([KERNEL])[KERNEL]


def test_what_is_begun_early_is_compiled_once_and_loaded_with_the_rest(home, monkeypatch):
    started, start = [], cache.Compilers.add

    def add(self, names, progress=None):
        started.append((id(self), sorted(names)))
        start(self, names, progress)

    monkeypatch.setattr(cache.Compilers, "add", add)
    other, third, calls = "embed.f32", "embed.f16", []
    cache.begin_kernels([KERNEL])
    cache.begin_kernels([other])
    names = [KERNEL, other, third]
    assert cache.load_kernels(names, lambda *args: calls.append(args)).keys() == set(names)
    assert [asked for _, asked in started[:2]] == [[KERNEL], [other]]
    assert third in started[2][1]
    assert len({group for group, _ in started}) == 1, "one group does it all"
    assert calls[-1] == ("compiling kernels", 3, 3)
    cache.begin_kernels(names)
    assert len(started) == 3
    assert cache._begun == []


def test_what_was_begun_and_is_gone_is_compiled_again(home):
    cache.begin_kernels([KERNEL])
    (begun,) = cache._begun
    begun.wait()
    entry().unlink()
    cache.begin_kernels([KERNEL])
    assert cache._begun != [begun], "that one is done"
    cache._begun[0].wait()
    entry().write_bytes(b"not an object")
    assert cache.load_kernels([KERNEL])[KERNEL]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:10],
        lambda data: b"",
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: b"not an object at all" * 10,
    ],
    ids=["half", "shorter than its checksum", "empty", "one flipped bit", "another file"],
)
def test_a_damaged_entry_is_compiled_anew(home, monkeypatch, damage):
    cache.load_kernels([KERNEL])
    whole = entry().read_bytes()
    entry().write_bytes(damage(whole))
    monkeypatch.setattr(cache, "_loaded", {})
    assert cache.load_kernels([KERNEL])[KERNEL]
    assert cache.read_object(entry()) is not None


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("EDGELLM_HOME", str(blocked))
    monkeypatch.setattr(cache, "_loaded", {})
    assert cache.load_kernels([KERNEL])[KERNEL]
    assert blocked.read_text() == "a file where a folder should be"


def test_files_where_the_user_works_are_not_imported(home, tmp_path, monkeypatch):
    for name in ("edgellm", "numpy", "types"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(f'{__name__} was imported')")
    monkeypatch.chdir(tmp_path)
    assert cache.load_kernels([KERNEL])[KERNEL]


def test_what_the_cache_cannot_take_is_loaded_all_the_same(home, capfd):
    (entry() / "in the way").mkdir(parents=True)  # a folder where the object should be
    assert cache.load_kernels([KERNEL])[KERNEL]
    assert f"kernel {KERNEL} cannot be kept in {entry().parent}" in capfd.readouterr().err


def test_no_folder_at_all_is_said_so(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cache, "_loaded", {})
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(EdgeLLMError, match="EDGELLM_HOME"):
        cache.load_kernels([KERNEL])


def test_a_compiler_that_is_killed_has_a_successor(home, monkeypatch):
    killed, start = [], compilers._start

    def start_and_kill_one(target, folder):
        child = start(target, folder)
        if not killed:
            child.kill()
            killed.append(child)
        return child

    monkeypatch.setattr(compilers, "_start", start_and_kill_one)
    assert cache.load_kernels([KERNEL])[KERNEL]
    assert killed


def test_an_object_may_be_read_by_others(home):
    before = os.umask(0o022)
    try:
        cache.write_object(home / "a.o", b"code")
    finally:
        os.umask(before)
    assert (home / "a.o").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in home.iterdir()] == ["a.o"]


def test_settings_of_numba_do_not_reach_the_compiler(home, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    (tmp_path / ".numba_config.yaml").write_text("disable_jit: 1\n")
    monkeypatch.chdir(tmp_path)
    assert cache.load_kernels([KERNEL])[KERNEL]


def test_nothing_is_loaded_that_is_for_another_machine(home, monkeypatch):
    monkeypatch.setenv("EDGELLM_CROSS", "neon,aarch64-unknown-linux-gnu,cortex-a72")
    with pytest.raises(UsageError, match="EDGELLM_CROSS"):
        cache.load_kernels([KERNEL])
    with pytest.raises(UsageError, match="EDGELLM_CROSS"):
        cache.begin_kernels([KERNEL])


def test_two_processes_compile_at_once_without_harm(home):
    environment = os.environ | {"EDGELLM_HOME": str(home)}
    children = [subprocess.Popen([sys.executable, "-c", LOAD], env=environment) for _ in range(3)]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    assert cache.read_object(entry()) is not None
    assert not list(entry().parent.glob("*.tmp"))


def test_the_key_depends_on_sources_target_and_cpu(tmp_path, monkeypatch):
    here = targets.choose(load_config().target)
    key = cache.cache_key(here)
    assert key == cache.cache_key(here)
    assert len({cache.cache_key(t) for t in targets.available()}) == len(targets.available())
    monkeypatch.setattr(targets, "llvm_cpu", lambda target: ("another-cpu", "+feature"))
    assert cache.cache_key(here) != key
    monkeypatch.undo()
    monkeypatch.setattr(targets, "host_cpu", lambda: "another-cpu")
    assert len({key, *map(cache.cache_key, targets.available())}) == len(targets.available()) + 1
    monkeypatch.undo()
    for folder in ("simd", "kernels"):
        copy = tmp_path / folder
        copy.mkdir()
        for path in (cache._PACKAGE / folder).glob("*.py"):
            (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(cache, "_PACKAGE", tmp_path)
    assert cache.cache_key(here) == key
    (tmp_path / "simd" / "tiles.py").write_bytes(b"# changed\n")
    assert cache.cache_key(here) != key


def test_loading_from_the_cache_imports_no_numba(home):
    cache.load_kernels([KERNEL])
    environment = os.environ | {"EDGELLM_HOME": str(home)}
    check = LOAD + "; import sys; assert 'numba' not in sys.modules"
    assert (
        subprocess.run([sys.executable, "-c", check], env=environment, check=False, timeout=60).returncode
        == 0
    )
