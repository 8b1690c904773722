"""Where things stand in memory, for kernels and for those who call them. Plain numbers; imports nothing."""

from __future__ import annotations

LANES = 16  # rows of a weight panel
BLOCK = 32  # columns of an activation block: two groups of 16
PART = 1024  # columns: longer rows are cut, so that what a tile reads of its activations stays in L1
GROUP = 4  # panels that take a part in turn
PAGE = 32  # tokens of a KV page
KV_TYPES = ("f32", "f16", "q8_0")
KV_BLOCK = 32  # dimensions of a q8_0 scale
SPAN = 256  # positions after which attention's partial sums are merged

# -- the step header: int64 words ------------------------------------------------------------------
H_ONE = 0  # always 1: the size of ops that do not depend on the step
H_TOKENS = 1  # T
H_OUTPUTS = 2  # O
H_ITEMS = 3  # attention items: runs of consecutive rows of one sequence
H_POSITIONS = 4  # address, i32 [T]
H_ROW_PAGES = 5  # address, i32 [T]: the page that holds the row's key and value
H_OUTPUT_ROWS = 6  # address, i32 [O]
H_ITEM_TABLE = 7  # address, i64 [items, IT_WORDS]
H_MERGES = 8  # rows whose spans are separate items
H_MERGE_TABLE = 9  # address, i64 [merges, ME_WORDS]
H_DRAWS = 10  # address, i64 [O, DR_WORDS], or 0
H_TOKEN_IDS = 11  # address, i32 [T]
H_PARTS = 12  # in how many parts, by columns, heads or rows, ops that go row by row cut a chunk
H_APART = 13  # whether each row is another sequence's, so that no two write to one page
H_ASKS = 14  # whether a chunk asks for help with its parts (kernels/helping.py)
H_PARTS_LEFT = 15  # (serial:40, parts that nobody has taken:24)
H_PARTS_DONE = 16
H_PART_KERNEL = 17  # address
H_PART_ARGS = 18  # address
H_TEAM = 19  # address of the control block of the team that walks the plan, or 0
HEADER_WORDS = 20

# An attention item: first row, rows, first position, address of the page table (i32). IT_SPAN is -1 for all
# keys, else the number of the one span to attend to, whose result goes to slot IT_SLOT.
IT_ROW, IT_ROWS, IT_POSITION, IT_TABLE, IT_SPAN, IT_SLOT = range(6)
IT_WORDS = 6
# A merge: the row, its first slot, how many slots.
ME_ROW, ME_SLOT, ME_SPANS = range(3)
ME_WORDS = 3
# How to choose an output row's token. Integers, then the bits of f64; a row with no DR_VOCAB is left alone.
(
    DR_TOKEN,  # -1; the token, once it is chosen
    DR_VOCAB,  # only the first so many tokens may be
    DR_TOP_K,  # 0: any number
    DR_PATCHES,  # address, f64 [patches, PA_WORDS]
    DR_PATCH_COUNT,
    DR_SIGMA,  # top_n_sigma; 0: off
    DR_TYPICAL,
    DR_TOP_P,
    DR_LEAST,  # log(min_p): how far below the best logit one may be
    DR_XTC,  # its threshold; 1: not this time
    DR_TEMPERATURE,  # 0: the best
    DR_UNIFORM,  # the random number, in [0, 1)
    DR_REPEAT,
    DR_PRESENCE,
    DR_FREQUENCY,
) = range(15)
DR_WORDS = 15
# A logit that differs from the model's: token, bias, how often it was seen; room to remember the model's.
PA_TOKEN, PA_BIAS, PA_SEEN, PA_LOGIT = range(4)
PA_WORDS = 4

# -- an op of a plan: int64 words; chunks = header[PARTS] * MUL * ceil(header[SLOT] / DIV) ----------
OP_KERNEL, OP_ARGS, OP_SLOT, OP_DIV, OP_MUL, OP_PARTS = range(6)
OP_WORDS = 8

