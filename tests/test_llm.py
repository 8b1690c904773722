"""The whole library over a tiny random model, on the reference backend where it is not said otherwise."""

import _thread
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from tiny import tiny_llama

import edgellm
from edgellm import SamplingParams
from edgellm.gguf import TensorType, write_gguf

HIDDEN, HEADS, LAYERS, FFN = 32, 4, 2, 48
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters():
    """GPT-2's spelling of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def write_model(path, **metadata):
    tokens = [*SPECIAL, *byte_letters(), "Ġt", "he"]
    rng = np.random.default_rng(1)

    def weight(*shape):
        return (rng.standard_normal(shape) * (1.5 / shape[-1] ** 0.5)).astype(np.float32)

    tensors = {
        "token_embd.weight": weight(len(tokens), HIDDEN) * 4,
        "output_norm.weight": np.ones(HIDDEN, np.float32),
    }
    for i in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{i}.{norm}.weight"] = np.ones(HIDDEN, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.{i}.{name}.weight"] = weight(HIDDEN, HIDDEN)
        for name, shape in (
            ("ffn_gate", (FFN, HIDDEN)),
            ("ffn_up", (FFN, HIDDEN)),
            ("ffn_down", (HIDDEN, FFN)),
        ):
            tensors[f"blk.{i}.{name}.weight"] = weight(*shape)
    settings = {
        "llama.context_length": 256,
        "llama.embedding_length": HIDDEN,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.merges": ["Ġ t", "h e"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
        **metadata,
    }
    write_gguf(path, "llama", {k: v for k, v in settings.items() if v is not None}, tensors)
    return path


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def llm(model_path):
    with edgellm.LLM(model_path, backend="reference", max_sequences=4) as llm:
        yield llm


GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def test_text_goes_to_tokens_and_back(llm):
    ids = llm.tokenize("the cat")
    assert ids[0] == 0
    assert llm.detokenize(ids[1:]) == "the cat"
    assert llm.tokenize("<s>", add_special=False) != llm.tokenize(
        "<s>", add_special=False, parse_special=True
    )
    assert llm.tokenizer.vocab_size == 262


def test_logits_have_a_row_for_every_token_and_only_look_back(llm):
    ids = llm.tokenize("the cat sat on the mat " * 8)
    rows = llm.logits(ids)
    assert rows.shape == (len(ids), 262)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(llm.logits(ids[:70]), rows[:70], rtol=0, atol=5e-3)


def test_generate_follows_the_logits(llm):
    answer = llm.generate("the cat", GREEDY)
    ids = llm.tokenize("the cat")
    assert answer.prompt_token_ids == ids
    for token in answer.token_ids:
        row = llm.logits(ids)[-1].copy()
        row[list(llm.tokenizer.end_ids)] = -np.inf
        assert row[token] == pytest.approx(row.max(), abs=1e-3)
        ids = [*ids, token]
    assert answer.text == llm.detokenize(answer.token_ids, skip_special=True)
    assert answer.finish_reason == "length"


def test_a_prompt_may_be_token_ids(llm):
    ids = llm.tokenize("the cat")
    for prompt in (ids, tuple(ids), np.array(ids)):
        assert llm.generate(prompt, GREEDY).token_ids == llm.generate("the cat", GREEDY).token_ids


def test_a_long_prompt_comes_in_chunks_and_counts_as_one(llm):
    ids = llm.tokenize("the cat sat on the mat " * 9)
    answer = llm.generate(ids, SamplingParams(temperature=0, max_tokens=1))
    assert answer.timings.prompt_tokens == len(ids) > 100
    assert answer.timings.cached_tokens <= len(ids) - 1
    again = llm.generate(ids, SamplingParams(temperature=0, max_tokens=1))
    assert again.timings.cached_tokens == len(ids) - 1
    assert again.token_ids == answer.token_ids


def test_a_list_in_gives_a_list_out_in_order(llm):
    prompts = ["the cat", "a", llm.tokenize("mat"), "the dog " * 9] * 3
    answers = llm.generate(prompts, GREEDY)
    assert [a.token_ids for a in answers] == [llm.generate(p, GREEDY).token_ids for p in prompts]
    assert llm.generate(["the cat"], GREEDY)[0].text == llm.generate("the cat", GREEDY).text
    assert llm.generate([], GREEDY) == []


def test_more_prompts_than_the_queue_holds_are_all_answered(llm):
    answers = llm.generate([[1, i] for i in range(4, 104)], SamplingParams(temperature=0, max_tokens=1))
    assert [a.prompt_token_ids[1] for a in answers] == list(range(4, 104))


def test_one_bad_prompt_raises_before_anything_runs(llm):
    before = llm.stats().requests
    with pytest.raises(edgellm.ContextLengthError, match="has 300 tokens, but the context holds 256"):
        llm.generate(["fine", [5] * 300], GREEDY)
    with pytest.raises(edgellm.UsageError, match="prompt is empty"):
        llm.generate(["fine", []], GREEDY)
    with pytest.raises(edgellm.UsageError, match="is no token id"):
        llm.generate([["a", "b"]], GREEDY)
    with pytest.raises(edgellm.UsageError, match="is a str or a list of token ids, not int"):
        llm.generate(5)
    with pytest.raises(edgellm.UsageError, match="params is a SamplingParams, not dict"):
        llm.generate("a", {"temperature": 0})
    assert llm.stats().requests == before


def test_choices_and_logprobs(llm):
    params = SamplingParams(
        temperature=5, top_k=0, min_p=0, seed=4, n=3, max_tokens=6, logprobs=2, ignore_eos=True
    )
    answer = llm.generate("the", params)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert answer.token_ids == answer.choices[0].token_ids
    assert len({tuple(c.token_ids) for c in answer.choices}) == 3
    for choice in answer.choices:
        assert [x.token_id for x in choice.logprobs] == choice.token_ids
        assert all(len(x.top) == 2 and x.logprob <= x.top[0][1] + 1e-6 for x in choice.logprobs)
    assert llm.generate("the", GREEDY).logprobs is None


def test_a_stream_is_the_answer_in_pieces(llm):
    stream = llm.stream("the cat", GREEDY)
    chunks = list(stream)
    assert "".join(c.text for c in chunks) == llm.generate("the cat", GREEDY).text
    assert chunks[-1].finish_reason == "length"
    assert stream.timings.completion_tokens == 12


def test_leaving_a_stream_cancels_it(llm):
    with llm.stream("the cat", SamplingParams(max_tokens=200, ignore_eos=True)) as stream:
        next(stream)
    _wait_until_idle(llm)
    assert list(stream) == []


def _wait_until_idle(llm):
    end = time.monotonic() + 5
    while llm.stats().running or llm.stats().waiting:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_stream_refuses_at_once(llm):
    with pytest.raises(edgellm.UsageError):
        llm.stream([])
    with pytest.raises(edgellm.UsageError, match="one prompt"):
        llm.stream(["a", "b"])


MESSAGES = [{"role": "user", "content": "the cat <s>"}]


def test_chat_renders_the_models_template(llm):
    answer = llm.chat(MESSAGES, params=GREEDY)
    tok = llm.tokenizer
    start, end = (tok.encode(s, add_special=False, parse_special=True) for s in SPECIAL[2:])
    assert answer.prompt_token_ids[:2] == [0, *start]
    assert answer.prompt_token_ids.count(end[0]) == 1
    assert "".join(c.text for c in llm.stream(MESSAGES, params=GREEDY)) == answer.text


def test_chat_takes_no_second_begin_of_text(tmp_path):
    path = write_model(tmp_path / "bos.gguf", **{"tokenizer.chat_template": "{{ bos_token }}" + TEMPLATE})
    with edgellm.LLM(path, backend="reference", max_sequences=1) as llm:
        assert llm.chat([{"role": "user", "content": "a"}], params=GREEDY).prompt_token_ids.count(0) == 1


def test_in_a_conversation_all_but_the_new_tokens_are_cached(llm):
    messages, known = [], 0
    for turn in range(5):
        messages.append({"role": "user", "content": f"{turn} the"})
        expected = llm.chat(messages, params=GREEDY)
        text = expected.text
        if "\ufffd" in text:
            text = "hello"
        messages.append({"role": "assistant", "content": text})
        assert expected.timings.cached_tokens >= known
        known = len(expected.prompt_token_ids)
    again = llm.chat(messages[:-1], params=GREEDY)
    assert again.timings.cached_tokens == len(again.prompt_token_ids) - 1


def test_chat_takes_the_files_own_sampling_unless_told_otherwise(tmp_path):
    metadata = {"general.sampling.temp": 0.25, "general.sampling.top_k": 7, "general.sampling.top_p": 9.0}
    path = write_model(tmp_path / "sampling.gguf", **metadata)
    with edgellm.LLM(path, backend="reference", max_sequences=1) as llm:
        params = llm._loaded.default_params()
        assert (params.temperature, params.top_k, params.top_p) == (0.25, 7, 0.95)


def test_where_the_file_recommends_no_sampling_the_catalogue_may(tmp_path, monkeypatch):
    monkeypatch.setattr(edgellm.hub, "recommended_sampling", lambda model: {"temperature": 0.5})
    for metadata, expected in (({}, (0.5, 40)), ({"general.sampling.top_k": 7}, (0.8, 7))):
        path = write_model(tmp_path / "sampling.gguf", **metadata)
        with edgellm.LLM(path, backend="reference", max_sequences=1) as llm:
            params = llm._loaded.default_params()
            assert (params.temperature, params.top_k) == expected


def test_a_language_model_does_not_embed(llm):
    with pytest.raises(edgellm.UsageError, match="makes no embeddings"):
        llm.embed(["a"])


def test_a_model_without_a_tokenizer_takes_token_ids(tmp_path):
    path = write_model(tmp_path / "bare.gguf", **{"tokenizer.ggml.model": None})
    with edgellm.LLM(path, backend="reference", max_sequences=1) as llm:
        assert len(llm.generate([5, 6, 7], SamplingParams(max_tokens=4)).token_ids) == 4
        assert llm.logits([5, 6, 7]).shape == (3, 262)
        with pytest.raises(edgellm.UnsupportedError, match="no tokenizer"):
            llm.generate("text")


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


def test_a_closed_model_says_so(model_path):
    llm = edgellm.LLM(model_path, backend="reference", max_sequences=1)
    llm.close()
    llm.close()
    with pytest.raises(edgellm.EngineClosedError):
        llm.generate("the")


def test_loading_tells_its_progress(tmp_path):
    path, told = tiny_llama(tmp_path / "tiny.gguf"), []
    edgellm.LLM(path, context_length=64, progress=lambda *args: told.append(args)).close()
    steps = [(done, total) for what, done, total in told if what == "packing weights"]
    assert steps[0] == (0, steps[-1][1])
    assert steps[-1][0] == steps[-1][1] > 0
    assert steps == sorted(steps)


@pytest.mark.parametrize("on_engines_thread", [False, True])
def test_a_model_that_nobody_holds_gives_everything_back(model_path, on_engines_thread):
    llm = edgellm.LLM(model_path, backend="reference", max_sequences=1)
    llm.generate("the cat", GREEDY)
    thread, inbox = llm.engine._thread, llm.engine._inbox
    held = [weakref.ref(x) for x in (llm.engine, llm.engine.backend, llm._loaded.file._buffer)]
    llm.itself = llm  # so that it takes a garbage collection
    del llm
    if on_engines_thread:
        inbox.put(gc.collect)
    else:
        gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert [x() for x in held] == [None] * 3


def test_a_stream_holds_its_model(model_path, llm):
    stream = edgellm.LLM(model_path, backend="reference", max_sequences=1).stream("the cat", GREEDY)
    gc.collect()
    assert "".join(c.text for c in stream) == llm.generate("the cat", GREEDY).text


LEFT_OPEN = """
import sys, edgellm
from edgellm import LLM, SamplingParams
llm = LLM(sys.argv[1], backend="reference", max_sequences=2)
llm.itself = llm
stream = llm.stream("the cat", SamplingParams(max_tokens=200, ignore_eos=True))
next(stream)
dropped = LLM(sys.argv[1], backend="reference", max_sequences=1)
del dropped
"""


def test_a_model_that_is_open_at_the_end_ends_silently(model_path):
    command = [sys.executable, "-c", LEFT_OPEN, str(model_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("way", ["generate", "stream"])
def test_ctrl_c_is_heard_at_once_and_cancels(llm, way):
    params = SamplingParams(max_tokens=240, ignore_eos=True, n=3)
    slow = llm.engine.backend.execute

    def execute(batch):
        time.sleep(0.05)
        return slow(batch)

    llm.engine.backend.execute = execute
    pressed, answered = [], threading.Event()

    def press():
        if not answered.wait(0.3):
            pressed.append(time.monotonic())
            _thread.interrupt_main()

    ask = {
        "generate": lambda: llm.generate("the", params),
        "stream": lambda: list(llm.stream("the", params)),
    }
    presser = threading.Thread(target=press)
    try:
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            ask[way]()
        assert time.monotonic() - pressed[0] < 0.3
        _wait_until_idle(llm)
    finally:
        answered.set()
        presser.join()
        del llm.engine.backend.execute


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


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda llm: llm.generate(b"the cat"), "not bytes"),
        (lambda llm: llm.generate([b"the cat"]), "not bytes"),
        (lambda llm: llm.logits(None), "not NoneType"),
        (lambda llm: llm.logits("the cat"), "not str"),
        (lambda llm: llm.embed(5), "not int"),
        (lambda llm: llm.embed(None), "not NoneType"),
        (lambda llm: llm.detokenize(5), "not int"),
        (lambda llm: llm.detokenize("the cat"), "not str"),
    ],
)
def test_values_of_the_wrong_type_are_wrong_usage(llm, call, words):
    with pytest.raises(edgellm.UsageError, match=words):
        call(llm)


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


STRICT = "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content }}{% endfor %}"


def test_a_tool_call_without_words_passes_templates_that_need_some(tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    conversation = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "5"},
    ]
    path = write_model(tmp_path / "strict.gguf", **{"tokenizer.chat_template": STRICT})
    with edgellm.LLM(path, backend="reference") as llm:
        answer = llm.chat(conversation, params=GREEDY)
        assert "assistant<|im_start|>tool5" in llm.detokenize(answer.prompt_token_ids)
        with pytest.raises(edgellm.TemplateError):
            llm.chat([{"role": "user", "content": None}], params=GREEDY)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_is_told_to_load_its_own(llm):
    calls = [
        lambda: llm.generate("the cat", GREEDY),
        lambda: llm.stream("the cat", GREEDY),
        lambda: llm.logits([1, 2]),
    ]
    child = os.fork()
    if child == 0:
        told = 0
        for call in calls:
            try:
                call()
            except edgellm.EngineClosedError as error:
                told += "load it again" in str(error)
        llm.close()
        os._exit(told)
    assert os.waitstatus_to_exitcode(_waited(child)) == len(calls)
    assert llm.generate("the cat", GREEDY).finish_reason == "length"


def _waited(child):
    """The status of a child; one that hangs is killed."""
    for _ in range(100):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
