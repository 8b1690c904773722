"""The house rules that a reader could break without noticing, held by reading the source."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgellm"

# What each part of the package may import of the others, itself apart; everything may import errors and
# config. A part is the longest name here that a module's name begins with.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "config": set(),
    "gguf": set(),
    "quants": {"gguf"},
    "tokenizers": {"gguf"},
    "chat": set(),
    "sampling": set(),
    "hub": set(),
    "graph": set(),
    "models": {"graph", "gguf"},
    "simd": set(),
    "kernels": {"simd", "memory"},
    "backends": {"graph", "gguf", "quants", "sampling"},
    "backends.cpu": {"backends", "graph", "gguf", "quants", "sampling", "kernels"},
    "memory": set(),
    "engine": {"backends", "sampling", "tokenizers", "graph"},
}
# Above the engine: all of these may use everything below, and each other only downwards.
UPPER = ("completion", "early", "loading", "llm", "server", "cli", "__main__")
for number, part in enumerate(UPPER):
    LAYERS[part] = {*UPPER[:number], *LAYERS} - set(UPPER[number:])

WITHOUT_NUMPY = ("engine/scheduler.py", "engine/sequence.py", "engine/ring.py")
COMPILER = {"numba", "llvmlite"}
# Who may use the compiler; the cache loads finished code through LLVM, so that Numba need not be imported.
MAY_COMPILE = {
    "kernels.jit": COMPILER,
    "kernels.lean": COMPILER,
    "kernels.cache": {"llvmlite"},
    "simd": COMPILER,
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def typing_only(tree: ast.Module) -> set[ast.AST]:
    """Everything below an `if TYPE_CHECKING:`, which no program imports."""
    guarded = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    return {inner for node in guarded for child in node.body for inner in ast.walk(child)}


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it; `from package import module` as the module."""
    tree = tree_of(path)
    for node in set(ast.walk(tree)) - typing_only(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            origin = node.module or ""
            for alias in node.names:
                full = f"{origin}.{alias.name}"
                yield full if is_module(full) else origin


def part_of(module: str) -> str:
    """The row of LAYERS that a module belongs to; empty for the package itself."""
    name = module.removeprefix("edgellm").removeprefix(".")
    rows = [row for row in LAYERS if name == row or name.startswith(f"{row}.")]
    return max(rows, key=len, default="")


def test_every_part_of_the_package_has_a_place():
    unplaced = {name_of(path) for path in modules() if not part_of(name_of(path))} - {"edgellm"}
    assert unplaced == set(), "add a row to LAYERS"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_one_way(path: Path):
    part = part_of(name_of(path))
    if not part:
        return  # the package's own page: it exports, lazily, from everywhere
    used = {part_of(name) for name in imports(path) if name.startswith("edgellm.")}
    allowed = LAYERS[part] | {part, "errors", "config"}
    assert used <= allowed, f"{part} may import {sorted(allowed)}"


def test_layers_have_no_cycle():
    below = {part: allowed - {part} for part, allowed in LAYERS.items()}
    while below:
        ground = {part for part, allowed in below.items() if not allowed & below.keys()}
        assert ground, f"these import each other: {sorted(below)}"
        below = {part: allowed for part, allowed in below.items() if part not in ground}


def test_backends_name_no_backend_when_they_are_imported():
    """The registry finds a backend by name, inside a function; importing it must not pull in a compiler."""
    for path in PACKAGE.glob("backends/*.py"):
        for node in tree_of(path).body:
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("edgellm.backends.cpu"), path


@pytest.mark.parametrize("file", WITHOUT_NUMPY)
def test_bookkeeping_imports_no_numpy(file: str):
    assert "numpy" not in {name.split(".")[0] for name in imports(PACKAGE / file)}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_the_compiler_is_used_in_one_place(path: Path):
    name = f"{name_of(path)}."
    allowed = [tools for home, tools in MAY_COMPILE.items() if name.startswith(f"edgellm.{home}.")]
    used = COMPILER & {imported.split(".")[0] for imported in imports(path)}
    assert used <= set().union(*allowed)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_the_config_reads_our_variables(path: Path):
    if path == PACKAGE / "config.py":
        return
    assert not [name for name in names_read(tree_of(path)) if re.fullmatch("EDGELLM_[A-Z_]+", name)]


def names_read(tree: ast.Module) -> Iterator[str]:
    """The texts that a module looks up by: the first argument of get or getenv, and what is in brackets."""
    for node in ast.walk(tree):
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            key = node.slice
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            key = node.args[0] if called in {"get", "getenv", "pop", "setdefault"} else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def test_nobody_licenses_the_compiler_to_change_results():
    """Without flags LLVM neither reassociates nor contracts; with any of them it does."""
    used = []
    for path in modules():
        for node in ast.walk(tree_of(path)):
            name = getattr(node, "arg", None) if isinstance(node, ast.keyword | ast.arg) else None
            name = node.attr if isinstance(node, ast.Attribute) else name
            name = node.id if isinstance(node, ast.Name) else name
            if name is not None and "fastmath" in name.lower():
                used.append(f"{name_of(path)}:{getattr(node, 'lineno', '?')}")
    assert used == []


def texts() -> Iterator[Path]:
    """Every file of the project that a person wrote."""
    kinds = {".py", ".md", ".toml", ".sh", ".yml", ".yaml", ".html", ".js", ".css", ".cu", ".metal", ""}
    folders = ("edgellm", "tests", "scripts", "bench", "models", "native", "docs", ".ci")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    for path in [*found, *ROOT.glob("*")]:
        if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts:
            yield path


def test_no_file_speaks_of_the_machine_it_was_written_on():
    places = re.compile(rb"/w[a-z]{3}/(main|steering|\.lib)|https?://(deb|files|registry)\.")
    found = [str(path.relative_to(ROOT)) for path in texts() if places.search(path.read_bytes())]
    assert found == []


def test_the_walk_sees_the_tree():
    """An empty walk would hold every rule."""
    assert PACKAGE / "config.py" in modules()
    assert Path(__file__).resolve() in set(texts())
    assert "edgellm.errors" in set(imports(PACKAGE / "config.py"))
    assert "EDGELLM_HOME" in set(names_read(tree_of(PACKAGE / "config.py")))
