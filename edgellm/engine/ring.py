"""The KV cache's bookkeeping: a fixed ring of pages that is allocator, prefix cache and eviction at once.

Each page is one of
    used    some sequence holds it (`refs` > 0); it may be findable as well
    cached  nobody holds it, but its contents are known and can be found again
    free    nobody holds it, and nothing is known of it

Findable pages form a tree: a full page is keyed by the hash of its parent's key and its own tokens, so that
a key stands for the whole prefix. A page that is only partly filled (a *tail*) is findable too, as a leaf.
New pages come from the free ones first, then from where the hand stands (CLOCK): a page that was hit since
the hand's last visit gets another round, and a page with a findable child is never taken before the child.
Who holds a page holds its parents too, so every page that nobody holds can be had in the end.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

Key = bytes


@dataclass(frozen=True)
class Hit:
    """What the cache has of a prompt: its first full pages, and perhaps one that begins like the next."""

    pages: tuple[int, ...]
    keys: tuple[Key, ...]  # of the full pages
    partial: int | None = None
    partial_tokens: int = 0  # tokens of the page `partial` that agree


@dataclass
class _Page:
    refs: int = 0
    tokens: tuple[int, ...] = ()  # what it holds, where it is findable
    parent: Key | None = None  # the key it is findable under; None where it is not
    key: Key | None = None  # its own key, where it is full and findable
    spared: bool = False  # hit since the hand's last visit


@dataclass
class Ring:
    """Pages `0 .. num_pages - 1` of `page_size` tokens. Integers only; the contents are the backend's."""

    num_pages: int
    page_size: int
    hand: int = 0
    used: int = 0
    _pages: list[_Page] = field(default_factory=list, repr=False)
    _free: deque[int] = field(default_factory=deque, repr=False)
    _full: dict[Key, int] = field(default_factory=dict, repr=False)
    _children: dict[Key, dict[int, None]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._pages = [_Page() for _ in range(self.num_pages)]
        self._free = deque(range(self.num_pages))

    @property
    def available(self) -> int:
        """Pages that can be had: the free and the cached ones."""
        return self.num_pages - self.used

    @property
    def cached(self) -> int:
        """Pages that nobody holds and whose contents can be found."""
        return self.available - len(self._free)

    def refs(self, page: int) -> int:
        """How many hold the page."""
        return self._pages[page].refs

    def key(self, parent: Key, tokens: Sequence[int]) -> Key:
        """The key of a full page: it stands for the salt, all pages before, and its own tokens."""
        return blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()

    # -- finding ---------------------------------------------------------------------------------------

    def find(self, root: Key, tokens: Sequence[int]) -> Hit:
        """The longest part of `tokens` that is here under the salt `root`. Nothing is held by asking."""
        pages: list[int] = []
        keys: list[Key] = []
        parent = root
        while (end := (len(pages) + 1) * self.page_size) <= len(tokens):
            key = self.key(parent, tokens[end - self.page_size : end])
            if key not in self._full:
                break
            pages.append(self._full[key])
            keys.append(key)
            parent = key
        start = len(pages) * self.page_size
        page, common = self._best_child(parent, tuple(tokens[start : start + self.page_size]))
        return Hit(tuple(pages), tuple(keys), page, common)

    def _best_child(self, parent: Key, tokens: tuple[int, ...]) -> tuple[int | None, int]:
        """The child that agrees with `tokens` for longest, and for how long."""
        best, longest = None, 0
        for page in self._children.get(parent, ()):
            common = _common(self._pages[page].tokens, tokens)
            if common > longest:
                best, longest = page, common
        return best, longest

    # -- holding ---------------------------------------------------------------------------------------

    def acquire(self, pages: Iterable[int]) -> None:
        """Hold pages that were found."""
        for page in pages:
            record = self._pages[page]
            self.used += record.refs == 0
            record.refs += 1
            record.spared = True

    def can_take_over(self, page: int, common: int) -> bool:
        """Whether a partial hit may be written on in place: nobody holds it, and all of it agrees."""
        record = self._pages[page]
        return record.refs == 0 and record.key is None and len(record.tokens) == common

    def take_over(self, page: int) -> None:
        """Hold a tail and make it private: it is findable no more."""
        self.acquire((page,))
        self._forget(page)

    def allocate(self) -> int:
        """A page for new contents, held once. The caller has seen that one is `available`."""
        page = self._free.popleft() if self._free else self._evict()
        self._pages[page].refs = 1
        self._pages[page].spared = False
        self.used += 1
        return page

    def release(self, pages: Iterable[int]) -> None:
        """Hold pages no more. Findable ones stay until the hand comes; the others are free."""
        for page in pages:
            record = self._pages[page]
            assert record.refs > 0, f"page {page} is released more often than held"
            record.refs -= 1
            if record.refs == 0:
                self.used -= 1
                if record.parent is None:
                    self._free.append(page)

    def _evict(self) -> int:
        """Move the hand to a page that may go, and make it nobody's. Two rounds always suffice."""
        for _ in range(2 * self.num_pages + 1):
            page, self.hand = self.hand, (self.hand + 1) % self.num_pages
            record = self._pages[page]
            if record.refs or self._has_children(record):
                continue
            if record.spared:
                record.spared = False
                continue
            self._forget(page)
            return page
        raise AssertionError("no page is available")

    def _has_children(self, record: _Page) -> bool:
        return record.key is not None and record.key in self._children

    # -- entering --------------------------------------------------------------------------------------

    def enter(self, parent: Key, tokens: Sequence[int], page: int) -> tuple[int, Key]:
        """Make a full page that the caller holds findable: the page to use from now on, and its key.

        Where another page holds the same already, that one is held instead and the caller's is let go.
        """
        key = self.key(parent, tokens)
        twin = self._full.get(key)
        if twin is not None and twin != page:
            self.acquire((twin,))
            self._forget(page)
            self.release((page,))
            return twin, key
        self._forget(page)
        self._file(page, parent, tuple(tokens))
        self._pages[page].key = key
        self._full[key] = page
        return page, key

    def enter_tail(self, parent: Key, tokens: Sequence[int], page: int) -> None:
        """Make the filled part of a page findable, unless it can be found elsewhere already."""
        self._forget(page)
        known, common = self._best_child(parent, tuple(tokens))
        if tokens and (known is None or common < len(tokens)):
            self._file(page, parent, tuple(tokens))

    def _file(self, page: int, parent: Key, tokens: tuple[int, ...]) -> None:
        record = self._pages[page]
        record.parent, record.tokens = parent, tokens
        self._children.setdefault(parent, {})[page] = None

    def _forget(self, page: int) -> None:
        """Make a page unfindable; it has no findable children."""
        record = self._pages[page]
        if record.parent is None:
            return
        siblings = self._children[record.parent]
        del siblings[page]
        if not siblings:
            del self._children[record.parent]
        if record.key is not None:
            del self._full[record.key]
        record.parent = record.key = None
        record.tokens = ()


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many tokens a and b begin with alike."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
