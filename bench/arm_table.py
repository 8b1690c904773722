#!/usr/bin/env python3
"""Instructions of the matrix products' inner loops on ARM, counted in LLVM's assembly, on any machine.

    python bench/arm_table.py [--cpus "Pi 4,Pi 5"] [--forms q4_0,q6_k]

A kernel has one loop over blocks of 32 columns for each token tile. In it, LLVM may keep a loop over the
block's steps or unroll it; outside, forms of 256 columns have one more over those. Counted is the loop with
the dot products and all around it that is done once a block (or once in 256 columns, an eighth each), so
that a figure is instructions per block of 32 columns by 16 rows, and token. How often an inner loop runs is
not read but follows from the arithmetic: a block takes 32 `sdot`, 16 `smmla` or 64 `smull`, a token.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.kernels.layout import BLOCK, WIDE_FORMS
from edgellm.simd import targets

ROOT = Path(__file__).resolve().parents[1]
_LINUX = "aarch64-unknown-linux-gnu"
_MAC = "arm64-apple-macosx"
CPUS = {
    "Pi 4": f"neon,{_LINUX},cortex-a72",
    "Pi 5": f"neon-dotprod,{_LINUX},cortex-a76",
    "M1": f"neon-dotprod,{_MAC},apple-m1",
    "M2": f"neon-i8mm,{_MAC},apple-m2",
    "server of 2022": f"neon-i8mm,{_LINUX},neoverse-n2",
}
FORMS = ("q4_0", "q4_k", "q5_k", "q6_k", "q8_0")
DOTS_OF_A_BLOCK = {"smmla": 16, "sdot": 32, "smull": 64}  # a token: 16 rows by 32 columns of products

_LABEL = re.compile(r"^([.\w]+):")
_INSTRUCTION = re.compile(r"^\s+([a-z][a-z0-9.]*)\s*(.*)")
_TARGET = re.compile(r"(\.?LBB\d+_\d+)\s*$")
_PROGRAM = """
import sys
from edgellm.kernels import jit
for name in sys.argv[1:]:
    print("@@", name)
    print(jit.assembly(jit.compile_module(name)))
"""


@dataclass(frozen=True)
class Loop:
    """Instructions first to last (inclusive) of the listing; `last` jumps back to `first`."""

    first: int
    last: int

    def holds(self, other: Loop) -> bool:
        """Whether `other` is this loop or inside it."""
        return self.first <= other.first and other.last <= self.last


@dataclass(frozen=True)
class Count:
    """Instructions for one block of 32 columns by 16 rows, of a tile of `tokens`; `wide` if the panel was
    unpacked before.
    """

    tokens: int
    wide: bool
    instructions: float
    dots: float
    loads: float
    spills: float  # loads and stores of the stack
    dot_loop: int  # instructions of the dot products' loop, or, written out, from the first to the last
    dot_loop_spills: int


def assemblies(cross: str, names: Sequence[str]) -> dict[str, str]:
    """The assembly of kernels for another machine (`EDGELLM_CROSS`), compiled in a child process. Ends the
    script, with what that one says, where it fails.
    """
    environment = os.environ | {"EDGELLM_CROSS": cross, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *names], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(names)} cannot be compiled for {cross}:\n{done.stderr}")
    parts = re.split(r"^@@ (\S+)$", done.stdout, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def instructions_of(assembly: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """(mnemonic, operands) in order, and where each label stands. Semicolons begin Apple's comments."""
    listing: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in assembly.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(listing)
        elif found := _INSTRUCTION.match(line.partition(";")[0]):
            listing.append((found[1], found[2]))
    return listing, labels


def loops_of(listing: Sequence[tuple[str, str]], labels: dict[str, int]) -> list[Loop]:
    """Jumps backwards, the farthest one to each place, smallest loop first."""
    last: dict[int, int] = {}
    for i, (name, operands) in enumerate(listing):
        target = _TARGET.search(operands) if name.startswith(("b.", "b", "cb", "tb")) else None
        if target and labels[target[1]] <= i:
            last[labels[target[1]]] = i
    return sorted((Loop(first, i) for first, i in last.items()), key=lambda loop: loop.last - loop.first)


def _family(name: str) -> str:
    """The instruction's name, for both halves of a register; `smlal` is `smull` that adds, too."""
    return name.partition(".")[0].removesuffix("2").replace("smlal", "smull")


def _is_spill(name: str, operands: str) -> bool:
    return name.startswith(("ld", "st")) and "[sp" in operands


def _is_load(name: str, operands: str) -> bool:
    return name.startswith("ld") and not _is_spill(name, operands)


def _takes_apart(form: str) -> bool:
    """Whether a form's codes are more than bytes."""
    return form in WIDE_FORMS and form != "q8_0"


