"""`edgellm perplexity`."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from tiny import CONTEXT, VOCAB, tiny_llama

from edgellm import LLM, backends
from edgellm.backends.reference import ReferenceBackend
from edgellm.engine.perplexity import negative_log_probabilities

TEXT = "the quick brown fox jumps over the lazy dog, and it minds. " * 3
LETTERS = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"


def vocabulary(**changes):
    """SentencePiece of 256 bytes and some letters; begins its texts with <s>."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *LETTERS]
    assert len(tokens) == VOCAB
    types = [2, 3, 3, *[6] * 256, *[1] * len(LETTERS)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.zeros(VOCAB, np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        **changes,
    }


@pytest.fixture
def reference(monkeypatch):
    """The reference backend, which has nothing to compile."""
    find = backends.find
    monkeypatch.setattr(backends, "find", lambda name: find("reference"))
    assert backends.find("auto") is ReferenceBackend


@pytest.fixture
def model(tmp_path, reference):
    return str(tiny_llama(tmp_path / "tiny.gguf", metadata=vocabulary()))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


def by_hand(model, text, ctx):
    """The definition, from the library's own logits."""
    with LLM(model, backend="reference") as llm:
        tokens, losses = llm.tokenize(text), []
        for start in range(0, len(tokens) - ctx + 1, ctx):
            window = [llm.tokenizer.bos_id if llm.tokenizer.add_bos else tokens[start]]
            window += tokens[start + 1 : start + ctx]
            logits = llm.logits(window)[ctx // 2 : -1]
            losses.append(negative_log_probabilities(logits, window[ctx // 2 + 1 :]))
    return np.exp(np.concatenate(losses).mean()), sum(map(len, losses))


@pytest.mark.parametrize("ctx", [32, 50])
def test_it_is_what_the_logits_say(cli, model, text, ctx):
    ended = cli("perplexity", model, text, "--ctx", str(ctx), "--json")
    assert ended.code == 0, ended.err
    value, count = by_hand(model, TEXT, ctx)
    assert ended.json["perplexity"] == pytest.approx(value, rel=1e-3)
    assert ended.json["tokens"] == count
    shown = cli("perplexity", model, text, "--ctx", str(ctx)).out
    assert shown.startswith(f"perplexity {ended.json['perplexity']:.4f} ")
    assert shown.count("\n") == 1


def test_a_model_without_begin_of_text_keeps_its_first_tokens(cli, tmp_path, reference, text):
    plain = str(
        tiny_llama(tmp_path / "no.gguf", metadata=vocabulary(**{"tokenizer.ggml.add_bos_token": False}))
    )
    value, _ = by_hand(plain, TEXT, 32)
    assert cli("perplexity", plain, text, "--ctx", "32", "--json").json["perplexity"] == pytest.approx(
        value, rel=1e-3
    )


def test_an_end_of_text_is_no_token_of_the_file(cli, model, tmp_path, reference, text):
    ends = str(tiny_llama(tmp_path / "e.gguf", metadata=vocabulary(**{"tokenizer.ggml.add_eos_token": True})))
    tokens = len(cli("tokenize", model, "--file", text, "--json").json["tokens"])
    assert cli("perplexity", ends, text, "--ctx", str(tokens), "--json").code == 0
    assert cli("perplexity", ends, text, "--ctx", str(tokens + 1), "--json").code == 1


def test_one_newline_at_the_end_does_not_count(cli, model, tmp_path):
    with_newline, without = tmp_path / "a", tmp_path / "b"
    with_newline.write_text(TEXT + "\n")
    without.write_text(TEXT)
    count = len(cli("tokenize", model, "--file", str(without), "--json").json["tokens"])
    results = [
        cli("perplexity", model, str(f), "--ctx", str(count), "--json").out for f in (with_newline, without)
    ]
    assert results[0] == results[1] != ""


@pytest.mark.parametrize(
    ("content", "options", "code", "words"),
    [
        (b"too short", [], 1, ("512", "longer text")),
        (b"", [], 1, ("512",)),
        (b"caf\xe9 " * 50, ["--ctx", "16"], 2, ("UTF-8", "byte 3")),
        (TEXT.encode() * 20, ["--ctx", str(CONTEXT + 1)], 2, (str(CONTEXT),)),
        (TEXT.encode(), ["--ctx", "3"], 2, ("4",)),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(cli, model, tmp_path, content, options, code, words):
    path = tmp_path / "text"
    path.write_bytes(content)
    ended = cli("perplexity", model, str(path), *options, "--json")
    assert (ended.code, ended.out) == (code, "")
    assert all(word in ended.err for word in words), ended.err


def test_a_file_that_is_not_there(cli, model, tmp_path):
    ended = cli("perplexity", model, str(tmp_path / "none"))
    assert ended.code == 1
    assert "No such file" in ended.err


def test_help_states_the_definition(cli):
    said = " ".join(cli("perplexity", "--help").out.split())
    for part in ("llama.cpp", "windows", "middle", "begin of text", "exp of the mean"):
        assert part in said


def test_the_default_model_foresees_english(default_model, tmp_path):
    path = tmp_path / "text"
    path.write_text("The capital of France is Paris. The capital of Italy is Rome. " * 12)
    command = [
        sys.executable,
        "-m",
        "edgellm",
        "perplexity",
        default_model,
        str(path),
        "--ctx",
        "64",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # Two sentences over and over: within half a window it has seen them.
    assert 1 < json.loads(done.stdout)["perplexity"] < 2
