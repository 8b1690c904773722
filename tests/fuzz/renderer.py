"""Compiles a template and renders it over conversations."""

from __future__ import annotations

import os
import re
from pathlib import Path
from random import Random

from edgellm.chat import ChatTemplate, budget
from edgellm.errors import EdgeLLMError, TemplateError
from fuzz import conversations, templates

SECONDS = 0.2  # that a rendering may take here; so that what comes after its last step is seen
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\d+|0x[0-9a-f]+")


def folder() -> Path | None:
    """Where real templates are, if they are there."""
    root = os.environ.get("EDGELLM_SHARED")
    shared = Path(root) if root else Path(__file__).resolve().parents[3] / "shared"
    return shared / "templates" if (shared / "templates").is_dir() else None


def make(rng: Random, kept: list[str]) -> tuple[str, int]:
    """A template, and over how many conversations it is worth rendering.

    It is out of the grammar, a value grown twice, or a mutation of a real template or of an earlier one.
    """
    roll, real = rng.random(), templates.real(folder())
    if roll < 0.4:
        return "{% set ns = namespace(x=[1]) %}" + templates.statement(rng, rng.choice([1, 2, 2, 3])), 6
    if roll < 0.6:
        return templates.attack(rng), 1
    if kept and roll < 0.85:
        return templates.mutated(rng.choice(kept), real, rng), 6
    # The shorter of two: the long ones take most of the time to compile.
    return templates.mutated(min(rng.choice(real), rng.choice(real), key=len), real, rng), 12


def compiled(source: str) -> ChatTemplate | str:
    """The template, or why there is none, in words without names and numbers. Other errors go through."""
    try:
        return ChatTemplate(source, "<s>", "</s>")
    except TemplateError as error:
        return _words(error)


def rendered(template: ChatTemplate, rng: Random) -> str:
    """What came of a rendering, in such words."""
    messages, extra = conversations.conversation(rng)
    tools = extra.pop("tools", None)
    try:
        text = template.render(messages, tools, **extra)
    except EdgeLLMError as error:
        return _words(error)
    assert isinstance(text, str)
    assert len(text) <= budget.MAX_CHARS
    return "text " + str(len(text).bit_length())


def _words(error: EdgeLLMError) -> str:
    assert len(str(error)) < 4000, "a message that nobody reads"
    return type(error).__name__ + _PARTICULAR.sub("", str(error))[:120]


def warm_up() -> None:
    """What is imported and kept for good is there before memory is measured."""
    budget.MAX_SECONDS = SECONDS
    for source in templates.real(folder()):
        template = compiled(source)
        assert isinstance(template, ChatTemplate), template
        rendered(template, Random(0))
