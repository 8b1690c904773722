"""Options that several commands have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from edgellm.config import DEFAULT_MODEL, MAX_THREADS

Model = Annotated[str, typer.Argument(metavar="[MODEL]", help="A name, a path, or hf.co/USER/REPO[:QUANT].")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=MAX_THREADS, help="Threads that compute.", show_default="all cores")
]
Ctx = Annotated[
    int | None, typer.Option(min=1, help="Tokens of context.", show_default="the model's, within memory")
]
KVType = Annotated[
    str, typer.Option(help="Type of the KV cache: f16, f32 or q8_0; a pair K,V is for keys and values.")
]
LowMemory = Annotated[
    bool, typer.Option("--low-memory", help="Leave the weights in the file: slow, the same answers.")
]
System = Annotated[str | None, typer.Option(help="A system message before the conversation.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DEFAULT = DEFAULT_MODEL

# An option each for the fields of SamplingParams, which checks them: type and help.
SAMPLING: dict[str, tuple[Any, str]] = {
    "temperature": (float | None, "0 always takes the likeliest token; more is more varied."),
    "top_k": (int | None, "Choose among the k likeliest tokens; 0: all."),
    "top_p": (float | None, "Choose among the likeliest tokens that together have this probability."),
    "min_p": (float | None, "Leave out tokens less likely than this share of the likeliest."),
    "typical_p": (float | None, "Locally typical sampling; 1: off."),
    "repeat_penalty": (float | None, "Penalty on tokens that were there lately; 1: none."),
    "repeat_last_n": (int | None, "How many tokens penalties look back; -1: all."),
    "presence_penalty": (float | None, "Penalty on tokens that were there at all."),
    "frequency_penalty": (float | None, "Penalty on tokens by how often they were there."),
    "seed": (int | None, "The same seed gives the same answer."),
    "max_tokens": (int | None, "Tokens to generate at most."),
    "stop": (list[str] | None, "Text that ends the answer; may be given several times."),
    "ignore_eos": (bool | None, "Go on where the model would end."),
}


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of SAMPLING; what was given of them arrives as the dict `sampling`."""

    @wraps(command)
    def with_sampling(**given: Any) -> None:
        fields = {name: given.pop(name) for name in SAMPLING}
        command(**given, sampling={name: value for name, value in fields.items() if value is not None})

    own = inspect.signature(command, eval_str=True)
    parameters = [
        p.replace(kind=p.KEYWORD_ONLY) for name, p in own.parameters.items() if name != "sampling"
    ] + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name))
        for name in SAMPLING
    ]
    with_sampling.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_sampling.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_sampling


def _option(name: str) -> Any:
    kind, text = SAMPLING[name]
    flags = ["--ignore-eos"] if name == "ignore_eos" else []
    return Annotated[kind, typer.Option(*flags, help=text, show_default=False)]
