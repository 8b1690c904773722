"""A model's chat template."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextvars import copy_context
from functools import cache
from itertools import islice
from typing import Any

from jinja2 import Template, TemplateSyntaxError

from edgellm.chat.budget import MAX_CHARS, BudgetExceededError, check_chars, start_budget
from edgellm.chat.messages import Message, check_messages, check_tools, simplified
from edgellm.chat.sandbox import RefusedError, Sandbox
from edgellm.errors import TemplateError

MAX_SOURCE = 2**20  # characters; the longest known template has some 25 thousand
MAX_TOKENS = 2**15  # of Jinja2, which compiles some 45 thousand a second, at 3 kB of memory each

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_MAX_MESSAGE = 1000
_MUCH = 16 * 2**20  # bytes of values that a rendering made
_REMEDY = "use another template, or tell the model's author"


class _StoppedError(TemplateError):
    """It used more than it may: trying it another way would take as long again."""


class ChatTemplate:
    """A chat template (Jinja2), rendered as Transformers' `apply_chat_template` does, in a sandbox.

    `bos_token` and `eos_token` are the texts of those tokens, which templates may mention. TemplateError
    if the source is not a valid template.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._template = _compile(source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """The prompt text of a conversation.

        `extra` goes to the template as it is (`enable_thinking=False`). Text parts and tool-call
        arguments are simplified first (`messages.simplified`); should the template fail on that, it gets
        them as they were given. UsageError if the messages are malformed, TemplateError if the template
        refuses them, fails, or takes too much time or room.
        """
        given = check_messages(messages)
        variables = {
            "tools": check_tools(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self._tokens,
            **extra,
        }
        simple = simplified(given)
        try:
            return self._run(simple, variables)
        except TemplateError as error:
            if simple == given or isinstance(error, _StoppedError):
                raise
            try:
                return self._run(given, variables)
            except TemplateError:
                raise error from None

    def _run(self, messages: list[Message], variables: dict[str, Any]) -> str:
        """Rendered in a context of its own, so that the budget is this rendering's."""
        return copy_context().run(self._render, {"messages": messages, **variables})

    def _render(self, variables: dict[str, Any]) -> str:
        budget, failed = start_budget(len(variables["messages"])), None
        try:
            text = "".join(_limited(self._template.generate(variables)))
        except Exception as error:  # a template may raise anything
            failed = _explained(error)
        if budget.spent > _MUCH:
            gc.collect()  # recursive loops and macros hold themselves, and all that they made
        if failed is not None:
            raise failed
        return text


@cache
def default_template() -> ChatTemplate:
    """The template for models that bring none: ChatML."""
    return ChatTemplate(CHATML)


def _compile(source: str) -> Template:
    if not isinstance(source, str):
        raise TemplateError(f"a chat template is a str, not {type(source).__name__}")
    if len(source) > MAX_SOURCE:
        raise TemplateError(
            f"the chat template has {len(source)} characters, more than {MAX_SOURCE}; {_REMEDY}"
        )
    try:
        sandbox = Sandbox()
        _check_tokens(sandbox, source)
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # of Python's compiler
            return sandbox.from_string(source)
    except TemplateError:
        raise
    except TemplateSyntaxError as error:
        raise TemplateError(
            f"line {error.lineno} of the chat template is no valid Jinja2: {error.message}; {_REMEDY}"
        ) from None
    except Exception as error:  # nested too deeply for the parser, or for Python's compiler
        raise TemplateError(f"the chat template cannot be compiled: {_what(error)}; {_REMEDY}") from None


def _check_tokens(sandbox: Sandbox, source: str) -> None:
    if len(source) > MAX_TOKENS and any(True for _ in islice(sandbox.lex(source), MAX_TOKENS, None)):
        raise TemplateError(f"the chat template has more than {MAX_TOKENS} tokens; {_REMEDY}")


def _limited(parts: Iterator[str]) -> Iterator[str]:
    size = 0
    for part in parts:
        size += len(part)
        check_chars(size)
        yield part


def _explained(error: Exception) -> TemplateError:
    line = _line(error)
    where = "the chat template" if line is None else f"line {line} of the chat template"
    if isinstance(error, RefusedError):
        return TemplateError(f"{where} refuses these messages: {_short(str(error))}", param="messages")
    if isinstance(error, BudgetExceededError):
        return _StoppedError(
            f"{where} was stopped: {error}; shorten the conversation (the prompt may have {MAX_CHARS} "
            f"characters), or {_REMEDY}"
        )
    return TemplateError(f"{where} failed on these messages: {_what(error)}; {_REMEDY}", param="messages")


def _what(error: Exception) -> str:
    said = _short(str(error))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _short(text: str) -> str:
    """A template's own words, as far as somebody would read them."""
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."


def _line(error: Exception) -> int | None:
    """The template's line where the error was raised, the innermost one."""
    found, trace = None, error.__traceback__
    while trace is not None:
        # Jinja2 gives frames of compiled templates this name, and the template's own lines.
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
