"""Who runs in the next step, and with how many tokens. Integers only: its rules are tested without a model.

decode first     sequences with one token left run in every step; the eldest get their pages first
preemption       where pages run out, the youngest goes back to waiting, keeping its tokens, and gives up its
                 pages (which stay findable until they are needed)
admission        in order of arrival, when the pages of all its tokens can be had, with one to spare for each
                 that runs
prefill          what is left of the step's budget goes to the eldest, in chunks
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from edgellm.engine.ring import Hit, Ring
from edgellm.engine.sequence import Sequence, State


@dataclass(frozen=True)
class Limits:
    """The sizes of the largest step."""

    max_sequences: int
    max_tokens: int
    max_outputs: int


@dataclass(frozen=True)
class Share:
    """One sequence's part of a step: its next `count` tokens, of which the last `outputs` give logits."""

    sequence: Sequence
    count: int
    outputs: int


@dataclass
class Step:
    """What to do: copy pages (source, target) in this order, then run the shares as one batch."""

    copies: list[tuple[int, int]] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)

    @property
    def prefill_tokens(self) -> int:
        """Tokens of shares that are more than a decode."""
        return sum(s.count for s in self.shares if s.count > 1)


class Scheduler:
    """Keeps the waiting and the running, both in order of arrival, over one ring of pages."""

    def __init__(self, ring: Ring, limits: Limits, reuse: bool = True) -> None:
        self.ring, self.limits, self.reuse = ring, limits, reuse
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._slots = list(reversed(range(limits.max_sequences)))

    @property
    def alone(self) -> bool:
        """Whether at most one sequence is here."""
        return len(self.running) + len(self.waiting) <= 1

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        sequence.state = State.WAITING
        insort(self.waiting, sequence, key=lambda s: s.order)

    def schedule(self, budget: int) -> Step:
        """The next step, with at most `budget` tokens of prefill; no shares when there is nothing to do."""
        step = Step()
        self._decode(step)
        self._admit(step)
        self._prefill(step, budget)
        return step

    def advance(self, step: Step) -> None:
        """The step has run: its tokens are computed, and pages that are full now can be found."""
        for share in step.shares:
            share.sequence.computed += share.count
            self._enter_full_pages(share.sequence)

    def remove(self, sequence: Sequence, keep: bool = True) -> None:
        """Finish a sequence; with `keep` its pages can be found by whoever goes on from it."""
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
            self._give_up(sequence, keep)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)
        sequence.state = State.FINISHED

    # -- decode and preemption -------------------------------------------------------------------------

    def _decode(self, step: Step) -> None:
        """Shares for who has one token left. Nobody who has a share is preempted: the younger go first."""
        for sequence in list(self.running):
            if sequence.state is State.RUNNING and sequence.remaining == 1 and self._grow(sequence):
                step.shares.append(Share(sequence, 1, 1))

    def _grow(self, sequence: Sequence) -> bool:
        """See that its pages reach its last token; False where it had to go back to waiting itself."""
        while len(sequence.pages) < self._pages_for(len(sequence.tokens)):
            if self.ring.available:
                sequence.pages.append(self.ring.allocate())
                continue
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._give_up(sequence, keep=True)
        sequence.computed = 0
        self.add(sequence)

    def _give_up(self, sequence: Sequence, keep: bool) -> None:
        if keep:
            self.offer_tail(sequence)
        self.ring.release(reversed(sequence.pages))
        self._slots.append(sequence.slot)
        sequence.pages, sequence.keys = [], []

    # -- admission -------------------------------------------------------------------------------------

    def _admit(self, step: Step) -> None:
        while self.waiting and len(self.running) < self.limits.max_sequences:
            if not self._start(self.waiting[0], step):
                return
            sequence = self.waiting.pop(0)
            sequence.state = State.RUNNING
            sequence.slot = self._slots.pop()
            insort(self.running, sequence, key=lambda s: s.order)

    def _start(self, sequence: Sequence, step: Step) -> bool:
        """Give a sequence its pages, from the cache as far as it goes; False where they cannot be had now."""
        hit = self._find(sequence)
        needed = self._pages_for(len(sequence.tokens)) - len(hit.pages)
        idle = sum(self.ring.refs(p) == 0 for p in hit.pages)
        if self.ring.available < idle + needed + len(self.running):
            return False
        self.ring.acquire(hit.pages)
        sequence.pages, sequence.keys = list(hit.pages), list(hit.keys)
        sequence.computed = len(hit.pages) * self.ring.page_size + self._start_page(sequence, hit, step)
        sequence.cached = sequence.computed
        missing = self._pages_for(len(sequence.tokens)) - len(sequence.pages)
        sequence.pages += [self.ring.allocate() for _ in range(missing)]
        return True

    def _find(self, sequence: Sequence) -> Hit:
        """What the cache has of it: never the last token, which must run to have logits."""
        if not self.reuse or sequence.all_rows:
            return Hit((), ())
        return self.ring.find(sequence.root, sequence.tokens[:-1])

    def _start_page(self, sequence: Sequence, hit: Hit, step: Step) -> int:
        """Begin the first page that is not shared with what a partial hit holds: the tokens won by it."""
        if hit.partial is None:
            return 0
        if self.ring.can_take_over(hit.partial, hit.partial_tokens):
            self.ring.take_over(hit.partial)
            sequence.pages.append(hit.partial)
            return hit.partial_tokens
        if self.ring.available < 1 + (self.ring.refs(hit.partial) == 0):
            return 0
        self.ring.acquire((hit.partial,))  # so that the page for the copy is not this one
        target = self.ring.allocate()
        self.ring.release((hit.partial,))
        step.copies.append((hit.partial, target))
        sequence.pages.append(target)
        return hit.partial_tokens

    # -- prefill ---------------------------------------------------------------------------------------

    def _prefill(self, step: Step, budget: int) -> None:
        decoding = {id(s.sequence) for s in step.shares}
        tokens = min(budget, self.limits.max_tokens - len(step.shares))
        outputs = self.limits.max_outputs - len(step.shares)
        for sequence in self.running:
            if id(sequence) in decoding:
                continue
            share = _prefill_share(sequence, tokens, outputs)
            if share.count == 0:
                return
            step.shares.append(share)
            tokens -= share.count
            outputs -= share.outputs

    # -- pages -----------------------------------------------------------------------------------------

    def offer_tail(self, sequence: Sequence) -> None:
        """Make what a sequence has of its last, partly filled page findable."""
        start = len(sequence.keys) * self.ring.page_size
        if self.reuse and not sequence.all_rows and 0 < sequence.computed - start < self.ring.page_size:
            tokens = sequence.tokens[start : sequence.computed]
            self.ring.enter_tail(sequence.parent_key(), tokens, sequence.pages[len(sequence.keys)])

    def _enter_full_pages(self, sequence: Sequence) -> None:
        if not self.reuse or sequence.all_rows:
            return
        size = self.ring.page_size
        for i in range(len(sequence.keys), sequence.computed // size):
            tokens = sequence.tokens[i * size : (i + 1) * size]
            sequence.pages[i], key = self.ring.enter(sequence.parent_key(), tokens, sequence.pages[i])
            sequence.keys.append(key)

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self.ring.page_size)


def _prefill_share(sequence: Sequence, tokens: int, outputs: int) -> Share:
    """As much of a sequence as fits into so many tokens and output rows."""
    count = min(sequence.remaining, tokens)
    if sequence.all_rows:
        count = min(count, outputs)
        return Share(sequence, count, count)
    if count == sequence.remaining and outputs == 0:
        count -= 1
    return Share(sequence, count, 1 if count and count == sequence.remaining else 0)
