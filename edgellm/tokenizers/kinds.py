"""What a kind of tokenizer provides; what all kinds share is in `tokenizer.py`."""

from __future__ import annotations

from typing import Protocol

from edgellm.errors import FormatError
from edgellm.tokenizers.vocabulary import TokenType, Vocabulary


class Kind(Protocol):
    """One kind of tokenizer, made from a vocabulary.

    All is built at once: what building takes in memory is given back before the weights come. FormatError
    if that cannot be done.
    """

    def __init__(self, vocabulary: Vocabulary) -> None: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that holds no special tokens."""
        ...

    def piece(self, token_id: int) -> bytes:
        """The bytes of a normal token. (All other types are the same in every kind.)"""
        ...


def token_bytes(kind: Kind, vocabulary: Vocabulary, token_id: int) -> bytes:
    """The bytes that a token of any type stands for."""
    match vocabulary.types[token_id]:
        case TokenType.NORMAL:
            return kind.piece(token_id)
        case TokenType.CONTROL | TokenType.UNKNOWN | TokenType.USER_DEFINED:
            return vocabulary.tokens[token_id].encode()
        case TokenType.BYTE:
            return byte_of(vocabulary.tokens[token_id], token_id)
    return b""


def byte_of(text: str, token_id: int) -> bytes:
    """`<0x0A>` -> b"\\n"; FormatError if the token's text is not of that form."""
    try:
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes.fromhex(text[3:5])
    except ValueError:
        pass
    raise FormatError(
        f"tokenizer.ggml.tokens[{token_id}] is {text!r}, but token_type says that it is a byte, "
        "which is spelled <0x00> to <0xFF>; the file needs converting again"
    )
