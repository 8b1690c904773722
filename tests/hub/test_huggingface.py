"""Models of a hub repository, against a hub on 127.0.0.1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.errors import DownloadError, UsageError
from edgellm.hub import installed, remove, resolve

ENTRY = """
[models."tiny:1m"]
description = "d"
license = "l"
parameters = "1M"
quant = "Q8_0"
sources = [
    { kind = "pypi", package = "tiny-model", version = "1.0", member = "tiny.gguf" },
    { kind = "huggingface", repo = "user/tiny-GGUF", file = "tiny-Q8_0.gguf" },
]
"""


def test_a_repositorys_file_is_pulled_once_and_stays_in_the_shared_cache(home, fake_hub, tmp_path: Path):
    data = b"GGUF" + bytes(300_000)
    fake_hub.repos["user/tiny-GGUF"] = {"tiny-Q8_0.gguf": data}
    seen = []
    path = resolve("hf.co/user/tiny-GGUF:q8_0", lambda *report: seen.append(report))
    assert path.read_bytes() == data
    assert ("downloading tiny-Q8_0.gguf", len(data), len(data)) in seen
    assert path.resolve().is_relative_to(tmp_path / "hub-cache")

    fake_hub.gets.clear()
    assert resolve("hf.co/user/tiny-GGUF:Q8_0") == path
    assert fake_hub.gets == []
    assert [model.name for model in installed()] == ["hf.co/user/tiny-GGUF:Q8_0"]

    cached = path.resolve()
    assert remove("hf.co/user/tiny-GGUF:Q8_0").kept == (cached,)
    assert cached.read_bytes() == data
    resolve("hf.co/user/tiny-GGUF")
    assert not any("resolve" in get for get in fake_hub.gets), "the cache still has it"


def test_the_second_source_is_tried_when_the_first_fails(home, use_catalogue, wheels, fake_hub):
    use_catalogue(ENTRY)
    fake_hub.repos["user/tiny-GGUF"] = {"tiny-Q8_0.gguf": b"GGUF" * 100}
    assert resolve("tiny:1m").read_bytes() == b"GGUF" * 100


def test_every_source_that_failed_is_named(home, use_catalogue, wheels, fake_hub):
    use_catalogue(ENTRY)
    with pytest.raises(DownloadError, match=r"tiny-model 1\.0: pip says.*; .*user/tiny-GGUF: there is no"):
        resolve("tiny:1m")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ((401, "GatedRepo"), "HF_TOKEN"),
        ((404, "RepoNotFound"), "no public repository"),
        ((404, "EntryNotFound"), "does not have that file"),
        ((403, ""), "403"),
    ],
)
def test_a_refusal_is_a_sentence(home, use_catalogue, fake_hub, error, said):
    use_catalogue(
        ENTRY.replace('{ kind = "pypi", package = "tiny-model", version = "1.0", member = "tiny.gguf" },', "")
    )
    fake_hub.error = error
    with pytest.raises(DownloadError, match=said):
        resolve("tiny:1m")
    assert installed() == []


def test_bytes_that_are_not_the_published_ones_are_refused_and_forgotten(home, fake_hub, tmp_path: Path):
    data = b"GGUF" * 1000
    fake_hub.repos["user/repo"] = {"m-Q8_0.gguf": data}
    fake_hub.wrong_bytes = b"FUGG" * 1000
    with pytest.raises(DownloadError, match="sha256"):
        resolve("hf.co/user/repo")
    assert installed() == []
    fake_hub.wrong_bytes = None
    assert resolve("hf.co/user/repo").read_bytes() == data


def test_a_file_that_is_damaged_in_the_cache_is_fetched_again(home, fake_hub):
    data = b"GGUF" * 1000
    fake_hub.repos["user/repo"] = {"m-Q8_0.gguf": data}
    resolve("hf.co/user/repo").resolve().write_bytes(b"FUGG" * 1000)
    remove("hf.co/user/repo")
    path = resolve("hf.co/user/repo")
    assert path.read_bytes() == data

    path.resolve().write_bytes(b"FUGG" * 1000)
    remove("hf.co/user/repo")
    answer = fake_hub._send_file
    fake_hub._send_file = lambda request, data: fake_hub.wire.answer(request, 403, {}, b"")
    with pytest.raises(DownloadError, match=r"was damaged, and is removed; .*403"):
        resolve("hf.co/user/repo")
    fake_hub._send_file = answer
    assert resolve("hf.co/user/repo").read_bytes() == data


def test_a_checksum_of_the_catalogue_binds_the_repository_too(home, use_catalogue, wheels, fake_hub):
    use_catalogue(ENTRY.replace('quant = "Q8_0"', f'quant = "Q8_0"\nsha256 = "{"0" * 64}"'))
    fake_hub.repos["user/tiny-GGUF"] = {"tiny-Q8_0.gguf": b"GGUF"}
    with pytest.raises(DownloadError, match="but 0000"):
        resolve("tiny:1m")


@pytest.mark.parametrize("name", ["hf.co/user", "hf.co/user/repo/file", "hf.co/user/repo:", "hf.co/../x y"])
def test_a_name_of_another_form_is_refused(home, name):
    with pytest.raises(UsageError, match=r"hf\.co/USER/REPO:QUANT"):
        resolve(name)


def test_the_hubs_own_variables_are_honoured(home, fake_hub, tmp_path: Path):
    fake_hub.repos["user/repo"] = {"m-Q8_0.gguf": b"GGUF"}
    cache = tmp_path / "cache of the environment"
    environment = {
        **os.environ,
        "HF_ENDPOINT": fake_hub.url,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "0",
    }
    script = "from edgellm.hub import resolve; print(resolve('hf.co/user/repo').resolve())"
    child = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(child.stdout.strip()).is_relative_to(cache)