# -- quantized activations --------------------------------------------------------------------------
# Groups of 16 columns have a scale each: with 32, the noise of rounding is twice as large. Two groups, low
# and high, make a block of 32, and one scale is a power of two times the other, at most 16 or 256 times: then
# their sums are added as integers, before they meet a scale. Free scales would spare a tenth of the noise,
# and cost a multiplication for each block.
#
# A token may have two rows: its values, and what rounding left of them. Their products are added, so that
# the token is known to 15 bits; where noise would stay, that is worth it: `backends/cpu/precise.py`.
#
# Rows stand in tiles, as the kernels take them (largest first). Three rows stand in a tile of 4, and seven in
# one of 8, whose last row has scales of 0: the weights are read once, not twice or three times.
#
# Of tokens with two rows, as many as fill tiles of 4 or more (of 2, where none is larger) have their first
# rows in one and their second rows in the next, which only some panels take; the tokens that are left have
# theirs side by side: memory sets the pace for so few, and one reading of the weights serves both rows.
#
# A tile of NT rows at row r0 holds
#   codes at r0 * K:                        s8 [K/32][8 words][NT][4]
#   aux at r0 * K/32 * AUX_WORDS * 4:       [K/32][AUX_WORDS][NT] words of 4 bytes, as follows
AUX_SCALE = 0  # f32: scale of columns 16-31
AUX_RATIO = 1  # f32: that of columns 0-15, divided by it
AUX_SUM = 2  # f32: the sum of the 32 values as quantized, for minimums
AUX_START_LOW = 3  # i32: -zero * sum of the codes, where the accumulator starts, for codes with a zero point
AUX_START_HIGH = 4  # as many times that as second codes count; of all 32, where they make one total at once
AUX_SIXTEENTH = 5  # f32: a sixteenth of the scale, where second codes may count 16 times
AUX_SHIFT = 6  # i32: 16 times the ratio is 2 to the power of this, 0 to 12
AUX_FACTORS = 6  # or, where sums are weighed (`weighed.py`), two i16: either is that power
AUX_WORDS = 7
LOW_DOWN, HIGH_DOWN = 4, 8  # binary orders of magnitude that one scale is below the other, at most
ZERO_4_BITS, ZERO_6_BITS = 8, 32  # the zero points of q4_0 and q6_k, and of nothing else


def room_rows(tokens: int) -> int:
    """Rows that so many tokens take, and as many f32 rows a product of theirs: whole tiles."""
    return tokens + (tokens % 4 == 3)


