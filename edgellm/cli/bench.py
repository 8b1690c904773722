"""`edgellm bench`: how fast a model reads and writes on this machine."""

from __future__ import annotations

import json
import statistics
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.cli.options import DEFAULT, Json, Model
from edgellm.config import MAX_THREADS
from edgellm.errors import UsageError, shown

if TYPE_CHECKING:
    from edgellm.backends.profile import OpTime
    from edgellm.cli.measure import Result

_MAX_BATCH = 4096


def bench(
    model: Model = DEFAULT,
    prompt_tokens: Annotated[
        int, typer.Option(min=0, help="Prompt tokens to process; 0: no such test.")
    ] = 512,
    gen_tokens: Annotated[int, typer.Option(min=0, help="Tokens to generate; 0: no such test.")] = 64,
    threads: Annotated[
        str | None, typer.Option(help="One or more counts: 1,2", show_default="all cores")
    ] = None,
    batch: Annotated[str, typer.Option(help="One or more numbers of sequences at once: 1,8")] = "1",
    repeat: Annotated[int, typer.Option(min=1, help="Samples of each test.")] = 3,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time, GB/s and GOPS of each kind of op, after each test.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure prompt processing (ppN) and generation (tgN): the model alone, without sampling or text.

    The speed is the median of the samples, over all sequences of the batch together; gigabytes are those of
    the weights, read once for each step.
    """
    if not prompt_tokens and not gen_tokens:
        raise UsageError(
            "--prompt-tokens and --gen-tokens are both 0, which leaves nothing to measure", "prompt_tokens"
        )
    counts = numbers(threads, "threads", MAX_THREADS) if threads else [None]
    batches = numbers(batch, "batch", _MAX_BATCH)
    from edgellm.cli.measure import Workload, measure
    from edgellm.cli.progress import ProgressShow

    results: list[Result] = []
    with ProgressShow() as show:
        for count in counts:
            work = Workload(prompt_tokens, gen_tokens, batches, repeat, profile)
            for result in measure(model, count, work, show):
                results.append(result)
                if not as_json:
                    show.close()
                    _show(result)
    if as_json:
        print(json.dumps([r.as_json() for r in results]))


def numbers(text: str, name: str, most: int) -> list[int]:
    """The numbers of `1,2,8`. UsageError if they are none."""
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isascii() and p.isdecimal() and len(p) < 10 and 0 < int(p) <= most for p in parts):
        raise UsageError(
            f"--{name} is {shown(text, 40)}: give whole numbers from 1 to {most}, such as 1,2", name
        )
    return [int(p) for p in parts]


def _show(result: Result) -> None:
    spread = statistics.pstdev(result.samples)
    print(
        f"{result.test:<8} threads {result.threads:<3} batch {result.batch:<3} "
        f"{result.tokens_per_second:9.1f} ± {spread:.1f} tok/s  {result.gigabytes_per_second:6.2f} GB/s"
    )
    if result.profile is not None:
        _show_ops(result.profile)
    sys.stdout.flush()


def _show_ops(ops: list[OpTime]) -> None:
    """A line for each kind of op, what took longest first, down to a thousandth of the time."""
    total = sum(op.seconds for op in ops)
    print(f"  {'op':<36} {'times':>6} {'ms':>9} {'share':>6} {'GB/s':>7} {'GOPS':>7}")
    for op in ops:
        if op.seconds >= total / 1000:
            print(
                f"  {op.op:<36} {op.count:6} {op.seconds * 1e3:9.2f} {op.seconds / total:6.1%} "
                f"{op.gigabytes_per_second:7.1f} {op.gigaoperations_per_second:7.1f}"
            )
