"""Byte-level byte-pair encoding (`tokenizer.ggml.model` = gpt2), over the `tokenizers` library.

A text's UTF-8 bytes are written as 256 printable characters (GPT-2's alphabet), cut into words by the
pre-tokenizer's patterns, and within each word the adjacent pair of the lowest rank is merged until
there is none.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Engine

from edgellm.errors import FormatError
from edgellm.tokenizers.pre import find_pre
from edgellm.tokenizers.vocabulary import Vocabulary

Merge = tuple[str, str]


def _alphabet() -> list[str]:
    """GPT-2's character for each byte: itself if printable, else the next from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


ALPHABET = _alphabet()
_BYTES = {char: bytes([byte]) for byte, char in enumerate(ALPHABET)}

# A byte that the vocabulary lacks takes its place in the word as this, so that its neighbours do not
# merge across it; then it is left out.
_ABSENT = "\ufdd0absent"


class Bpe:
    """The Kind for byte-level BPE. UnsupportedError if the pre-tokenizer is unknown."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokens = vocabulary.tokens
        pre = find_pre(vocabulary.pre)
        self._engine = Engine(_model(vocabulary, pre.ignore_merges))
        split = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in pre.patterns]
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._engine.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        ids: list[int] = self._engine.encode_batch_fast([text], add_special_tokens=False)[0].ids
        absent = len(self._tokens)
        return [i for i in ids if i != absent] if absent in ids else ids

    def piece(self, token_id: int) -> bytes:
        """The bytes of a normal token; a character outside the alphabet stands for itself."""
        text = self._tokens[token_id]
        return b"".join(_BYTES.get(char) or char.encode() for char in text)


def _model(vocabulary: Vocabulary, ignore_merges: bool) -> models.BPE:
    ids = vocabulary.ids
    complete = all(char in ids for char in ALPHABET)
    vocab = ids if complete else {**ids, _ABSENT: len(vocabulary.tokens)}
    unknown = None if complete else _ABSENT
    merges = [  # `split` cuts nearly all, in two thirds of the time; Llama 3 has 280 thousand
        (pair[0], pair[1]) if len(pair := text.split(" ")) == 2 and pair[0] else _merge(text, rank)
        for rank, text in enumerate(vocabulary.merges)
    ]

    def make(merges: list[Merge]) -> models.BPE:
        return models.BPE(vocab, merges, unk_token=unknown, ignore_merges=ignore_merges)

    try:
        return make(merges)
    except Exception:  # the library raises no narrower class: a merge names an absent token
        return make(list(_usable(merges, ids)))


def _merge(text: str, rank: int) -> Merge:
    """Two tokens of which one has a space: the first may begin with it, so the cut is not before that."""
    cut = text.find(" ", 1)
    if cut < 0:
        raise FormatError(f"tokenizer.ggml.merges[{rank}] is {text!r}, not two tokens with a space between")
    return text[:cut], text[cut + 1 :]


def _usable(merges: Iterable[Merge], ids: dict[str, int]) -> Iterable[Merge]:
    return (m for m in merges if m[0] in ids and m[1] in ids and m[0] + m[1] in ids)
