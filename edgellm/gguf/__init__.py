"""GGUF files: from bytes to metadata and tensor extents, and back.

    with open_gguf("model.gguf") as file:
        file.metadata["tokenizer.ggml.tokens"]   # a lazy sequence of 151,936 strings
        file.meta.int("block_count")             # "<architecture>.block_count", which must be an integer
        file.data("token_embd.weight")           # uint8 [nbytes], a read-only view of the map

Everything in a file is somebody else's word: `open_gguf` checks every count, length, offset and type against
the file's size before it is used, so that whoever computes on a tensor can rely on its extent.

How to add one:
- a tensor type: a member of `TensorType` and its row in `_SIZES` (types.py); what its bytes mean goes to
  `quants/`;
- a metadata type: a member of `ValueType` and its row in `NUMBERS` (types.py).
"""

from edgellm.gguf.file import GGUFFile
from edgellm.gguf.metadata import Metadata
from edgellm.gguf.split import SplitFile, open_gguf
from edgellm.gguf.strings import StringArray
from edgellm.gguf.tensors import TensorInfo
from edgellm.gguf.types import TensorType, ValueType
from edgellm.gguf.write import write_gguf

__all__ = [
    "GGUFFile",
    "Metadata",
    "SplitFile",
    "StringArray",
    "TensorInfo",
    "TensorType",
    "ValueType",
    "open_gguf",
    "write_gguf",
]
