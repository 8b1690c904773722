"""`edgellm run`: one answer."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgellm.cli.options import DEFAULT, Ctx, Json, KVType, LowMemory, System, Threads, sampling_options
from edgellm.cli.piped import read_prompt, with_piped
from edgellm.errors import UsageError

if TYPE_CHECKING:
    from edgellm.cli.talk import Answer
    from edgellm.server.model import ServedModel

_NAME = re.compile(r"[\w.-]+:[\w.-]+")


@sampling_options
def run(
    first: Annotated[str | None, typer.Argument(metavar="[MODEL]", show_default=False)] = None,
    second: Annotated[str | None, typer.Argument(metavar="[PROMPT]", show_default=False)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="No chat template: go on from PROMPT itself.")] = False,
    system: System = None,
    threads: Threads = None,
    ctx: Ctx = None,
    low_memory: LowMemory = False,
    kv_type: KVType = "f16",
    stats: Annotated[bool, typer.Option("--stats", help="Show counts and speeds, on stderr.")] = False,
    as_json: Json = False,
    *,
    sampling: dict[str, Any],
) -> None:
    """Print one answer, as it comes. What is piped in comes before PROMPT; without PROMPT, it is the prompt.

    A single argument is the MODEL if it looks like one: NAME:TAG, a .gguf file, hf.co/..., or a name of the
    catalogue. Otherwise it is the PROMPT, for the default model.
    """
    from edgellm.cli.loading import open_model
    from edgellm.cli.talk import Answer, ask, stats_line, write
    from edgellm.sampling import SamplingParams

    if raw and system is not None:
        raise UsageError("--raw has no messages, so --system has no place: give one of them", "system")
    SamplingParams(**sampling)  # what is wrong with them is said before anything is loaded
    name, prompt = split_arguments(first, second)
    text = read_prompt() if prompt is None else with_piped(prompt)
    answer = Answer()
    with open_model(name, threads, ctx, 1, low_memory, kv_type) as (model, load_s):
        tokens = _prompt_tokens(model, text, system, raw)
        params = SamplingParams(**{**({} if raw else model.defaults), **sampling})
        ask(model, tokens, params, answer, (lambda text: None) if as_json else write)
    if as_json:
        print(json.dumps(result_json(answer, load_s)))
    elif not answer.text.endswith("\n"):
        print()
    if stats and answer.timings is not None:
        print(stats_line(answer.timings, load_s), file=sys.stderr)


def split_arguments(first: str | None, second: str | None) -> tuple[str, str | None]:
    """Model and prompt, of which either may be left out."""
    if second is not None or first is None:
        return first or DEFAULT, second
    return (first, None) if looks_like_model(first) else (DEFAULT, first)


def looks_like_model(text: str) -> bool:
    """Whether a single argument names a model: NAME:TAG, a .gguf file, hf.co/..., a name of the catalogue."""
    if _NAME.fullmatch(text) or text.startswith("hf.co/"):
        return True
    if text.endswith(".gguf") and not any(c.isspace() for c in text):
        return True
    try:
        if text.endswith(".gguf") and Path(text).is_file():
            return True
    except (OSError, ValueError):  # far too long for a path, or with a null character
        return False
    from edgellm.hub import catalogue

    return text in catalogue()


def _prompt_tokens(model: ServedModel, text: str, system: str | None, raw: bool) -> list[int]:
    if raw:
        return model.tokenizer.encode(text)
    before = [{"role": "system", "content": system}] if system is not None else []
    return model.chat_prompt([*before, {"role": "user", "content": text}])


def result_json(answer: Answer, load_s: float) -> dict[str, Any]:
    """What `--json` prints."""
    timings = answer.timings
    assert timings is not None
    return {
        "text": answer.text,
        "token_ids": answer.token_ids,
        "prompt_tokens": timings.prompt_tokens,
        "cached_tokens": timings.cached_tokens,
        "completion_tokens": timings.completion_tokens,
        "finish_reason": answer.finish_reason,
        "timings": {
            "load_s": load_s,
            "ttft_s": timings.ttft_s,
            "prompt_tps": timings.prompt_tps,
            "decode_tps": timings.decode_tps,
        },
    }
