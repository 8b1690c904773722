"""A conversation: its messages, and the model that answers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgellm.cli.talk import Answer, ask
from edgellm.sampling import SamplingParams

if TYPE_CHECKING:
    from edgellm.server.model import ServedModel


class Conversation:
    """Messages so far. Every turn renders all of them by the template; the prefix cache makes it cheap."""

    def __init__(self, model: ServedModel, params: SamplingParams, system: str | None = None) -> None:
        self._model, self._params = model, params
        self._system = system
        self._turns: list[dict[str, Any]] = []
        self.last: Answer | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        before = [{"role": "system", "content": self._system}] if self._system else []
        return [*before, *self._turns]

    def set_system(self, text: str | None) -> None:
        """Another system message, for the turns so far as well."""
        self._system = text

    def clear(self) -> None:
        """Forget the turns."""
        self._turns, self.last = [], None

    def say(self, text: str, show: Callable[[str], None]) -> Answer:
        """A user's turn, answered; interrupted, what has come stays in the conversation.

        Raises what the template and the engine raise (ContextLengthError once it is too long); then the
        turn is taken back.
        """
        self._turns.append({"role": "user", "content": text})
        answer = Answer()
        try:
            ask(self._model, self._model.chat_prompt(self.messages), self._params, answer, show)
        except KeyboardInterrupt:
            self._end_turn(answer)
            raise
        except BaseException:
            self._turns.pop()
            raise
        self._end_turn(answer)
        return answer

    def _end_turn(self, answer: Answer) -> None:
        self.last = answer
        if answer.text:
            self._turns.append({"role": "assistant", "content": answer.text})
        else:
            self._turns.pop()
