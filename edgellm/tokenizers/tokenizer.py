"""The tokenizer of a model file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import FormatError, UsageError
from edgellm.gguf import GGUFFile, open_gguf
from edgellm.tokenizers.bpe import Bpe
from edgellm.tokenizers.decoder import ByteStream
from edgellm.tokenizers.kinds import Kind, token_bytes
from edgellm.tokenizers.pre import find_pre
from edgellm.tokenizers.special import SpecialSplitter, end_ids, mark_end_tokens
from edgellm.tokenizers.spm import SentencePiece
from edgellm.tokenizers.vocabulary import PREFIX, TokenType, Vocabulary, read_vocabulary

KINDS: dict[str, type[Kind]] = {"gpt2": Bpe, "llama": SentencePiece}

# Plain integers: these are asked about once a token.
_SPECIAL = frozenset(map(int, (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)))
_SKIPPED = frozenset(map(int, (TokenType.CONTROL, TokenType.UNKNOWN)))


class Tokenizer:
    """Text to token ids and back, as a GGUF file's metadata says.

    `source` is the path of a .gguf (one without weights will do) or an opened file; it is read at
    once and may be closed. FormatError if the metadata is broken, UnsupportedError if the kind of
    tokenizer or of pre-tokenizer is not known.

    vocab_size       how many token ids there are
    bos_id, eos_id   begin of text, end of text; None if there is none
    end_ids          all ids that end a generation
    add_bos, add_eos what `encode` adds with add_special
    """

    def __init__(self, source: str | Path | GGUFFile) -> None:
        if isinstance(source, str | Path):
            with open_gguf(source) as file:
                vocabulary = read_vocabulary(file.metadata, KINDS)
        else:
            vocabulary = read_vocabulary(source.metadata, KINDS)
        self._load(vocabulary)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """A tokenizer from metadata that is at hand, keys as in a GGUF file."""
        self = cls.__new__(cls)
        self._load(read_vocabulary(metadata, KINDS))
        return self

    def _load(self, vocabulary: Vocabulary) -> None:
        mark_end_tokens(vocabulary)
        self._types: list[int] = vocabulary.types.tolist()
        self._bytes: dict[int, bytes] = {}
        self._kind = KINDS[vocabulary.model](vocabulary)
        sentencepiece = vocabulary.model == "llama"
        self._read_ids(vocabulary, {"bos": 1, "eos": 2} if sentencepiece else {})
        self._vocabulary = replace(vocabulary, merges=[])  # 20 MB of text that the engine has
        add_bos = sentencepiece or find_pre(vocabulary.pre).add_bos
        self.add_bos = _adds(vocabulary, "bos", add_bos, self.bos_id)
        self.add_eos = _adds(vocabulary, "eos", False, self.eos_id)
        self.add_space_prefix = sentencepiece and vocabulary.flags.get("add_space_prefix", True)

    def _read_ids(self, vocabulary: Vocabulary, defaults: Mapping[str, int]) -> None:
        stated = vocabulary.special_ids
        known = {**{k: i for k, i in defaults.items() if i < len(vocabulary.tokens)}, **stated}
        self.bos_id = known.get("bos")
        self.eos_id = known.get("eos")
        self.end_ids = end_ids(vocabulary, [self.eos_id, stated.get("eot"), stated.get("eom")])

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary.tokens)

    @property
    def chat_template(self) -> str | None:
        """The file's chat template (Jinja2), if it has one."""
        return self._vocabulary.chat_template

    @property
    def bos_text(self) -> str:
        """How the begin of text is spelled; "" if there is none."""
        return "" if self.bos_id is None else self.token_text(self.bos_id)

    @property
    def eos_text(self) -> str:
        """How the end of text is spelled; "" if there is none."""
        return "" if self.eos_id is None else self.token_text(self.eos_id)

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        `add_special` adds the begin and end of text where the file asks for them. `parse_special`
        takes control tokens that are spelled in the text for what they say: for texts that a chat
        template made, never for a user's. UsageError if the text is not valid Unicode.
        """
        ids = [self.bos_id] if add_special and self.add_bos and self.bos_id is not None else []
        at_start = True
        for part in self._splitter.split(_checked_text(text), parse_special):
            if isinstance(part, int):
                ids.append(part)
            else:
                prefix = " " if at_start and self.add_space_prefix else ""
                ids += self._kind.encode(prefix + part)
            at_start = isinstance(part, int)
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = False, after: int | None = None) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD. UsageError on an unknown id.

        `skip_special` leaves out control tokens; `after` is as in IncrementalDecoder.
        """
        stream = ByteStream(self, skip_special, after)
        return b"".join(map(stream.push, ids)).decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        """A token as the vocabulary spells it. UsageError if there is no such id."""
        return self._vocabulary.tokens[self._checked_id(token_id)]

    def token_bytes(self, token_id: int, skip_special: bool = False) -> bytes:
        """What a token adds to the output; b"" for control tokens if they are skipped."""
        known = self._checked_id(token_id)
        if skip_special and self._types[known] in _SKIPPED:
            return b""
        data = self._bytes.get(known)
        if data is None:
            data = self._bytes[known] = token_bytes(self._kind, self._vocabulary, known)
        return data

    def is_special(self, token_id: int) -> bool:
        """Whether a token is control, user-defined or unknown: cut out of a text before encoding."""
        return self._types[self._checked_id(token_id)] in _SPECIAL

    @cached_property
    def _splitter(self) -> SpecialSplitter:
        return SpecialSplitter(self._vocabulary)

    def _checked_id(self, token_id: int) -> int:
        if type(token_id) is int and 0 <= token_id < len(self._types):
            return token_id
        if isinstance(token_id, bool) or not isinstance(token_id, int | np.integer):
            raise UsageError(f"a token id is an integer, not {token_id!r}", param="ids")
        if not 0 <= token_id < self.vocab_size:
            raise UsageError(
                f"token id {token_id} is not in the vocabulary, whose ids are 0 to {self.vocab_size - 1}",
                param="ids",
            )
        return int(token_id)


def _adds(vocabulary: Vocabulary, name: str, default: bool, token_id: int | None) -> bool:
    """Whether each text gets that token: as the file states, else as its kind of tokenizer does."""
    key = f"{PREFIX}add_{name}_token"
    stated = vocabulary.flags.get(f"add_{name}_token")
    add = default if stated is None else stated
    if not add or token_id is not None:
        return add
    if stated:
        why = f"{key} is true"
    else:
        kind = "SentencePiece" if vocabulary.model == "llama" else f"the pre-tokenizer {vocabulary.pre!r}"
        why = f"{kind} adds the {name} token unless {key} is false"
    raise FormatError(f"{why}, but {PREFIX}{name}_token_id is missing; the file needs converting again")


def _checked_text(text: str) -> str:
    if not isinstance(text, str):
        raise UsageError(f"a text is a str, not {type(text).__name__}", param="text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the text holds half of a surrogate pair, U+{ord(text[error.start]):04X}, at character "
            f"{error.start}; pass whole characters",
            param="text",
        ) from None
    return text
