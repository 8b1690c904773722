"""A backend that computes nothing but remembers everything: logits depend on the tokens in the pages.

Wrong paging, wrong prefix reuse, a wrong slot or a wrong position give other logits, or an assertion.
"""

import threading
import time
import zlib

import numpy as np

from edgellm.backends.base import PAGE_SIZE, Backend, BackendConfig
from edgellm.engine import Chunk, Engine, EngineConfig, Failed, Finished, Progress, Request
from edgellm.graph import Graph, StateSpec
from edgellm.sampling import SamplingParams

VOCAB = 64
END = 0
PROMPTS = [[1 + (i * 7 + j * j) % 50 for j in range(3 + 17 * i)] for i in range(8)]
EMPTY = -1


def logits_after(tokens):
    """What the fake model thinks comes after these tokens, f32 [VOCAB]."""
    seed = zlib.crc32(np.asarray(tokens, np.int64).tobytes())
    logits = np.random.default_rng(seed).standard_normal(VOCAB).astype(np.float32) * 3
    logits[END] = -50  # ends when asked to, not by chance
    return logits


def greedy(prompt, count):
    """What greedy sampling of the fake model gives: the slow twin of the whole engine."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(np.argmax(logits_after(tokens))))
    return tokens[len(prompt) :]


class FakeBackend(Backend):
    def __init__(
        self,
        num_pages=64,
        stateful=False,
        context_length=2048,
        max_tokens=64,
        max_outputs=16,
        max_sequences=8,
    ):
        graph = Graph(vocab_size=VOCAB, context_length=context_length)
        graph.states = [StateSpec((1,))] if stateful else []
        config = BackendConfig(
            num_pages=num_pages,
            num_slots=max_sequences,
            max_tokens=max_tokens,
            max_outputs=max_outputs,
            max_sequences=max_sequences,
        )
        super().__init__(graph, None, config)
        self.pages = np.full((num_pages, PAGE_SIZE), EMPTY, np.int64)
        self.slots = [()] * max_sequences
        self.batches = []
        self.copies = 0
        self.fail_next = None
        self.delay_s = 0.0
        self.closed = False
        self.on_execute = lambda batch: None
        self._cancelled = threading.Event()

    def execute(self, batch):
        self.on_execute(batch)
        if self.delay_s:
            self._cancelled.wait(self.delay_s)
        if self.fail_next:
            error, self.fail_next = self.fail_next, None
            raise error
        self.batches.append(batch)
        self._check(batch)
        rows = {}
        for s in batch.sequences:
            history = self._write(s, batch.tokens[s.start : s.start + s.count])
            for i in range(s.count):
                if s.start + i in batch.outputs:
                    rows[s.start + i] = logits_after(history[: s.position + i + 1])
        return np.array([rows[r] for r in batch.outputs], np.float32).reshape(-1, VOCAB)

    def _check(self, batch):
        c = self.config
        assert len(batch.tokens) <= c.max_tokens
        assert len(batch.outputs) <= c.max_outputs
        assert 0 < len(batch.sequences) <= c.max_sequences
        assert [s.start for s in batch.sequences] == [
            sum(t.count for t in batch.sequences[:i]) for i in range(len(batch.sequences))
        ]
        assert list(batch.outputs) == sorted(set(batch.outputs))
        written = [p for s in batch.sequences for p in s.pages[s.position // PAGE_SIZE :]]
        for page in written:
            holders = sum(page in s.pages for s in batch.sequences)
            assert holders == 1, f"page {page} is written while {holders} sequences hold it"
        if self.graph.states:
            slots = [s.slot_out for s in batch.sequences]
            assert len(set(slots)) == len(slots)

    def _write(self, s, tokens):
        if self.graph.states:
            past = self.slots[s.slot_in] if s.position else ()
            assert len(past) == s.position
            self.slots[s.slot_out] = (*past, *tokens)
            return list(self.slots[s.slot_out])
        where = np.arange(s.position, s.position + s.count)
        table = np.asarray(s.pages)
        self.pages[table[where // PAGE_SIZE], where % PAGE_SIZE] = tokens
        history = self.pages[table].reshape(-1)[: s.position + s.count]
        assert EMPTY not in history, "attention would read what was never written"
        return history.tolist()

    def copy_page(self, source, target):
        self.copies += 1
        self.pages[target] = self.pages[source]

    def memory(self):
        return {"weights": 0, "kv_cache": self.pages.nbytes, "scratch": 0}

    def cancel(self):
        self._cancelled.set()

    def close(self):
        self.closed = True


class FakeTokenizer:
    """Token ids are letters; 60 and 61 are the two halves of an e with an acute accent."""

    add_space_prefix = False
    vocab_size = VOCAB
    end_ids = frozenset({END})

    def token_bytes(self, token_id, skip_special=False):
        if token_id == END:
            return b"" if skip_special else b"</s>"
        return {60: b"\xc3", 61: b"\xa9"}.get(token_id, bytes([64 + token_id]))

    def is_special(self, token_id):
        return token_id == END


class Answer:
    """Collects the events of one request, and holds them to their order."""

    def __init__(self):
        self.progress, self.chunks, self.error, self.timings = [], [], None, None
        self.done = threading.Event()

    def __call__(self, event):
        assert not self.done.is_set(), f"{event} came after the last event"
        match event:
            case Progress():
                assert not self.chunks
                self.progress.append(event)
            case Chunk():
                assert self.reason(event.index) is None, f"{event} came after its choice's last chunk"
                self.chunks.append(event)
            case Finished(timings):
                self.timings = timings
                self.done.set()
            case Failed(error):
                self.error = error
                self.done.set()

    def ids(self, index=0):
        return [t for c in self.chunks if c.index == index for t in c.token_ids]

    def text(self, index=0):
        return "".join(c.text for c in self.chunks if c.index == index)

    def reason(self, index=0):
        reasons = [c.finish_reason for c in self.chunks if c.index == index and c.finish_reason]
        return reasons[-1] if reasons else None


def make_engine(tokenizer=None, start=False, max_sequences=8, max_queue=64, engine=None, **sizes):
    backend = FakeBackend(max_sequences=max_sequences, **sizes)
    config = EngineConfig(max_sequences=max_sequences, max_queue=max_queue, **(engine or {}))
    return Engine(backend, tokenizer, config, start=start)


def ask(engine, prompt, **params):
    """Submit; greedy and eight tokens unless told otherwise."""
    answer = Answer()
    settings = {"temperature": 0, "max_tokens": 8, **params}
    answer.ticket = engine.submit(Request(list(prompt), SamplingParams(**settings)), answer)
    return answer


def some_steps(engine, count):
    for _ in range(count):
        engine.step()


def drain(engine, steps=10_000):
    """Drive an engine without a thread until it has nothing to do."""
    for _ in range(steps):
        if not engine.step():
            return
    raise AssertionError("the engine does not come to an end")


def answer_to(engine, prompt, **params):
    answer = ask(engine, prompt, **params)
    drain(engine)
    return answer


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
