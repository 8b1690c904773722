"""Cutting a text at the special tokens that are spelled in it, and which tokens those are."""

from __future__ import annotations

from collections.abc import Iterable

from edgellm.tokenizers.vocabulary import TokenType, Vocabulary

# Spellings of tokens that end a generation; files rarely say more than eos and at most eot.
# From llama.cpp, src/llama-vocab.cpp.
END_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    # Between files in code completion: nothing of the answer comes after them.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<reponame>",
    "<|file_sep|>",
)
# These may be ordinary words of a vocabulary (Qwen2 has learnt </s>, as in HTML), so they count only
# if the file says that they are special.
_AMBIGUOUS = frozenset({"</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"})
_CHANNEL_ENDS = ({"<|return|>", "<|call|>"}, {"<|flush|>", "<|calls|>"})
_ASCII_SPACE = " \t\n\v\f\r"


def mark_end_tokens(vocabulary: Vocabulary) -> None:
    """Give the type CONTROL to every token spelled like an end, whatever a careless file says."""
    for text in END_TEXTS:
        token_id = _spelled(vocabulary, text)
        if token_id is not None:
            vocabulary.types[token_id] = TokenType.CONTROL


def _spelled(vocabulary: Vocabulary, text: str) -> int | None:
    token_id = vocabulary.ids.get(text)
    if token_id is None or (text in _AMBIGUOUS and vocabulary.types[token_id] == TokenType.NORMAL):
        return None
    return token_id


def end_ids(vocabulary: Vocabulary, stated: Iterable[int | None]) -> frozenset[int]:
    """Ids that end a generation: those that the file states, and the known spellings."""
    texts = set(END_TEXTS)
    # Where a reply has channels, <|end|> only ends one of them.
    if any(pair <= vocabulary.ids.keys() for pair in _CHANNEL_ENDS):
        texts.discard("<|end|>")
    if "<|tool_response>" in vocabulary.ids:
        texts.discard("</s>")
    candidates = [*(_spelled(vocabulary, text) for text in texts), *stated]
    return frozenset(i for i in candidates if i is not None)


class SpecialSplitter:
    """Cuts texts at special tokens: the longest spellings first, each wherever it is found."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokens = vocabulary.tokens
        ids = vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
        longest_first = sorted((i for i in ids if tokens[i]), key=lambda i: -len(tokens[i].encode()))
        self._all = [(tokens[i], i) for i in longest_first]
        self._user = [(tokens[i], i) for i in longest_first if vocabulary.types[i] == TokenType.USER_DEFINED]
        self._stripping = _stripping(vocabulary, longest_first)

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """Pieces of text and, between them, token ids. No piece is empty.

        User-defined tokens are always found, control tokens only if `parse_special`.
        """
        taken = bytearray(len(text))  # 1 where a token is, or what it swallows
        hits: list[tuple[int, int, int]] = []
        for spelling, token_id in self._all if parse_special else self._user:
            places = _take(text, spelling, taken)
            if token_id in self._stripping:
                places = [(begin, _take_space(text, end, taken)) for begin, end in places]
            hits += [(begin, end, token_id) for begin, end in places]
        parts: list[str | int] = []
        done = 0
        for begin, end, token_id in sorted(hits):
            if begin > done:
                parts.append(text[done:begin])
            parts.append(token_id)
            done = end
        return [*parts, text[done:]] if done < len(text) else parts


def _take(text: str, spelling: str, taken: bytearray) -> list[tuple[int, int]]:
    """Where the spelling begins and ends, wherever nothing is taken yet; takes these places."""
    places = []
    begin = text.find(spelling)
    while begin >= 0:
        end = begin + len(spelling)
        last = taken.rfind(1, begin, end)
        if last < 0:
            taken[begin:end] = b"\1" * len(spelling)
            places.append((begin, end))
        else:  # go on behind all that is taken there, not one by one: it may be long
            end = taken.find(0, last)
            if end < 0:
                break
        begin = text.find(spelling, end)
    return places


def _take_space(text: str, begin: int, taken: bytearray) -> int:
    """Takes the white space from here on; gives its end."""
    end = begin
    while end < len(text) and not taken[end] and text[end] in _ASCII_SPACE:
        taken[end] = 1
        end += 1
    return end


def _stripping(vocabulary: Vocabulary, ids: Iterable[int]) -> frozenset[int]:
    """Special tokens that swallow the white space after them.

    GGUF has no key for this, and only Phi-3 needs it: told by the model's name, as in llama.cpp.
    """
    if not any(name in vocabulary.name.lower() for name in ("phi-3", "phi3")):
        return frozenset()
    return frozenset(i for i in ids if vocabulary.tokens[i] not in ("<unk>", "<s>", "<|endoftext|>"))
