"""`edgellm inspect`: what is in a model file, and whether it fits into this machine's memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgellm.cli.options import Json, KVType, LowMemory, Threads
from edgellm.cli.texts import printable

if TYPE_CHECKING:
    from edgellm.cli.contents import Contents, Memory

_MIB = 2**20


def inspect(
    model: Annotated[str, typer.Argument(help="A name, a path, or hf.co/USER/REPO[:QUANT].")],
    ctx: Annotated[
        int | None, typer.Option(min=1, help="Tokens of context to plan for.", show_default="what run takes")
    ] = None,
    threads: Threads = None,
    kv_type: KVType = "f16",
    low_memory: LowMemory = False,
    as_json: Json = False,
) -> None:
    """Show what is in a model file, and what memory one conversation with it will hold.

    No weights are loaded. Memory is what the process holds once the context is full: packed weights, KV
    cache, scratch, and about what Python and the tokenizer take. A model that cannot run is shown too.
    """
    from edgellm.cli.contents import read_contents
    from edgellm.cli.progress import ProgressShow
    from edgellm.gguf import open_gguf
    from edgellm.hub import resolve

    with ProgressShow() as show:
        path = resolve(model, lambda what, done, total: show(what, done, total))
    with open_gguf(path) as file:
        contents = read_contents(
            file, context_length=ctx, threads=threads, kv_type=kv_type, low_memory=low_memory
        )
    print(json.dumps(contents.as_json()) if as_json else "\n".join(_lines(contents, low_memory)))


def _lines(c: Contents, low_memory: bool) -> list[str]:
    types = ", ".join(f"{kind} x {count}" for kind, count in c.tensor_types.items())
    rows: list[tuple[str, Any]] = [
        ("name", printable(c.name or "-")),
        ("architecture", printable(c.architecture or "-")),
        ("parameters", f"{c.parameters / 1e6:,.1f} million"),
        ("file", f"{mib(c.file_bytes)}, {c.path}"),
        ("tensor types", types or "no tensors"),
        ("context", f"{c.context_length} tokens" if c.context_length else "-"),
        ("chat template", "yes" if c.chat_template else "no"),
    ]
    if c.memory is not None:
        rows += _memory_rows(c.memory, low_memory)
    if c.problem is not None:
        rows.append(("problem", c.problem))
    return [f"{name:<14} {value}" for name, value in rows]


def _memory_rows(m: Memory, low_memory: bool) -> list[tuple[str, str]]:
    how = "estimated from the file, " if m.estimated else ""
    return [
        ("memory", f"{how}for {m.context_length} tokens of context"),
        ("  weights", mib(m.weights)),
        ("  kv cache", mib(m.kv_cache)),
        ("  scratch", mib(m.scratch)),
        ("  process", mib(m.process)),
        ("  total", f"{mib(m.total)}, {_verdict(m, low_memory)}"),
    ]


def _verdict(m: Memory, low_memory: bool) -> str:
    if m.available is None:
        return "and nobody says how much is available"
    if m.fits:
        return f"which fits: {mib(m.available)} are available"
    smaller = "take a smaller model" + ", or --low-memory" * (not low_memory)
    room = f"it fits with --ctx {m.most_context}" if m.most_context else smaller
    return f"which does not fit: {mib(m.available)} are available; {room}"


def mib(count: int) -> str:
    """Bytes for people."""
    return f"{count / _MIB:,.1f} MiB"
