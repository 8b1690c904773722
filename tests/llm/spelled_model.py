"""A tiny random model whose tokens are bytes, with a chat template."""

import numpy as np

from edgellm import SamplingParams
from edgellm.gguf import write_gguf

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
HIDDEN, HEADS, LAYERS, FFN = 32, 4, 2, 48

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters():
    """GPT-2's spelling of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def write_model(path, **metadata):
    tokens = [*SPECIAL, *byte_letters(), "Ġt", "he"]
    rng = np.random.default_rng(1)

    def weight(*shape):
        return (rng.standard_normal(shape) * (1.5 / shape[-1] ** 0.5)).astype(np.float32)

    tensors = {
        "token_embd.weight": weight(len(tokens), HIDDEN) * 4,
        "output_norm.weight": np.ones(HIDDEN, np.float32),
    }
    for i in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{i}.{norm}.weight"] = np.ones(HIDDEN, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.{i}.{name}.weight"] = weight(HIDDEN, HIDDEN)
        for name, shape in (
            ("ffn_gate", (FFN, HIDDEN)),
            ("ffn_up", (FFN, HIDDEN)),
            ("ffn_down", (HIDDEN, FFN)),
        ):
            tensors[f"blk.{i}.{name}.weight"] = weight(*shape)
    settings = {
        "llama.context_length": 256,
        "llama.embedding_length": HIDDEN,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.merges": ["Ġ t", "h e"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
        **metadata,
    }
    write_gguf(path, "llama", {k: v for k, v in settings.items() if v is not None}, tensors)
    return path
