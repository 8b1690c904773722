"""A conversation: its messages, and the model that answers them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgellm.cli.talk import Answer, ask
from edgellm.errors import EdgeLLMError, UsageError
from edgellm.sampling import SamplingParams

if TYPE_CHECKING:
    from edgellm.server.model import ServedModel


class Conversation:
    """Messages so far. Every turn renders all of them by the template; the prefix cache makes it cheap.

    `system` may be changed at any time, and holds for the turns so far as well.
    """

    def __init__(self, model: ServedModel, params: SamplingParams, system: str | None = None) -> None:
        self._model, self.params = model, params
        self.system = system
        self.turns: list[dict[str, Any]] = []
        self.last: Answer | None = None
        self.unanswered: str | None = None  # the last message, where no answer came
        self._counted: tuple[list[dict[str, Any]], int] = ([], 0)

    @property
    def messages(self) -> list[dict[str, Any]]:
        before = [{"role": "system", "content": self.system}] if self.system else []
        return [*before, *self.turns]

    @property
    def context_length(self) -> int:
        """Tokens that the conversation may have."""
        return self._model.engine.context_length

    @property
    def used(self) -> int:
        """Tokens of context that it has so far."""
        if self.turns and self._counted[0] != self.messages:
            # A template that refuses the messages says so when they are to be answered.
            with contextlib.suppress(EdgeLLMError):
                self._count(len(self._model.chat_prompt(self.messages)))
        return self._counted[1] if self.turns else 0

    def _count(self, tokens: int) -> None:
        """Keep how many tokens the messages have, for as long as they stay what they are."""
        self._counted = (self.messages, tokens)

    def change(self, **fields: Any) -> None:
        """Other sampling parameters. Raises UsageError for what is wrong with them, and changes nothing."""
        self.params = replace(self.params, **fields)

    def clear(self) -> None:
        """Forget the turns."""
        self.turns, self.last, self.unanswered = [], None, None

    def take(self, turns: list[dict[str, Any]], system: str | None, params: SamplingParams) -> None:
        """Go on from another conversation."""
        self.clear()
        self.turns, self.system, self.params = turns, system, params

    def undo(self) -> str:
        """Take the last turn back; what the user had said. Raises UsageError when there is none."""
        if not self.turns:
            raise UsageError("there is no message to take back", "turn")
        said: str = self.turns[-2]["content"]
        del self.turns[-2:]
        self.last = None
        return said

    def take_back(self) -> str:
        """What the user said last, to be said again: a message that got no answer, or else as `undo`."""
        said, self.unanswered = self.unanswered, None
        return said if said is not None else self.undo()

    def as_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        params = asdict(self.params)
        plain = asdict(SamplingParams())
        return {
            "model": self._model.name,
            "system": self.system,
            "params": {name: value for name, value in params.items() if value != plain[name]},
            "messages": self.turns,
        }

    def say(self, text: str, show: Callable[[str], None]) -> Answer:
        """A user's turn, answered; interrupted, what has come stays in the conversation.

        Raises what the template and the engine raise (ContextLengthError once it is too long); then the
        turn is taken back.
        """
        self.turns.append({"role": "user", "content": text})
        self.unanswered = None
        answer = Answer()
        try:
            ask(self._model, self._model.chat_prompt(self.messages), self.params, answer, show)
        except KeyboardInterrupt:
            self._end_turn(answer)
            raise
        except BaseException:
            self._forget_message()
            raise
        self._end_turn(answer)
        return answer

    def _end_turn(self, answer: Answer) -> None:
        if answer.text:
            self.last = answer
            self.turns.append({"role": "assistant", "content": answer.text})
            if answer.timings is not None:
                self._count(answer.timings.prompt_tokens + answer.timings.completion_tokens)
        else:
            self._forget_message()

    def _forget_message(self) -> None:
        self.unanswered = self.turns.pop()["content"]
