"""/metrics: every number is read, a request is made, and the difference is what the request was."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from asgi_client import Client
from fake_engine import FakeEngine, FakeTokenizer, Reply, fake_prompt
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tiny import tiny_llama

from edgellm.engine.request import Chunk, Finished, Progress, Request
from edgellm.errors import EdgeLLMError
from edgellm.loading import load
from edgellm.sampling import SamplingParams
from edgellm.server.config import ServerConfig
from edgellm.server.metered import COUNTERS, HISTOGRAMS, MeteredEngine, RequestMetrics, Speed
from edgellm.server.metrics import ENGINE_COUNTERS, GAUGES
from edgellm.server.model import ServedModel

PROMPT = list(range(1, 151))


def test_a_prompt_that_goes_back_is_not_counted_again():
    """As one that had to make room does."""
    metrics = RequestMetrics(CollectorRegistry())
    engine = FakeEngine()
    engine.submit = lambda request, deliver: [deliver(event) for event in events]
    events, heard = [Progress(64, 100, 0), Progress(32, 100, 0), Progress(100, 100, 0)], []
    MeteredEngine(engine, metrics.of("m")).submit(Request([1], SamplingParams()), heard.append)
    assert heard == events
    assert metrics._counters["prompt_tokens"].labels("m")._value.get() == 100


class Read(dict):
    """The samples of one look at /metrics, by name and labels other than the model's and the bucket's."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        answer = client.get("/metrics")
        assert answer.status_code == 200
        self.text = answer.text
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                labels = {k: v for k, v in sample.labels.items() if k not in ("model_name", "le")}
                if not sample.name.endswith(("_bucket", "_created")):
                    self[(sample.name.removeprefix("edgellm:"), *labels.values())] = sample.value

    def since(self, before: Read) -> dict:
        """What is different, by name alone where there are no labels."""
        changes = {k: v - before.get(k, 0) for k, v in self.items() if v != before.get(k, 0)}
        return {k if len(k) > 1 else k[0]: v for k, v in changes.items()}


@pytest.fixture
def tiny(tmp_path: Path):
    """A server over a real engine, with a tiny random model."""
    loaded = load(tiny_llama(tmp_path / "tiny.gguf"), backend="reference", max_sequences=2)
    client = Client(empty=True)
    client.slot.fill(ServedModel("tiny:1", loaded.engine, FakeTokenizer(), fake_prompt))
    yield client
    loaded.close()


def complete(client: Client, prompt=PROMPT, **fields):
    body = {"prompt": list(prompt), "max_tokens": 4, "temperature": 0, "ignore_eos": True, **fields}
    answer = client.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_request_moves_every_number_by_what_it_was(tiny):
    before = Read(tiny)
    began = time.perf_counter()
    timings = complete(tiny)["timings"]
    took = time.perf_counter() - began
    change = Read(tiny).since(before)
    assert change["prompt_tokens_total"] == change["prefix_cache_queries_total"] == 150
    assert change["generation_tokens_total"] == 4
    assert "prefix_cache_hits_total" not in change
    assert change["request_success_total", "length"] == 1
    assert change["http_requests_total", "/v1/completions", "200"] == 1
    for name in HISTOGRAMS:
        assert change[f"{name}_count"] == 1
    assert change["time_to_first_token_seconds_sum"] == pytest.approx(timings["ttft_s"], abs=1e-5)
    assert change["request_queue_time_seconds_sum"] == pytest.approx(timings["queued_s"], abs=1e-5)
    assert change["request_prefill_time_seconds_sum"] == pytest.approx(timings["prefill_s"], abs=1e-5)
    assert change["request_decode_time_seconds_sum"] == pytest.approx(timings["decode_s"], abs=1e-5)
    per_token = change["request_time_per_output_token_seconds_sum"]
    assert per_token == pytest.approx(timings["decode_s"] / 3, abs=1e-5)
    assert 0 < change["e2e_request_latency_seconds_sum"] <= took
    assert change["request_prompt_tokens_sum"] == 150
    assert change["request_generation_tokens_sum"] == 4
    assert change["engine_steps_total"] >= 5
    assert change["kv_pages_cached"] >= 2
    assert change["avg_generation_throughput_toks_per_s"] > 0
    assert change["avg_prompt_throughput_toks_per_s"] > 0