class Kernel:
    """One kernel's listing and its loops."""

    def __init__(self, assembly: str) -> None:
        self.listing, labels = instructions_of(assembly)
        self.loops = loops_of(self.listing, labels)
        self._matrices = any(_family(name) == "smmla" for name, _ in self.listing)

    def _size(self, loop: Loop) -> int:
        return loop.last - loop.first + 1

    def _having(self, family: str, loop: Loop) -> int:
        return sum(_family(name) == family for name, _ in self.listing[loop.first : loop.last + 1])

    def _dots(self, loop: Loop) -> int:
        return sum(self._having(family, loop) for family in DOTS_OF_A_BLOCK)

    def _matching(self, test: Callable[[str, str], bool], loop: Loop) -> int:
        return sum(test(*line) for line in self.listing[loop.first : loop.last + 1])

    def _chains(self) -> list[list[Loop]]:
        """For each innermost loop with dot products, it and all loops around it, outwards."""
        with_dots = [loop for loop in self.loops if self._dots(loop)]
        innermost = [a for a in with_dots if not any(a != b and a.holds(b) for b in with_dots)]
        return [[loop for loop in with_dots if loop.holds(inner)] for inner in innermost]

    def counts(self, tiles: Sequence[int], form: str) -> list[Count]:
        """One for each token tile, then for the largest with unpacked panels if the form is ever unpacked.
        Raises ValueError if the loops are not as the arithmetic says.
        """
        found = [(self._is_wide(chain[0], form), self._levels(chain, form)) for chain in self._chains()]
        found.sort(key=lambda each: (each[0], -self._having("scvtf", each[1][1])))
        unpacked = self._matrices or _takes_apart(form)
        kinds = [(tokens, False) for tokens in tiles] + [(tiles[0], True)] * unpacked
        if [wide for wide, _ in found] != [wide for _, wide in kinds]:
            raise ValueError(f"{form} has {len(found)} loops of dot products, and {len(kinds)} token tiles")
        counts = []
        for (tokens, wide), (_, levels) in zip(kinds, found, strict=True):
            inner, block, whole = (levels[0], levels[1], levels[1]) if wide else levels
            scales = 8 if form == "q6_k" and not wide else 0  # signed bytes are turned into floats, too
            blocks, left = divmod(self._having("scvtf", block), 8 * tokens + scales)
            if left or not blocks:
                raise ValueError(f"{form}: the loop for {tokens} tokens does not convert 8 sums a token")
            counts.append(self._count((tokens, wide), blocks, inner, block, whole))
        return counts

    def _is_wide(self, dots: Loop, form: str) -> bool:
        """Whether a loop takes unpacked codes: nothing is masked, or it multiplies matrices."""
        if self._matrices:
            return self._having("smmla", dots) > 0
        return _takes_apart(form) and not self._having("and", dots)

    def _levels(self, chain: list[Loop], form: str) -> tuple[Loop, Loop, Loop]:
        """The loop with dot products, the one over blocks, and that over 256 columns if there is one."""
        at = next(i for i, loop in enumerate(chain) if self._having("scvtf", loop))
        return chain[0], chain[at], chain[at + 1] if form.endswith("_k") else chain[at]

    def _count(self, kind: tuple[int, bool], blocks: int, inner: Loop, block: Loop, whole: Loop) -> Count:
        tokens, wide = kind
        family = next(family for family in DOTS_OF_A_BLOCK if self._having(family, inner))
        outside = self._having(family, block) - self._having(family, inner)
        dots = DOTS_OF_A_BLOCK[family] * tokens * blocks
        times, left = divmod(dots - outside, self._having(family, inner))
        if left or (times != 1 and inner == block):
            raise ValueError(f"{dots} dot products of a block are not a whole number of rounds of the loop")

        stretch = self._stretch(inner, block)

        def whole_count(of: Callable[[Loop], int]) -> float:
            around = of(block) - of(inner) + (of(whole) - of(block)) / (256 // BLOCK // blocks)
            return (of(inner) * times + around) / blocks

        return Count(
            tokens,
            wide,
            whole_count(self._size),
            dots / blocks,
            whole_count(lambda loop: self._matching(_is_load, loop)),
            whole_count(lambda loop: self._matching(_is_spill, loop)),
            self._size(stretch),
            self._matching(_is_spill, stretch),
        )

    def _stretch(self, inner: Loop, block: Loop) -> Loop:
        """What stands among dot products: their loop, or of a whole block's, from the first to the last."""
        if inner != block:
            return inner
        at = [i for i in range(inner.first, inner.last + 1) if self._dots(Loop(i, i))]
        return Loop(at[0], at[-1])


HEADER = """\
| CPU | form | tokens | instructions per block and token | of them dot products | loads | stack | \
stack in the dot loop |
|---|---|---|---|---|---|---|---|"""


def rows(cpu: str, forms: Sequence[str]) -> list[str]:
    """A line of the table for each form and token tile, compiled for this CPU."""
    tiles = targets.named(CPUS[cpu].partition(",")[0]).token_tiles
    listings = assemblies(CPUS[cpu], [f"matmul.{form}" for form in forms])
    lines = []
    for form in forms:
        kernel = Kernel(listings[f"matmul.{form}"])
        for c in sorted(kernel.counts(tiles, form), key=lambda c: (c.tokens, c.wide)):
            per_token = [n / c.tokens for n in (c.instructions, c.dots, c.loads, c.spills)]
            figures = " | ".join(f"{n:.1f}".removesuffix(".0") for n in per_token)
            tokens = f"{c.tokens}, unpacked" if c.wide else f"{c.tokens}"
            lines.append(f"| {cpu} | {form} | {tokens} | {figures} | {c.dot_loop_spills} of {c.dot_loop} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cpus", default=",".join(CPUS), help="names of CPUS, with commas between")
    parser.add_argument("--forms", default=",".join(FORMS), help="packed forms, with commas between")
    options = parser.parse_args()
    cpus, forms = options.cpus.split(","), options.forms.split(",")
    for option, given, known in (("--cpus", cpus, CPUS), ("--forms", forms, WIDE_FORMS)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"{option} has {unknown[0]!r}, which is none of {', '.join(known)}")
    print(HEADER)
    for cpu in cpus:
        print("\n".join(rows(cpu, forms)), flush=True)


if __name__ == "__main__":
    main()
