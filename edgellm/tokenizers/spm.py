"""SentencePiece's BPE (`tokenizer.ggml.model` = llama), over the `sentencepiece` library.

The library reads a model as a protocol buffer, so the vocabulary is written as one: ModelProto of
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto. Pairs of pieces are
merged by the score of what they make; what is no piece becomes byte tokens.
"""

from __future__ import annotations

import struct

import numpy as np

from edgellm.errors import FormatError
from edgellm.tokenizers.kinds import byte_of
from edgellm.tokenizers.vocabulary import TokenType, Vocabulary

_SPACE = "▁"
_EMPTY = "\ufdd0empty"  # and its id: how a token without text is spelled for the library, which wants one


class SentencePiece:
    """The Kind for SentencePiece models. FormatError if there are no scores, or no unknown token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        # Here, because most models start without it, and it takes its time.
        from sentencepiece import SentencePieceProcessor

        if vocabulary.scores is None:
            raise FormatError("tokenizer.ggml.scores is missing: a SentencePiece vocabulary needs it")
        self._tokens = vocabulary.tokens
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model_proto(vocabulary))
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"tokenizer.ggml.tokens make no SentencePiece model: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens; spaces are kept as they are."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def piece(self, token_id: int) -> bytes:
        """The bytes of a normal token."""
        return self._tokens[token_id].replace(_SPACE, " ").encode()


def model_proto(vocabulary: Vocabulary) -> bytes:
    """The vocabulary as a serialized ModelProto, with whose encoding SentencePiece agrees with GGUF."""
    types = _library_types(vocabulary)
    scores = np.zeros(len(types), np.float32) if vocabulary.scores is None else vocabulary.scores
    texts = [text or f"{_EMPTY}{i}" for i, text in enumerate(vocabulary.tokens)]
    pieces = map(_piece, texts, scores.tolist(), types.tolist())
    byte_fallback = bool((types == TokenType.BYTE).any())
    trainer = _number(3, 2) + _number(35, byte_fallback)  # model_type = BPE, byte_fallback
    # No normalization, no dummy prefix (the tokenizer adds it), no squeezing, spaces escaped.
    normalizer = _bytes(1, b"identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)
    return b"".join(pieces) + _bytes(2, trainer) + _bytes(3, normalizer)


def _library_types(vocabulary: Vocabulary) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Types as the library should take them; [vocab_size].

    User-defined tokens were cut out already, so left-over spellings merge like any text. Tokens without text
    become control tokens, which no text becomes. The library wants exactly one unknown token, and, with
    bytes, each of the 256 once.
    """
    types = vocabulary.types.copy()
    types[types == TokenType.USER_DEFINED] = TokenType.NORMAL
    empty = np.array([not text for text in vocabulary.tokens])
    types[empty & (types != TokenType.UNKNOWN)] = TokenType.CONTROL
    unknown = np.flatnonzero(types == TokenType.UNKNOWN)
    first = vocabulary.special_ids.get("unk", int(unknown[0]) if len(unknown) else 0)
    types[unknown] = TokenType.CONTROL
    types[first] = TokenType.UNKNOWN
    found = {byte_of(vocabulary.tokens[i], i) for i in vocabulary.of_type(TokenType.BYTE)}
    if found and len(found) != 256:
        raise FormatError(f"tokenizer.ggml.tokens has byte tokens for {len(found)} of the 256 bytes")
    return types


def _piece(text: str, score: float, kind: int) -> bytes:
    body = _bytes(1, text.encode()) + struct.pack("<Bf", 2 << 3 | 5, score) + _number(3, kind)
    return _bytes(1, body)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
