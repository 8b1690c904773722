from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgellm.engine.ring import Ring

ROOT = b"salt"


def fill(ring, tokens, root=ROOT):
    """Compute a text: take its pages and enter them. The pages and keys held."""
    pages, keys, parent = [], [], root
    size = ring.page_size
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        page = ring.allocate()
        if len(part) == size:
            page, parent = ring.enter(parent, part, page)
            keys.append(parent)
        else:
            ring.enter_tail(parent, part, page)
        pages.append(page)
    return pages


def test_free_pages_come_first_and_in_order():
    ring = Ring(3, 4)
    assert [ring.allocate() for _ in range(3)] == [0, 1, 2]
    assert (ring.used, ring.available, ring.cached) == (3, 0, 0)


def test_released_pages_stay_findable():
    ring = Ring(4, 2)
    pages = fill(ring, [1, 2, 3, 4])
    ring.release(pages)
    assert (ring.used, ring.cached) == (0, 2)
    assert ring.find(ROOT, [1, 2, 3, 4]).pages == tuple(pages)


def test_a_page_that_was_never_entered_is_free_at_once():
    ring = Ring(2, 2)
    ring.release([ring.allocate()])
    assert (ring.used, ring.cached, ring.available) == (0, 0, 2)


def test_only_the_same_prefix_is_found():
    ring = Ring(8, 2)
    pages = fill(ring, [1, 2, 3, 4])
    assert ring.find(ROOT, [1, 2, 9, 9]).pages == tuple(pages[:1])
    assert ring.find(ROOT, [3, 4]).pages == ()
    assert ring.find(b"other salt", [1, 2, 3, 4]).pages == ()


def test_a_tail_is_found_as_far_as_it_agrees():
    ring = Ring(8, 4)
    pages = fill(ring, [1, 2, 3, 4, 5, 6, 7])
    hit = ring.find(ROOT, [1, 2, 3, 4, 5, 6, 9, 9])
    assert (hit.pages, hit.partial, hit.partial_tokens) == ((pages[0],), pages[1], 2)
    assert ring.find(ROOT, [1, 2, 3, 4, 9]).partial is None


def test_a_full_page_may_be_a_partial_hit_too():
    ring = Ring(8, 4)
    pages = fill(ring, [1, 2, 3, 4])
    hit = ring.find(ROOT, [1, 2, 3])
    assert (hit.pages, hit.partial, hit.partial_tokens) == ((), pages[0], 3)


def test_the_longest_agreement_wins():
    ring = Ring(8, 4)
    fill(ring, [1, 9])
    longer = fill(ring, [1, 2, 3])
    assert ring.find(ROOT, [1, 2, 3, 4]).partial == longer[0]


def test_a_tail_nobody_holds_can_be_taken_over_and_is_findable_no_more():
    ring = Ring(2, 4)
    (page,) = fill(ring, [1, 2])
    assert not ring.can_take_over(page, 2)
    ring.release([page])
    assert not ring.can_take_over(page, 1)
    assert ring.can_take_over(page, 2)
    ring.take_over(page)
    assert ring.refs(page) == 1
    assert ring.find(ROOT, [1, 2]).partial is None


def test_equal_pages_become_one():
    ring = Ring(4, 2)
    first = fill(ring, [1, 2])
    second = fill(ring, [1, 2])
    assert second == first
    assert ring.refs(first[0]) == 2
    assert ring.used == 1


def test_a_tail_that_is_known_already_is_not_entered_twice():
    ring = Ring(4, 4)
    first, second = fill(ring, [1, 2, 3]), fill(ring, [1, 2])
    ring.release(first + second)
    assert ring.cached == 1


def test_the_hand_takes_children_before_parents():
    ring = Ring(3, 2)
    parent, child, leaf = fill(ring, [1, 2, 3, 4, 5, 6])
    ring.release([parent, child, leaf])
    assert [ring.allocate() for _ in range(3)] == [leaf, child, parent]


def test_a_hit_gives_another_round():
    ring = Ring(2, 2)
    (old,), (new,) = fill(ring, [1, 2]), fill(ring, [3, 4])
    ring.release([old, new])
    ring.acquire(ring.find(ROOT, [1, 2]).pages)
    ring.release([old])
    assert ring.allocate() == new


def test_held_pages_are_never_taken():
    ring = Ring(3, 2)
    held = fill(ring, [1, 2, 3, 4])
    ring.release([ring.allocate()])
    assert [ring.allocate()] == [2]
    assert ring.available == 0
    assert ring.find(ROOT, [1, 2, 3, 4]).pages == tuple(held)


class RingAgainstNaive(RuleBasedStateMachine):
    """The ring beside a dictionary that remembers what is in every page."""

    def __init__(self):
        super().__init__()
        self.ring = Ring(7, 2)
        self.contents = {}  # page -> the whole text up to and with it
        self.held = []  # lists of pages, one a sequence

    def take(self, tokens):
        """What the scheduler does with a prompt, in the plainest words."""
        ring, size = self.ring, self.ring.page_size
        hit = ring.find(ROOT, tokens)
        for i, page in enumerate(hit.pages):
            assert self.contents[page] == tokens[: (i + 1) * size], "found contents that are not there"
        if hit.partial is not None:
            known = self.contents[hit.partial]
            assert (
                known[: len(hit.pages) * size + hit.partial_tokens]
                == (tokens[: len(hit.pages) * size + hit.partial_tokens])
            )
        needed = -(-len(tokens) // size) - len(hit.pages)
        idle = sum(ring.refs(p) == 0 for p in hit.pages)
        if ring.available < needed + idle:
            return
        ring.acquire(hit.pages)
        pages = list(hit.pages)
        parent = hit.keys[-1] if hit.keys else ROOT
        for start in range(len(pages) * size, len(tokens), size):
            part = tokens[start : start + size]
            before = {p: r for p in range(ring.num_pages) if (r := ring.refs(p))}
            page = ring.allocate()
            assert page not in before, "a page that is held was given away"
            self.contents[page] = tokens[: start + size]
            if len(part) == size:
                page, parent = ring.enter(parent, part, page)
            else:
                ring.enter_tail(parent, part, page)
            pages.append(page)
        self.held.append(pages)

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9))
    def start(self, tokens):
        self.take(tokens)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data):
        pages = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.ring.release(reversed(pages))

    @invariant()
    def refs_are_how_often_pages_are_held(self):
        for page in range(self.ring.num_pages):
            assert self.ring.refs(page) == sum(pages.count(page) for pages in self.held)

    @invariant()
    def used_cached_and_free_are_all_there_is(self):
        ring = self.ring
        used = {p for pages in self.held for p in pages}
        assert ring.used == len(used)
        free = set(ring._free)
        assert len(free) == len(ring._free)
        assert not free & used
        assert ring.used + ring.cached + len(free) == ring.num_pages

    @invariant()
    def what_is_held_can_be_found(self):
        for pages in self.held:
            full = [p for p in pages if len(self.contents[p]) % self.ring.page_size == 0]
            if full and full == pages[: len(full)]:
                text = self.contents[full[-1]]
                assert self.ring.find(ROOT, text).pages == tuple(full)

    @invariant()
    def parents_outlive_their_children(self):
        ring = self.ring
        findable = [p for p in ring._pages if p.parent is not None]
        for record in findable:
            assert record.parent == ROOT or record.parent in ring._full, "a child without its parent"


TestRingAgainstNaive = RingAgainstNaive.TestCase
TestRingAgainstNaive.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
