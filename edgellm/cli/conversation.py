"""A conversation: its messages, and the model that answers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edgellm.cli.talk import Answer, ask
from edgellm.errors import UsageError
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
        if self.last is not None and self.last.timings is not None:
            return self.last.timings.prompt_tokens + self.last.timings.completion_tokens
        return len(self._model.chat_prompt(self.messages)) if self.turns else 0

    def change(self, **fields: Any) -> None:
        """Other sampling parameters. Raises UsageError for what is wrong with them, and changes nothing."""
        self.params = replace(self.params, **fields)

    def clear(self) -> None:
        """Forget the turns."""
        self.turns, self.last = [], None

    def take(self, turns: list[dict[str, Any]], system: str | None, params: SamplingParams) -> None:
        """Go on from another conversation."""
        self.turns, self.system, self.params, self.last = turns, system, params, None

    def undo(self) -> str:
        """Take the last turn back; what the user had said. Raises UsageError when there is none."""
        if not self.turns:
            raise UsageError("there is no message to take back", "turn")
        said: str = self.turns[-2]["content"]
        del self.turns[-2:]
        self.last = None
        return said

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
        answer = Answer()
        try:
            ask(self._model, self._model.chat_prompt(self.messages), self.params, answer, show)
        except KeyboardInterrupt:
            self._end_turn(answer)
            raise
        except BaseException:
            self.turns.pop()
            raise
        self._end_turn(answer)
        return answer

    def _end_turn(self, answer: Answer) -> None:
        self.last = answer
        if answer.text:
            self.turns.append({"role": "assistant", "content": answer.text})
        else:
            self.turns.pop()