def test_every_number_is_there_from_the_start_of_the_model(tiny):
    read = Read(tiny)
    for name in [*COUNTERS, *ENGINE_COUNTERS]:
        assert read[(f"{name}_total",)] == 0
    for name in HISTOGRAMS:
        assert read[(f"{name}_count",)] == 0
    for name in GAUGES:
        assert (name,) in read
    assert read[("kv_pages_total",)] > 0
    assert read[("kv_pages_used",)] == read[("kv_cache_usage_perc",)] == 0
    assert 'model_name="tiny:1"' in read.text


def test_the_prefix_cache_is_seen(tiny):
    complete(tiny)
    before = Read(tiny)
    usage = complete(tiny)["usage"]
    change = Read(tiny).since(before)
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached >= 128
    assert change["prefix_cache_hits_total"] == cached
    assert change["prefix_cache_queries_total"] == change["prompt_tokens_total"] == 150


def test_choices_and_prompts_are_counted_each(tiny):
    before = Read(tiny)
    complete(tiny, n=2)
    change = Read(tiny).since(before)
    assert (change["prompt_tokens_total"], change["generation_tokens_total"]) == (150, 8)
    tokens = change["request_generation_tokens_sum"]
    decode = change["request_decode_time_seconds_sum"]
    assert tokens == 8
    assert change["request_time_per_output_token_seconds_sum"] == pytest.approx(decode / 3)


def test_what_runs_and_waits_is_seen_while_it_does(tiny):
    engine = tiny.slot.model.engine
    done = threading.Event()
    seen: list[Read] = []

    def look(event):
        """On the engine's thread, between steps: once the answers are under way."""
        if isinstance(event, Chunk) and not seen:
            seen.append(Read(tiny))
        if isinstance(event, Finished):
            done.set()

    params = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    tickets = [engine.submit(Request([7 + i, *PROMPT], params), look) for i in range(3)]
    assert done.wait(20)
    for ticket in tickets:
        ticket.cancel()
    now = seen[0]
    assert now[("num_requests_running",)] + now[("num_requests_waiting",)] >= 2
    assert now[("num_requests_running",)] <= 2
    assert now[("kv_pages_used",)] >= 2
    used = now[("kv_pages_used",)] / now[("kv_pages_total",)]
    assert now[("kv_cache_usage_perc",)] == pytest.approx(used)


def test_a_streamed_answer_counts_as_a_whole_one_does(tiny):
    before = Read(tiny)
    body = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "ignore_eos": True, "stream": True}
    assert tiny.post("/v1/completions", body).text.endswith("[DONE]\n\n")
    change = Read(tiny).since(before)
    assert (change["generation_tokens_total"], change["request_success_total", "length"]) == (4, 1)
    assert change["http_requests_total", "/v1/completions", "200"] == 1


@pytest.mark.parametrize(
    ("ask", "endpoint", "status"),
    [
        (lambda c: c.get("/health"), "/health", "200"),
        (lambda c: c.get("/v1/models/fake:1"), "/v1/models/{name:path}", "200"),
        (lambda c: c.get("/v1/models/other"), "/v1/models/{name:path}", "404"),
        (lambda c: c.get("/no/such/place"), "other", "404"),
        (lambda c: c.get("/v1/chat/completions"), "/v1/chat/completions", "405"),
        (lambda c: c.chat(temperature=9), "/v1/chat/completions", "400"),
        (lambda c: c.chat(), "/v1/chat/completions", "200"),
        (lambda c: c.get("/health", headers={"origin": "https://a.test"}), "/health", "403"),
    ],
)
def test_answers_are_counted_by_endpoint_and_status(ask, endpoint, status):
    client = Client()
    before = Read(client)
    ask(client)
    change = Read(client).since(before)
    assert change.pop(("http_requests_total", "/metrics", "200")) == 1
    assert {k: v for k, v in change.items() if k[0] == "http_requests_total"} == {
        ("http_requests_total", endpoint, status): 1
    }


