"""The project's own catalogue, and what is said of a broken one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgellm.config import DEFAULT_MODEL
from edgellm.errors import FormatError
from edgellm.hub.entries import catalogue, nearest, read_catalogue
from edgellm.hub.huggingface import HuggingFaceSource
from edgellm.hub.pypi import PyPISource
from edgellm.hub.repository import quant_of
from edgellm.sampling import SamplingParams

ENTRY = """
[models."tiny:1m"]
description = "d"
license = "l"
parameters = "1M"
quant = "Q8_0"
sources = [{ kind = "huggingface", repo = "user/repo", file = "tiny.gguf" }]
"""


def test_the_default_model_comes_from_the_package_index_first():
    entry = catalogue()[DEFAULT_MODEL]
    assert isinstance(entry.sources[0], PyPISource)
    assert entry.file_bytes == 98_362_432
    assert entry.expected.sha256 == entry.sha256 is not None


@pytest.mark.parametrize("name", catalogue())
def test_every_entry_agrees_with_its_files(name):
    entry = catalogue()[name]
    for source in entry.sources:
        file = source.file if isinstance(source, HuggingFaceSource) else source.member
        assert quant_of(file) == entry.quant, "all sources of a name hold the quant type that it states"
    assert entry.description
    assert entry.license
    SamplingParams(**entry.sampling)


def test_a_size_without_a_checksum_is_not_a_demand():
    estimates = [entry for entry in catalogue().values() if entry.file_bytes and not entry.sha256]
    assert estimates
    assert all(entry.expected.file_bytes is None for entry in estimates)


def test_nearest_names_the_family_first_and_then_what_looks_alike():
    names = ["smollm2:135m", "smollm2:360m", "qwen3:4b"]
    assert nearest("smollm2", names) == ["smollm2:135m", "smollm2:360m"]
    assert nearest("qwen3.4b", names) == ["qwen3:4b"]
    assert nearest("zzzzzz", names) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tiny:1m", "Tiny", "small letters"),
        ('license = "l"', "license = 3", "`license` is 3"),
        ('license = "l"', "", "`license` is None"),
        ('"huggingface"', '"gopher"', "'gopher' is none of pypi, huggingface"),
        ('file = "tiny.gguf"', 'fil = "tiny.gguf"', "has the fields repo, file, not repo, fil"),
        ('quant = "Q8_0"', 'quant = "Q8_0"\nsha256 = "12"', "not 64 hexadecimal digits"),
        ('license = "l"', 'license = "l"\nsampling.top_k = "7"', "`sampling.top_k` is '7', not a number"),
        ("description", "= description", "cannot be read"),
    ],
)
def test_a_broken_catalogue_names_the_field(tmp_path: Path, old, new, said):
    path = tmp_path / "catalog.toml"
    path.write_text(ENTRY)
    assert list(read_catalogue(path)) == ["tiny:1m"]
    path.write_text(ENTRY.replace(old, new, 1))
    with pytest.raises(FormatError, match=said):
        read_catalogue(path)
