"""What a model is loaded with, and what is refused."""

import subprocess
import sys

import pytest
from spelled_model import GREEDY, write_model
from tiny import tiny_llama

import edgellm
from edgellm import SamplingParams
from edgellm.gguf import TensorType


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "abacus"}, "backend 'abacus' is not one of"),
        ({"kv_type": "q9"}, "kv_type 'q9' is not one of"),
        ({"kv_type": ("f16", "f32", "f32")}, "or a pair of them"),
        ({"context_length": 0}, "context_length is 0"),
        ({"context_length": 257}, "context_length is 257, but the model was made for 256"),
        ({"max_sequences": 0}, "max_sequences is 0"),
        ({"threads": "two"}, "threads is 'two'"),
    ],
)
def test_what_cannot_be_loaded_says_why(model_path, arguments, message):
    with pytest.raises(edgellm.UsageError, match=message):
        edgellm.LLM(model_path, **{"backend": "reference", **arguments})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_type": 5}, "kv_type is 5"),
        ({"kv_type": (5, 5)}, r"kv_type is \(5, 5\)"),
        ({"memory_limit": "1G"}, "memory_limit is '1G'"),
        ({"memory_limit": -1}, "memory_limit is -1"),
        ({"memory_limit": True}, "memory_limit is True"),
        ({"threads": 9999}, "threads is 9999.* at most"),
    ],
)
def test_wrong_options_are_wrong_usage(model_path, options, words):
    with pytest.raises(edgellm.UsageError, match=words):
        edgellm.LLM(model_path, backend="reference", **options)


def test_wrong_thread_counts_of_the_environment_are_wrong_usage(model_path, monkeypatch):
    monkeypatch.setenv("EDGELLM_THREADS", "9999")
    with pytest.raises(edgellm.UsageError, match=r"EDGELLM_THREADS is .9999.: .* to 1024"):
        edgellm.LLM(model_path, backend="reference")


@pytest.mark.parametrize(
    ("options", "helps"), [({"backend": "reference"}, False), ({"low_memory": True}, False), ({}, True)]
)
def test_too_little_memory_is_an_error_that_names_what_would_help(model_path, options, helps):
    with pytest.raises(edgellm.MemoryLimitError, match="may be used") as caught:
        edgellm.LLM(model_path, memory_limit=100_000, **options)
    assert ("low_memory (--low-memory)" in str(caught.value)) == helps


def test_a_memory_limit_bounds_the_cache(model_path):
    with edgellm.LLM(model_path, backend="reference", kv_type="f32", memory_limit=4 * 2**20) as llm:
        assert sum(llm.memory().values()) <= 4 * 2**20
        assert llm.generate("the", GREEDY).finish_reason == "length"


def test_a_memory_limit_counts_what_the_backend_makes_of_the_file(tmp_path):
    path, limit = tiny_llama(tmp_path / "small.gguf", default=TensorType.Q4_0), 12 * 2**20
    options = {"kv_type": "q8_0", "low_memory": True, "memory_limit": limit, "max_sequences": 64}
    with edgellm.LLM(path, backend="reference", **options) as llm:
        assert limit / 3 < sum(llm.memory().values()) <= limit


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(edgellm.ModelNotFoundError):
        edgellm.LLM(tmp_path / "none.gguf")


def test_a_model_without_a_tokenizer_takes_token_ids(tmp_path):
    path = write_model(tmp_path / "bare.gguf", **{"tokenizer.ggml.model": None})
    with edgellm.LLM(path, backend="reference", max_sequences=1) as llm:
        assert len(llm.generate([5, 6, 7], SamplingParams(max_tokens=4)).token_ids) == 4
        assert llm.logits([5, 6, 7]).shape == (3, 262)
        with pytest.raises(edgellm.UnsupportedError, match="no tokenizer"):
            llm.generate("text")


def test_loading_tells_its_progress(tmp_path):
    path, told = tiny_llama(tmp_path / "tiny.gguf"), []
    edgellm.LLM(path, context_length=64, progress=lambda *args: told.append(args)).close()
    steps = [(done, total) for what, done, total in told if what == "packing weights"]
    assert steps[0] == (0, steps[-1][1])
    assert steps[-1][0] == steps[-1][1] > 0
    assert steps == sorted(steps)


def test_importing_is_quick_and_names_are_all_there():
    code = "import sys, edgellm; print(*{'numpy', 'numba', 'jinja2', 'tokenizers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    for name in edgellm.__all__:
        assert getattr(edgellm, name) is not None
    assert set(edgellm.__all__) <= set(dir(edgellm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgellm.nothing  # noqa: B018


def test_the_llm_module_loads_no_compiler():
    code = "import sys, edgellm.llm; sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
