"""Text to token ids and back, as the model file says.

    text --special.py: cut at special tokens--> pieces of text and ids
         --bpe.py | spm.py: an Encoder for each kind--> token ids
    ids  --decoder.py: bytes of each token, whole UTF-8 characters only--> text

How to add one:
- a pre-tokenizer (`tokenizer.ggml.pre`): a row of the table in `pre.py`;
- a kind of tokenizer (`tokenizer.ggml.model`): a class with the two methods of `kinds.Kind`, in a
  file of its own, and its name in the table of `tokenizer.py`.
"""

from edgellm.tokenizers.decoder import IncrementalDecoder
from edgellm.tokenizers.tokenizer import Tokenizer

__all__ = ["IncrementalDecoder", "Tokenizer"]
