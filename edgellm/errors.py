"""Everything edgellm raises on purpose.

    EdgeLLMError
    |-- UsageError            a value that a caller gave is wrong (names the value, the limit, the remedy)
    |   |-- ContextLengthError   a prompt does not fit the context
    |   `-- TemplateError        a chat template refuses the messages, or is itself broken
    |-- ModelNotFoundError    no such model by that name or path
    |-- DownloadError         a model could not be fetched whole
    |-- FormatError           a model file is broken (names the field and the offset)
    |-- UnsupportedError      a model file is sound, but asks for what edgellm does not have
    |-- MemoryLimitError      it does not fit into the memory it may use
    |-- QueueFullError        the engine has as many waiting requests as it accepts
    `-- EngineClosedError     the engine was closed while, or before, it was asked

A message is one sentence that a person can act on: the value, the limit, the remedy.
"""

from __future__ import annotations


class EdgeLLMError(Exception):
    """The root of everything raised on purpose."""


class UsageError(EdgeLLMError, ValueError):
    """A value that a caller gave is of the wrong type or out of range.

    `param` is the name of the field at fault, where there is one.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthError(UsageError):
    """A prompt (with what it asks to generate) does not fit the context."""


class TemplateError(UsageError):
    """A chat template refuses the messages, or is itself broken."""


class ModelNotFoundError(EdgeLLMError):
    """No model has that name, and no file has that path."""


class DownloadError(EdgeLLMError):
    """A model could not be fetched whole from any of its sources."""


class FormatError(EdgeLLMError):
    """A model file is broken: the message names the field, the value, and the byte offset."""


class UnsupportedError(EdgeLLMError):
    """A sound model file asks for something that edgellm does not have; the message says what it has."""


class MemoryLimitError(EdgeLLMError):
    """What was asked for does not fit into the memory that may be used."""


class QueueFullError(EdgeLLMError):
    """The engine has as many waiting requests as it accepts; try again later."""


class EngineClosedError(EdgeLLMError):
    """The engine was closed before the request was finished."""


def shown(value: object, most: int = 80) -> str:
    """A value as messages have it: cut short where it is longer than so many characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= most else value[:most] + "...")
    text = repr(value)
    return text if len(text) <= most else text[:most] + "..."
