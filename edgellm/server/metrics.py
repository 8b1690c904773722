"""`/metrics`: what the server does, as Prometheus text.

Every application has a registry of its own. Counts and times of requests are kept where their events pass
(`metered.py`, which says where the names come from); what the engine holds now is asked when somebody looks.
Like everything but /health it needs the API key, where there is one, as llama.cpp's does: Prometheus sends it
with `authorization: {credentials: KEY}`.

How to add one: a number that the engine knows is a row of `GAUGES`; one of an event is in `metered.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm import __version__
from edgellm.engine.config import Stats
from edgellm.server.metered import MODEL, PREFIX, MeteredEngine, RequestMetrics
from edgellm.server.model import ServedEngine, ServedModel
from edgellm.server.slot import ModelSlot

GAUGES: dict[str, tuple[str, Callable[[Stats], float]]] = {
    "num_requests_running": ("Sequences that run now.", lambda s: s.running),
    "num_requests_waiting": ("Sequences that wait for their turn now.", lambda s: s.waiting),
    "kv_cache_usage_perc": (
        "Fraction of the KV pages that sequences hold, from 0 to 1.",
        lambda s: s.pages_used / s.pages_total,
    ),
    "kv_pages_used": ("KV pages that sequences hold.", lambda s: s.pages_used),
    "kv_pages_cached": ("KV pages that the prefix cache can find.", lambda s: s.pages_cached),
    "kv_pages_total": ("KV pages that there are.", lambda s: s.pages_total),
    "prefill_chunk_tokens": ("Prompt tokens that a step takes at most now.", lambda s: s.prefill_chunk),
}
ENGINE_COUNTERS: dict[str, tuple[str, Callable[[Stats], float]]] = {
    "num_preemptions": ("Times that a sequence had to give its pages back.", lambda s: s.preemptions),
    "engine_steps": ("Steps that the engine ran.", lambda s: s.steps),
}


class Metrics:
    """Everything that is counted for one application."""

    def __init__(self, slot: ModelSlot) -> None:
        self.registry = CollectorRegistry()
        self.http = Counter(
            f"{PREFIX}http_requests",
            "Requests that were answered, by endpoint and status.",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self._requests = RequestMetrics(self.registry)
        self.registry.register(_Now(slot, self._requests))
        ProcessCollector(registry=self.registry)

    def metered(self, model: ServedModel) -> ServedModel:
        """The model, with an engine whose requests are counted."""
        engine = MeteredEngine(model.engine, self._requests.of(model.name))
        return replace(model, engine=cast(ServedEngine, engine))


class _Now(Collector):
    """What is held now, looked up when it is asked for."""

    def __init__(self, slot: ModelSlot, requests: RequestMetrics) -> None:
        self._slot, self._requests = slot, requests

    def collect(self) -> Iterator[Metric]:
        yield _gauge("model_loaded", "1 when the model answers, 0 while it loads.", float(self._slot.ready))
        yield _gauge(
            "avg_prompt_throughput_toks_per_s",
            "Prompt tokens computed a second, over the last few seconds.",
            self._requests.prompt_speed.per_second(),
        )
        yield _gauge(
            "avg_generation_throughput_toks_per_s",
            "Tokens generated a second, over the last few seconds.",
            self._requests.generation_speed.per_second(),
        )
        if self._slot.ready:
            yield from self._of_model(self._slot.model)

    def _of_model(self, model: ServedModel) -> Iterator[Metric]:
        about = {MODEL: model.name, "context_length": str(model.engine.context_length)}
        yield InfoMetricFamily(f"{PREFIX}model", "The model that answers.", {**about, "version": __version__})
        ask = getattr(model.engine, "stats", None)
        if ask is None:
            return
        stats: Stats = ask()
        for name, (text, value) in GAUGES.items():
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=[MODEL])
            gauge.add_metric([model.name], value(stats))
            yield gauge
        for name, (text, value) in ENGINE_COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, text, labels=[MODEL])
            counter.add_metric([model.name], value(stats))
            yield counter


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


class CountAnswers:
    """Counts answers by endpoint and status; paths that are no endpoint of ours are counted as one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[BaseRoute]) -> None:
        self._app, self._metrics = app, metrics
        ours = [route for route in routes if isinstance(route, Route)]
        self._paths = {route.path for route in ours}
        self._by_endpoint = {route.endpoint: route.path for route in ours}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what an endpoint that raises before it answers becomes

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.http.labels(self._endpoint(scope), str(status)).inc()

    def _endpoint(self, scope: Scope) -> str:
        if scope["path"] in self._paths:
            return str(scope["path"])
        endpoint = scope.get("endpoint")
        return "other" if endpoint is None else self._by_endpoint.get(endpoint, "other")


async def metrics(request: Request) -> Response:
    """The text, in the newest form that the asker accepts."""
    registry: CollectorRegistry = request.app.state.metrics.registry
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"content-type": kind})


ROUTES = [Route("/metrics", metrics, methods=["GET"])]
