"""The type ids of the format: of tensors (ggml's) and of metadata values.

Source: ggml/include/ggml.h and ggml/src/ggml-common.h of llama.cpp, docs/gguf.md of ggml; ids above 96 are
ik_llama.cpp's.
"""

from __future__ import annotations

import enum

from edgellm.errors import UnsupportedError


class TensorType(enum.IntEnum):
    """Every tensor type that a file may name, including those that no file should have any more."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q4_2 = 4
    Q4_3 = 5
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    Q4_0_4_4 = 31
    Q4_0_4_8 = 32
    Q4_0_8_8 = 33
    TQ1_0 = 34
    TQ2_0 = 35
    IQ4_NL_4_4 = 36
    IQ4_NL_4_8 = 37
    IQ4_NL_8_8 = 38
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42

    Q8_0_X4 = 97
    Q8_1_X4 = 98
    Q8_2_X4 = 99
    Q6_0 = 133
    IQ1_BN = 134
    IQ2_BN = 135
    Q8_K64 = 136
    IQ2_K = 137
    IQ3_K = 138
    IQ4_K = 139
    IQ5_K = 140
    IQ6_K = 141
    IQ4_KS = 144
    IQ2_KS = 145
    IQ4_KSS = 146
    Q8_K16 = 147
    Q8_K32 = 148
    Q8_KR8 = 149
    Q8_K128 = 150
    Q8_KV = 151
    IQ5_KS = 152
    IQ2_KT = 153
    IQ3_KT = 154
    IQ4_KT = 155
    IQ3_KS = 156
    IQ2_KL = 157
    IQ1_KT = 158
    Q4_0_R8 = 202
    Q5_0_R4 = 206
    Q8_0_R8 = 208
    Q2_K_R4 = 210
    Q3_K_R4 = 211
    Q4_K_R4 = 212
    Q5_K_R4 = 213
    Q6_K_R4 = 214
    IQ2_XXS_R4 = 216
    IQ2_XS_R4 = 217
    IQ3_XXS_R4 = 218
    IQ1_S_R4 = 219
    IQ4_NL_R4 = 220
    IQ3_S_R4 = 221
    IQ2_S_R4 = 222
    IQ4_XS_R8 = 223
    IQ1_M_R4 = 229
    BF16_R16 = 230
    Q6_0_R4 = 233
    IQ2_BN_R4 = 335
    IQ2_K_R4 = 337
    IQ3_K_R4 = 338
    IQ4_K_R4 = 339
    IQ5_K_R4 = 340
    IQ4_KS_R4 = 344
    IQ5_KS_R4 = 352
    Q8_K_R16 = 397
    Q8_KV_R8 = 398
    Q8_K_R8 = 399

    @property
    def stored(self) -> bool:
        """Whether a sound file may hold tensors of this type."""
        return self in _SIZES

    @property
    def block_size(self) -> int:
        """Elements in a block. Raises UnsupportedError for a type that files do not store."""
        return self._sizes()[0]

    @property
    def type_size(self) -> int:
        """Bytes of a block. Raises UnsupportedError for a type that files do not store."""
        return self._sizes()[1]

    def _sizes(self) -> tuple[int, int]:
        if self not in _SIZES:
            raise UnsupportedError(f"type {self.name} ({self.value}) {self.refusal()}")
        return _SIZES[self]

    def refusal(self) -> str:
        """Why a type that is not `stored` is refused, and what to use instead."""
        if self in _REPLACED:
            return f"was removed from the format; use a file in {_REPLACED[self]}"
        if self in (TensorType.Q8_1, TensorType.Q8_K):
            return "holds activations and is never stored in files; use a file in Q8_0"
        return "exists only in ik_llama.cpp; use a file made with llama.cpp, such as Q4_K_M"


class ValueType(enum.IntEnum):
    """The types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# NumPy's dtype of each value type that is a number; a bool is a byte that must be 0 or 1.
NUMBERS: dict[ValueType, str] = {
    ValueType.UINT8: "<u1",
    ValueType.INT8: "<i1",
    ValueType.UINT16: "<u2",
    ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
    ValueType.BOOL: "<u1",
    ValueType.UINT64: "<u8",
    ValueType.INT64: "<i8",
    ValueType.FLOAT64: "<f8",
}

# (elements, bytes) of one block of every type that files store.
_SIZES: dict[TensorType, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.F64: (1, 8),
    TensorType.I8: (1, 1),
    TensorType.I16: (1, 2),
    TensorType.I32: (1, 4),
    TensorType.I64: (1, 8),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q2_K: (256, 84),
    TensorType.Q3_K: (256, 110),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
    TensorType.IQ1_S: (256, 50),
    TensorType.IQ1_M: (256, 56),
    TensorType.IQ2_XXS: (256, 66),
    TensorType.IQ2_XS: (256, 74),
    TensorType.IQ2_S: (256, 82),
    TensorType.IQ3_XXS: (256, 98),
    TensorType.IQ3_S: (256, 110),
    TensorType.IQ4_NL: (32, 18),
    TensorType.IQ4_XS: (256, 136),
    TensorType.TQ1_0: (256, 54),
    TensorType.TQ2_0: (256, 66),
    TensorType.MXFP4: (32, 17),
    TensorType.NVFP4: (64, 36),
    TensorType.Q1_0: (128, 18),
    TensorType.Q2_0: (64, 18),
}

_REPLACED: dict[TensorType, str] = {
    TensorType.Q4_2: "Q4_0",
    TensorType.Q4_3: "Q4_1",
    TensorType.Q4_0_4_4: "Q4_0, which is repacked when it is loaded",
    TensorType.Q4_0_4_8: "Q4_0, which is repacked when it is loaded",
    TensorType.Q4_0_8_8: "Q4_0, which is repacked when it is loaded",
    TensorType.IQ4_NL_4_4: "IQ4_NL (if it came from ik_llama.cpp, where this id is I2_S: in TQ2_0)",
    TensorType.IQ4_NL_4_8: "IQ4_NL, which is repacked when it is loaded",
    TensorType.IQ4_NL_8_8: "IQ4_NL, which is repacked when it is loaded",
}
