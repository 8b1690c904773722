"""edgellm: a local language-model runtime.

llm = edgellm.LLM("smollm2:135m")
print(llm.chat([{"role": "user", "content": "Hi"}]).text)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgellm.chat import ChatTemplate
    from edgellm.completion import Choice, Completion, Stream
    from edgellm.engine import Chunk, Timings, TokenLogprob
    from edgellm.errors import (
        ContextLengthError,
        DownloadError,
        EdgeLLMError,
        EngineClosedError,
        FormatError,
        MemoryLimitError,
        ModelNotFoundError,
        QueueFullError,
        TemplateError,
        UnsupportedError,
        UsageError,
    )
    from edgellm.llm import LLM
    from edgellm.sampling import SamplingParams
    from edgellm.tokenizers import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "ChatTemplate",
    "Choice",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "DownloadError",
    "EdgeLLMError",
    "EngineClosedError",
    "FormatError",
    "MemoryLimitError",
    "ModelNotFoundError",
    "QueueFullError",
    "SamplingParams",
    "Stream",
    "TemplateError",
    "Timings",
    "TokenLogprob",
    "Tokenizer",
    "UnsupportedError",
    "UsageError",
    "__version__",
]

# Where the public names live; each is imported when it is first asked for, so that `import edgellm` is quick.
_HOMES = {
    "ChatTemplate": "chat",
    "Choice": "completion",
    "Chunk": "engine",
    "Completion": "completion",
    "LLM": "llm",
    "SamplingParams": "sampling",
    "Stream": "completion",
    "Timings": "engine",
    "TokenLogprob": "engine",
    "Tokenizer": "tokenizers",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