def quantized_bytes(rows: int, columns: int) -> int:
    """Room for quantized rows: codes, then aux."""
    return rows * columns + rows * (columns // BLOCK) * AUX_WORDS * 4


# -- packed weights ---------------------------------------------------------------------------------
# Panels of 16 rows, one after the other. Where rows are longer than PART, GROUP panels stand together, part
# by part: [groups][parts][GROUP panels][blocks of the part]; there are whole groups only, and chunks are
# groups.


def panels_of(rows: int, columns: int) -> int:
    """Panels that hold so many rows."""
    panels = -(-rows // LANES)
    return -(-panels // GROUP) * GROUP if columns > PART else panels


# Bytes of a panel for one quant block:
PANEL_Q4_0 = 32 + 256  # 16 f16 scales, nibbles
PANEL_Q4_1 = 64 + 256  # scales, minimums, nibbles
PANEL_Q5_0 = 32 + 64 + 256  # scales, fifth bits, nibbles
PANEL_Q5_1 = 64 + 64 + 256  # scales, minimums, fifth bits, nibbles
PANEL_Q8_0 = 32 + 512  # scales, bytes
PANEL_Q4_K = 64 + 256 + 8 * 256  # f16 d and dmin, 8 x 16 u8 scales, 8 x 16 u8 minimums, 8 x nibbles
PANEL_Q5_K = 64 + 256 + 8 * (64 + 256)  # the same, with fifth bits before the nibbles
PANEL_Q6_K = 256 + 32 + 8 * (256 + 128)  # 16 x 16 i8 scales, f16 scales, 8 x 2 x (two bits each, nibbles)


def mapped_scratch(block_columns: int, block_bytes: int) -> int:
    """Bytes that one worker of mapped.* needs: a panel's part."""
    return PART // block_columns * block_bytes


MM_TOKENS = 64  # tokens of a chunk, at most: a multiple of every token tile

# Of some forms, unpacked (`unpack.py`), 32 columns of 16 rows: their codes as 8 vectors of bytes, then at
# most 256 bytes of f32: the scales, and the minimums or the high group's scales. A worker has room for pieces
# of the panels that go together, or for a part of one, as large as L1 holds beside a tile's activations; for
# the sums of a chunk's tokens; and for those of the rows of them, of which a token may have two. Not every
# target unpacks all of these forms.
WIDE_CODES, WIDE_BLOCK = 512, 512 + 256
WIDE_PIECE, WIDE_WHOLE = 512, 640  # columns: of longer rows; rows not cut (`parts.py`: where a part is whole)
WIDE_TOGETHER = 2  # panels, at most
WIDE_PANEL = WIDE_WHOLE // BLOCK * WIDE_BLOCK
WIDE_SUMS = max(WIDE_TOGETHER * WIDE_PANEL, PART // BLOCK * WIDE_BLOCK)
WIDE_PIECES = WIDE_SUMS + 4 * LANES * WIDE_TOGETHER * MM_TOKENS
WIDE_SCRATCH = WIDE_PIECES + 4 * LANES * WIDE_TOGETHER * 2 * MM_TOKENS
WIDE_FORMS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k")


# Every packed form, by the name of its kernels (matmul.NAME, pack.NAME): columns of a block, bytes of a
# panel of it.
FORMS = {
    "f32": (1, 4 * LANES),
    "f16": (1, 2 * LANES),
    "bf16": (1, 2 * LANES),
    "q4_0": (BLOCK, PANEL_Q4_0),
    "q4_1": (BLOCK, PANEL_Q4_1),
    "q5_0": (BLOCK, PANEL_Q5_0),
    "q5_1": (BLOCK, PANEL_Q5_1),
    "q8_0": (BLOCK, PANEL_Q8_0),
    "q4_k": (256, PANEL_Q4_K),
    "q5_k": (256, PANEL_Q5_K),
    "q6_k": (256, PANEL_Q6_K),
}

# -- argument blocks: int64 words; addresses unless said otherwise ----------------------------------
# embed.*: y[t] = table[token of t]
(
    EM_TABLE,  # a tensor in its file
    EM_ROW_BYTES,  # number: of a row in the file
    EM_COLUMNS,  # number
    EM_Y,  # f32
    EM_Y_STRIDE,  # number: bytes
) = range(5)
EM_WORDS = 5

# matmul.*: y[t, n] = sum_k x[t, k] w[n, k] (+ bias[n]) (+ residual[t, n])
(
    MM_WEIGHTS,
    MM_X,  # quantized codes, or f32 rows
    MM_AUX,
    MM_Y,  # f32
    MM_BIAS,  # f32 [rows padded to panels], or 0
    MM_RESIDUAL,  # f32 rows like y, or 0
    MM_COLUMNS,  # number: K
    MM_PANELS,  # number: all of the weight
    MM_PANELS_PER_CHUNK,  # number
    MM_X_STRIDE,  # number: bytes from row to row; of quantized rows, the columns
    MM_Y_STRIDE,  # number: bytes from token to token
    MM_SLOT,  # number: header word that holds the token count
    MM_PLANES,  # number: quantized rows of a token, 1 or 2
    MM_PRECISE,  # number: the first panel that takes second rows
    MM_ROWS,  # mapped.* only, whose MM_WEIGHTS is a tensor in its file; number: its rows
    MM_ROW_BYTES,  # number: bytes of a row in the file
    MM_SCRATCH,  # room for every worker: mapped_scratch, or WIDE_SCRATCH
) = range(17)
MM_WORDS = 17

# pointwise.*, quantize.rows: rows in, f32 rows and/or quantized rows out
(
    PW_X,
    PW_X2,  # glu, add: the other operand
    PW_WEIGHT,  # norms: f32 [columns]
    PW_Y,  # f32 rows out, or 0
    PW_CODES,  # quantized rows out, or 0
    PW_AUX,
    PW_COLUMNS,  # number
    PW_X_STRIDE,  # number: bytes
    PW_Y_STRIDE,  # number: bytes
    PW_SLOT,  # number: header word that holds the row count
    PW_EPS,  # number: the bits of an f32, a norm's eps or scale's factor
    PW_ZERO,  # number: the zero point of the weights that will read the codes
    PW_PLANES,  # number: quantized rows of a token, 1 or 2
    PW_HEADS,  # number: head_norm's heads of PW_COLUMNS columns in a row
    PW_ROWS,  # number: header word that holds a row index (i32), or H_ONE: rows as they come
) = range(15)
PW_WORDS = 15
PW_CHUNK = 8  # rows a chunk; the largest token tile

# rope.turn_and_store: turn q and k in place, put k and v into their pages
(
    RS_Q,
    RS_K,
    RS_V,
    RS_Q_STRIDE,  # numbers: bytes from token to token
    RS_K_STRIDE,
    RS_V_STRIDE,
    RS_HEADS,
    RS_KV_HEADS,
    RS_HEAD_DIM,
    RS_DIMS,  # number: dimensions that turn, 0 for none
    RS_NEOX,  # number: 1 pairs i with i + dims/2, 0 pairs neighbours
    RS_TABLE,  # f32 [positions, 2, dims/2]
    RS_POOL,  # pages of this layer, [page][kv head][K, V]
    RS_KEY_BYTES,  # numbers: bytes of a head's in a page
    RS_VALUE_BYTES,
) = range(15)
RS_WORDS = 15

# attention.attend, attention.merge
(
    AT_Q,
    AT_Q_STRIDE,
    AT_OUT,
    AT_OUT_STRIDE,
    AT_HEADS,
    AT_KV_HEADS,
    AT_HEAD_DIM,
    AT_POOL,
    AT_SCALE,  # the bits of an f32
    AT_WINDOW,  # number: 0 for none
    AT_SCRATCH,  # room for every worker
    AT_SCRATCH_STRIDE,  # bytes of one worker's
    AT_PARTS,  # results of spans, by slots
    AT_KEY_BYTES,  # numbers: bytes of a head's in a page
    AT_VALUE_BYTES,
) = range(15)
AT_WORDS = 15
MAX_PAIRS = 48  # (row, query head) pairs of a chunk, unless one row has more heads
MAX_ATTENTION_TILE = 12


def attention_scratch(pairs: int, head_dim: int) -> int:
    """Bytes that one worker of attention.attend needs for `pairs` pairs, whatever the tile."""
    whole = pairs + MAX_ATTENTION_TILE
    return whole * (8 * head_dim + 8 + 6 * 64) + 2 * MAX_ATTENTION_TILE * SPAN * 4


def attention_part(heads: int, head_dim: int) -> int:
    """Bytes of one slot."""
    return heads * (64 + 4 * head_dim)


# sample.draw
SM_LOGITS, SM_STRIDE, SM_PART = range(3)  # f32 rows; number: bytes from row to row; sample.part
SM_WORDS = 3
MOST_BEST = 256  # tokens that are sorted
FIRST_BEST = 64  # that top_p sorts, as NumPy does; where more hold the mass, it sorts none

# pack.*: rows of a GGUF tensor -> panels
PK_SOURCE, PK_TARGET, PK_ROWS, PK_COLUMNS, PK_ROW_BYTES, PK_PANELS_PER_CHUNK = range(6)
PK_WORDS = 6

# -- the team's control block: int64 words, a cache line (8 words) apart ---------------------------
C_EPOCH, C_SLEEPERS, C_STOP = 0, 8, 16
C_ABORT = 24  # the header of a plan that is to be given up, or 0
C_OPS, C_COUNT, C_HEADER, C_TICKETS = 32, 33, 34, 35  # the plan of the present epoch
C_WORKERS = 36
C_MUTEX, C_CONDITION = 48, 64
C_WORKER = 80  # then 16 words for each worker:
W_LEFT = 0  # the last epoch that it left
W_HOLDS = 1  # 0, or what it holds: a chunk that is its own, offers, or has lost (kernels/standing_in.py)
W_BENCHED = 2  # whether it is to take none
W_UNTIL = 3  # the time (ns) at which that ends or ended
W_CLOCK = 4  # room for a timespec
W_PENALTY = 6  # for how long (ns) it was benched last
W_SERIAL = 7  # of its last offer
WORKER_WORDS = 16
HELD, OFFERED, LOST = range(1, 4)  # the lowest bits of W_HOLDS: how things stand with the chunk
STATE_BITS = 2
STATE = (1 << STATE_BITS) - 1
MOST_SHARES = 8  # tickets of an op: as many as a cache line has words
TICKET_WORDS = 16  # of an op: tickets at 0 to 7, done at 8, each (epoch:40, count:24)
TICKET_SHIFT = 24  # of a word that counts down: of what it counts, above; how much is left, below
TICKET_LEFT = (1 << TICKET_SHIFT) - 1
