"""Conversations, over a tiny random model on the reference backend."""

import pytest
from spelled_model import GREEDY, SPECIAL, TEMPLATE, write_model

import edgellm

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
