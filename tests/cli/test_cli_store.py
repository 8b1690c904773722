"""`edgellm list`, `rm`, `pull` and `tokenize`."""

from __future__ import annotations

import json

import pytest

from edgellm import hub
from edgellm.config import DEFAULT_MODEL


def put(tmp_path, data=b"GGUF"):
    path = tmp_path / "home" / "models" / "smollm2" / "360m.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_list_has_the_store_and_the_catalogue(cli, tmp_path):
    path = put(tmp_path)
    rows = cli("list", "--json").json
    assert {r["name"] for r in rows} >= set(hub.catalogue())
    assert [(r["name"], r["bytes"], r["path"]) for r in rows if r["installed"]] == [
        ("smollm2:360m", 4, str(path))
    ]
    assert DEFAULT_MODEL in cli("list").out


def test_rm_takes_a_model_away(cli, tmp_path):
    path = put(tmp_path)
    ended = cli("rm", "smollm2:360m", "--json")
    assert (ended.code, ended.json) == (0, {"name": "smollm2:360m", "freed_bytes": 4})
    assert not path.exists()
    again = cli("rm", "smollm2:360m")
    assert again.code == 1
    assert "not in the model store" in again.err


def test_pull_prints_where_the_model_is(cli, monkeypatch, tmp_path):
    path = put(tmp_path)

    def pull(name, progress):
        progress("downloading", 1, 2)
        return path

    monkeypatch.setattr(hub, "pull", pull)
    assert cli("pull", "smollm2:360m").out == f"{path}\n"
    assert cli("pull", "smollm2:360m", "--json").json["bytes"] == 4


def test_pull_of_what_nobody_knows(cli):
    ended = cli("pull", "smollm2:136m")
    assert ended.code == 1
    assert "smollm2:135m" in ended.err


@pytest.fixture
def vocabulary(shared):
    return shared("vocabs") / "ggml-vocab-gpt-2.gguf"


def test_tokenize_as_the_reference_does(cli, vocabulary):
    texts = vocabulary.with_name(vocabulary.name + ".inp").read_text().split("\n__ggml_vocab_test__\n")
    expected = vocabulary.with_name(vocabulary.name + ".out").read_text().split("\n")
    for text, ids in list(zip(texts, expected, strict=False))[:12]:
        ended = cli("tokenize", str(vocabulary), text, "--no-special", "--json")
        assert ended.json == {"tokens": [int(i) for i in ids.split()]}


def test_tokenize_reads_files_and_stdin(cli, vocabulary, tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes("Grüße\r\n".encode())
    from_file = cli("tokenize", str(vocabulary), "--file", str(file), "--json")
    assert from_file.json == cli("tokenize", str(vocabulary), "--json", stdin="Grüße\r\n").json
    assert "'Gr" in cli("tokenize", str(vocabulary), "Grüße").out


@pytest.mark.parametrize("arguments", [("x", "--file", "y"), ("--file", "BINARY")])
def test_tokenize_wrongly_used(cli, vocabulary, tmp_path, arguments):
    (tmp_path / "binary").write_bytes(b"\xff\xff")
    given = [str(tmp_path / "binary") if a == "BINARY" else a for a in arguments]
    assert cli("tokenize", str(vocabulary), *given).code == 2


def test_tokenize_a_file_that_is_not_there(cli, vocabulary):
    ended = cli("tokenize", str(vocabulary), "--file", "no/such.txt", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert json.dumps("no/such.txt").strip('"') in ended.err
