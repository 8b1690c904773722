"""The inner loops of the matrix products on ARM, read in their assembly: what they count, and that registers
suffice.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from edgellm.kernels import layout
from edgellm.simd import targets

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "arm_table.py"
_spec = importlib.util.spec_from_file_location("arm_table", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
arm_table = importlib.util.module_from_spec(_spec)
sys.modules["arm_table"] = arm_table  # dataclasses look their module up
_spec.loader.exec_module(arm_table)

LISTING = """
	.globl	edgellm_matmul_q8_0
edgellm_matmul_q8_0:
	stp	x29, x30, [sp, #-16]!
.LBB0_1:
	ld1r	{ v1.4s }, [x1]
.LBB0_2:
	ldr	q2, [x0], #16
	sdot	v3.4s, v2.16b, v1.16b
	sdot	v4.4s, v2.16b, v1.16b
	sdot	v5.4s, v2.16b, v1.16b
	sdot	v6.4s, v2.16b, v1.16b
	str	q6, [sp, #32]
	sdot	v7.4s, v2.16b, v1.16b
	sdot	v16.4s, v2.16b, v1.16b
	sdot	v17.4s, v2.16b, v1.16b
	sdot	v18.4s, v2.16b, v1.16b
	b.ne	.LBB0_2
	scvtf	v3.4s, v3.4s
	scvtf	v4.4s, v4.4s
	scvtf	v5.4s, v5.4s
	scvtf	v6.4s, v6.4s
	scvtf	v7.4s, v7.4s
	scvtf	v16.4s, v16.4s
	scvtf	v17.4s, v17.4s
	scvtf	v18.4s, v18.4s
	ldr	q9, [sp, #48]
	b.gt	.LBB0_1
	ret
"""


def test_a_listing_is_counted_as_by_hand():
    """Four rounds of 11, and 11 around them; a round loads once, and touches the stack once."""
    (count,) = arm_table.Kernel(LISTING).counts((1,), "q8_0")
    assert count == arm_table.Count(
        tokens=1, wide=False, instructions=55, dots=32, loads=5, spills=5, dot_loop=11, dot_loop_spills=1
    )


def test_among_products_that_are_written_out_is_what_stands_between_them():
    """A loop of 32 products is over a whole block: what is put away before or after them is around them."""
    products = ["\tsdot\tv3.4s, v2.16b, v1.16b"] * 32
    products[16:16] = ["\tldr\tq2, [sp, #64]"]
    lines = [".LBB0_1:", "\tstr\tq8, [sp, #32]", *products, "\tldr\tq8, [sp, #32]"]
    lines += ["\tscvtf\tv3.4s, v3.4s"] * 8 + ["\tb.gt\t.LBB0_1", "\tret"]
    (count,) = arm_table.Kernel("\n".join(lines)).counts((1,), "q8_0")
    assert (count.dot_loop, count.dot_loop_spills, count.spills) == (33, 1, 3)


def test_loops_that_do_not_fit_the_arithmetic_are_refused():
    with pytest.raises(ValueError, match="2 token tiles"):
        arm_table.Kernel(LISTING).counts((2, 1), "q8_0")
    with pytest.raises(ValueError, match="8 sums a token"):
        arm_table.Kernel(LISTING.replace("	scvtf	v3.4s, v3.4s\n", "", 1)).counts((1,), "q8_0")
    with pytest.raises(ValueError, match="whole number"):
        arm_table.Kernel(LISTING.replace("	sdot	v3.4s, v2.16b, v1.16b\n", "", 1)).counts((1,), "q8_0")


def test_apples_way_of_writing_is_read_as_well():
    names = [name for name, _ in arm_table.instructions_of("LBB0_1:\n\tsdot.4s\tv1, v2, v3 ; then\n")[0]]
    assert names == ["sdot.4s"]


def test_the_table_is_of_forms_and_targets_that_there_are():
    assert set(arm_table.FORMS) <= set(layout.FORMS)
    for cross in arm_table.CPUS.values():
        assert targets.named(cross.partition(",")[0]).machine == "aarch64"


@pytest.mark.slow
@pytest.mark.parametrize("cpu", arm_table.CPUS)
def test_the_dot_loops_keep_to_their_registers(cpu):
    tiles = targets.named(arm_table.CPUS[cpu].partition(",")[0]).token_tiles
    listings = arm_table.assemblies(arm_table.CPUS[cpu], [f"matmul.{form}" for form in arm_table.FORMS])
    for form in arm_table.FORMS:
        for count in arm_table.Kernel(listings[f"matmul.{form}"]).counts(tiles, form):
            # A single token waits for memory: there a constant may come from the stack.
            assert count.dot_loop_spills <= (count.tokens == 1), (form, count)
