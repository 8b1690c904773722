"""The engine: requests in, events out, many sequences in one batch over one ring of KV pages.

    request.py     what goes in and what comes out
    engine.py      the thread, and what is asked of it; a step is three calls: schedule, run, finish
    core.py        those three
    scheduler.py   who runs next, integers only; over ring.py (pages, prefix cache) and sequence.py
    job.py         one request on its way; generation.py is one of its choices: sampler, decoder, stop strings
    pacing.py      how many prompt tokens a step may take
    perplexity.py  how well a backend foresees a text; embed.py: vectors of texts

How to add a kind of work: a class in job.py with `Job`'s methods, submitted by a method of `Engine`.
"""

from edgellm.engine.config import EngineConfig, Stats
from edgellm.engine.engine import Engine, Ticket
from edgellm.engine.request import (
    Chunk,
    Deliver,
    Event,
    Failed,
    Finished,
    FinishReason,
    Progress,
    Request,
    Timings,
    TokenLogprob,
)

__all__ = [
    "Chunk",
    "Deliver",
    "Engine",
    "EngineConfig",
    "Event",
    "Failed",
    "FinishReason",
    "Finished",
    "Progress",
    "Request",
    "Stats",
    "Ticket",
    "Timings",
    "TokenLogprob",
]
