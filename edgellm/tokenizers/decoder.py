"""Token ids to text, one at a time: never half a character."""

from __future__ import annotations

import codecs
from typing import Protocol


class TokenBytes(Protocol):
    """What the decoder needs of a tokenizer."""

    add_space_prefix: bool

    def token_bytes(self, token_id: int, skip_special: bool = False) -> bytes: ...

    def is_special(self, token_id: int) -> bool: ...


class ByteStream:
    """The bytes that each token adds to the output.

    A SentencePiece tokenizer puts a space before a text at its beginning and after a special token;
    here that space is taken away again. `after` is the id before the first one, None at the beginning.
    """

    def __init__(self, tokenizer: TokenBytes, skip_special: bool, after: int | None) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._drop_space = tokenizer.add_space_prefix and (after is None or tokenizer.is_special(after))

    def push(self, token_id: int) -> bytes:
        data = self._tokenizer.token_bytes(token_id, self._skip_special)
        if not self._tokenizer.add_space_prefix:
            return data
        if self._tokenizer.is_special(token_id):
            self._drop_space = True
        elif data:
            data = data.removeprefix(b" ") if self._drop_space else data
            self._drop_space = False
        return data


class IncrementalDecoder:
    """Text of a growing list of token ids.

    `push` gives the text that is certain: an unfinished UTF-8 character (at most three bytes) waits
    for the next token, and bytes that cannot become one are U+FFFD, as in `bytes.decode("utf-8",
    "replace")`. What push and flush give, put together, is `tokenizer.decode(ids)`.

    `after` is the id before the first one, for a text that continues another (a completion): with a
    SentencePiece tokenizer it tells whether the first word's space belongs to the text.
    """

    def __init__(self, tokenizer: TokenBytes, skip_special: bool = True, after: int | None = None) -> None:
        self._stream = ByteStream(tokenizer, skip_special, after)
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that this token makes certain. UsageError if there is no such id."""
        return self._characters.decode(self._stream.push(token_id))

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        return self._characters.decode(b"", final=True)
