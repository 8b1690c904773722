"""The model of these tests, on the reference backend."""

import pytest
from spelled_model import write_model

import edgellm


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def llm(model_path):
    with edgellm.LLM(model_path, backend="reference", max_sequences=4) as llm:
        yield llm
