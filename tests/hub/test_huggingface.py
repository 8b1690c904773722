"""Models of a hub repository, against a hub on 127.0.0.1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.errors import DownloadError, ModelNotFoundError, UnsupportedError, UsageError
from edgellm.hub import installed, remove, resolve
from edgellm.hub.huggingface import choose_file, quant_of

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


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_0.gguf", "Q4_0"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("Q8_0/model-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ("gemma-3-1b-it-UD-IQ3_XXS.gguf", "UD-IQ3_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("model.BF16.gguf", "BF16"),
        ("model-TQ1_0.gguf", "TQ1_0"),
        ("Q3.gguf", "Q3"),
        ("phi-4.gguf", ""),
    ],
)
def test_the_quant_type_is_read_from_the_name(name, quant):
    assert quant_of(name) == quant


@pytest.mark.parametrize(
    ("files", "quant", "chosen"),
    [
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_0.gguf"], None, "m-Q4_K_M.gguf"),
        (["m-Q8_0.gguf", "m-Q4_0.gguf"], None, "m-Q4_0.gguf"),
        (["m-Q8_0.gguf", "m-F16.gguf"], None, "m-Q8_0.gguf"),
        (["m.gguf", "README.md"], None, "m.gguf"),
        (["m-Q6_K.gguf", "mmproj-Q8_0.gguf", "m-imatrix.gguf"], None, "m-Q6_K.gguf"),
        (["m-Q8_0.gguf", "m-q4_k_m.gguf"], "Q8_0", "m-Q8_0.gguf"),
        (["m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf"], "q4_k_xl", "m-UD-Q4_K_XL.gguf"),
        (["deep/folder/m-Q4_0.gguf", "m-Q4_0.gguf"], None, "m-Q4_0.gguf"),
    ],
)
def test_the_file_that_is_meant(fake_hub, files, quant, chosen):
    fake_hub.repos["user/repo"] = dict.fromkeys(files, b"GGUF")
    assert choose_file("user/repo", quant) == chosen


@pytest.mark.parametrize(
    ("files", "quant", "error", "said"),
    [
        (["m-Q8_0.gguf", "m-Q6_K.gguf"], "Q2_K", ModelNotFoundError, "no Q2_K; it has: Q6_K, Q8_0"),
        (["m-Q5_0.gguf", "m-Q6_K.gguf"], None, UsageError, "choose one.*Q5_0, Q6_K"),
        (["README.md"], None, ModelNotFoundError, "no .gguf"),
        (["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"], None, UnsupportedError, "split set"),
    ],
)
def test_a_repository_that_does_not_fit_says_what_it_has(fake_hub, files, quant, error, said):
    fake_hub.repos["user/repo"] = dict.fromkeys(files, b"GGUF")
    with pytest.raises(error, match=said):
        choose_file("user/repo", quant)


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
    assert remove("hf.co/user/tiny-GGUF:Q8_0").kept == cached
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