def test_paths_that_people_make_up_do_not_fill_the_memory():
    client = Client()
    for number in range(20):
        client.get(f"/made/up/{number}")
    assert Read(client)[("http_requests_total", "other", "404")] == 20


def test_an_answer_that_fails_is_counted_as_an_error():
    client = Client(Reply(error=EdgeLLMError("no")), engine=None)
    before = Read(client)
    assert client.chat().status_code == 500
    change = Read(client).since(before)
    assert change["request_success_total", "error"] == 1
    assert change["http_requests_total", "/v1/chat/completions", "500"] == 1
    assert "e2e_request_latency_seconds_count" not in change


def test_what_nobody_wanted_to_the_end_is_counted_without_its_times(tiny):
    before = Read(tiny)
    done = threading.Event()
    tokens: list[int] = []

    def take(event):
        if isinstance(event, Chunk):
            tokens.extend(event.token_ids)
            ticket.result().cancel()
        if isinstance(event, Finished):
            done.set()

    ticket: Future[Any] = Future()
    params = SamplingParams(max_tokens=800, temperature=0, ignore_eos=True)
    ticket.set_result(tiny.slot.model.engine.submit(Request(PROMPT, params), take))
    assert done.wait(10)
    change = Read(tiny).since(before)
    assert 0 < len(tokens) < 800
    assert change["generation_tokens_total"] == len(tokens)
    assert change["request_success_total", "cancelled"] == 1
    assert change["prompt_tokens_total"] == 150
    assert "e2e_request_latency_seconds_count" not in change


def test_while_the_model_loads_there_are_metrics_too():
    client = Client(empty=True)
    assert Read(client)[("model_loaded",)] == 0
    client.slot.fill(Client().slot.model)
    read = Read(client)
    assert read[("model_loaded",)] == 1
    assert re.search(r'^edgellm:model_info\{.*context_length="1000".*\} 1\.0$', read.text, re.MULTILINE)
    assert 'model_name="fake:1"' in read.text


def test_two_servers_in_one_process_count_apart():
    one, other = Client(), Client()
    before = Read(other)
    one.chat()
    assert Read(one)[("http_requests_total", "/v1/chat/completions", "200")] == 1
    assert "generation_tokens_total" not in Read(other).since(before)


def test_a_key_is_needed_where_there_is_one():
    client = Client(config=ServerConfig(api_key="secret"))
    assert client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == 200
    answer = client.get("/metrics", headers={"authorization": "Bearer secret"})
    assert 'endpoint="/metrics",status="401"' in answer.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics"),
    ],
)
def test_the_form_is_the_one_that_is_asked_for(accept, kind):
    answer = Client().get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(kind)


def test_a_speed_is_that_of_the_last_seconds():
    now = 100.0
    speed = Speed(lambda: now)
    assert speed.per_second() == 0
    speed.add(30)
    now = 103.0
    speed.add(20)
    assert speed.per_second() == 10
    now = 106.5
    assert speed.per_second() == pytest.approx(20 / 5.5)
    now = 110.0
    assert speed.per_second() == 0


def test_events_arrive_as_they_were():
    client = Client(Reply(("a", "b")))
    got: list[object] = []
    done = threading.Event()

    def take(event):
        got.append(event)
        if isinstance(event, Finished):
            done.set()

    client.slot.model.engine.submit(Request([1, 2, 3]), take)
    assert done.wait(5)
    assert [type(event) for event in got] == [Progress, Chunk, Chunk, Finished]
    assert client.slot.model.engine.requests == client.engine.requests
