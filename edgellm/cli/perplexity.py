"""`edgellm perplexity`: how well a model foresees a text."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.cli.options import Json, Threads
from edgellm.cli.texts import read_text

if TYPE_CHECKING:
    from edgellm.cli.progress import ProgressShow
    from edgellm.engine.perplexity import Perplexity
    from edgellm.tokenizers import Tokenizer


def perplexity(
    model: Annotated[str, typer.Argument(help="A name, a path, or hf.co/USER/REPO[:QUANT].")],
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.")],
    ctx: Annotated[int, typer.Option(min=4, help="Tokens of a window.")] = 512,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure how well a model foresees a text: lower is better.

    As llama.cpp defines it: the text's tokens are cut into windows of --ctx, what is left over at the end is
    not used. Each window is read from an empty context, its first token replaced by the begin of text where
    the model has its texts begin so. Only the tokens after a window's middle count: --ctx - 1 - --ctx // 2 of
    each. Perplexity is exp of the mean of -log(probability) over them; TOKENS is their number. One newline at
    the end of FILE is left out.
    """
    from edgellm.cli.progress import ProgressShow

    text = read_text(file).removesuffix("\n")
    with ProgressShow() as show:
        result = _measure(model, text, ctx, threads, show)
    if as_json:
        print(json.dumps({"perplexity": result.perplexity, "tokens": result.tokens, **_more(result, ctx)}))
    else:
        print(
            f"perplexity {result.perplexity:.4f} ± {result.standard_error:.4f} "
            f"({result.tokens} tokens of {result.windows} windows of {ctx})"
        )
    sys.stdout.flush()


def _more(result: Perplexity, ctx: int) -> dict[str, float]:
    return {"standard_error": result.standard_error, "windows": result.windows, "ctx": ctx}


def _measure(model: str, text: str, ctx: int, threads: int | None, show: ProgressShow) -> Perplexity:
    from edgellm import backends, hub, models
    from edgellm.engine.perplexity import cut, perplexity
    from edgellm.gguf import open_gguf
    from edgellm.loading import configure
    from edgellm.memory import available_memory
    from edgellm.tokenizers import Tokenizer

    path = hub.resolve(model, lambda what, done, total: show(what, done, total))
    with open_gguf(path) as opened:
        graph, windows = models.build(opened), cut(*_tokens(Tokenizer(opened), text, ctx))
        _, config = configure(
            graph,
            opened,
            available=available_memory(),
            context_length=ctx,
            max_sequences=1,
            threads=threads,
        )
        with closing(backends.find("auto")(graph, opened, config, show)) as backend:
            return perplexity(backend, windows, lambda done, total: show("scoring windows", done, total))


def _tokens(tokenizer: Tokenizer, text: str, ctx: int) -> tuple[list[int], int, int | None]:
    """What `cut` takes: the text without an end, the window, and what each begins with."""
    tokens = tokenizer.encode(text)
    return (
        tokens[:-1] if tokenizer.add_eos else tokens,
        ctx,
        tokenizer.bos_id if tokenizer.add_bos else None,
    )
