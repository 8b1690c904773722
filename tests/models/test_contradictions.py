"""Files whose tensors contradict their metadata: an error that names what is wrong, soon, and no other."""

import time

import pytest
from support import HollowFile, conformance_names, skeleton

from edgellm import models
from edgellm.errors import EdgeLLMError, FormatError, UnsupportedError

NAMES = conformance_names()
BAD_INTEGERS = [0, 1, 3, 5, 255, 2**31 - 1, 2**32 - 1, -1, "seven", 0.5, True, [1], [], [0] * 4096]
BAD_FLOATS = [0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30, "seven"]


def first_layers(case):
    """Names and shapes of tensors, but for those of layers that are like earlier ones."""
    return [(n, s) for n, s, _ in case["tensors"] if not n.startswith("blk.") or n.split(".")[1] in "012"]


def build(case):
    return models.build(HollowFile(case))


def outcome(case):
    """The message of the error, or the graph; any error that is not ours goes through."""
    try:
        return "", build(case)
    except EdgeLLMError as error:
        return str(error), None


def with_key(case, key, value):
    kind = ["INT32"] if isinstance(value, list) else "INT32"
    changed = [[k, kind, value] if k == key else [k, t, v] for k, t, v in case["metadata"]]
    found = any(k == key for k, *_ in changed)
    return case | {"metadata": changed if found else [*changed, [key, kind, value]]}


def with_shape(case, name, shape):
    return case | {"tensors": [[n, shape if n == name else s, t] for n, s, t in case["tensors"]]}


def without_tensor(case, name):
    return case | {"tensors": [tensor for tensor in case["tensors"] if tensor[0] != name]}


@pytest.fixture
def llama():
    return skeleton("llama-dense")


def test_a_missing_tensor(llama):
    with pytest.raises(FormatError, match=r"no tensor 'blk\.1\.attn_k\.weight'"):
        build(without_tensor(llama, "blk.1.attn_k.weight"))


def test_a_wrong_shape(llama):
    with pytest.raises(FormatError, match=r"'blk\.0\.ffn_down\.weight' has shape 256x128; .* need 256x384"):
        build(with_shape(llama, "blk.0.ffn_down.weight", [256, 128]))


def test_fewer_logits_than_embeddings(llama):
    with pytest.raises(FormatError, match=r"'output\.weight' has shape 100x256; .* need 128x256"):
        build(with_shape(llama, "output.weight", [100, 256]))


def test_too_few_rope_factors(llama):
    with pytest.raises(FormatError, match=r"'rope_freqs\.weight'.* needs 64 factors"):
        build(with_shape(llama, "rope_freqs.weight", [8]))


def test_zero_heads(llama):
    with pytest.raises(EdgeLLMError, match=r"llama\.attention\.head_count .*at least 1"):
        build(with_key(llama, "llama.attention.head_count", 0))


def test_heads_that_do_not_divide(llama):
    with pytest.raises(FormatError, match=r"'blk\.0\.attn_q\.weight'"):
        build(with_key(llama, "llama.attention.head_count", 3))


def test_more_heads_than_columns(llama):
    with pytest.raises(FormatError, match=r"head_count is 1000, and llama\.embedding_length"):
        build(with_key(llama, "llama.attention.head_count", 1000))


@pytest.mark.parametrize("scale", [1e-39, -1e-45])
def test_logits_are_not_divided_by_almost_nothing(scale):
    with pytest.raises(FormatError, match=rf"granite\.logit_scale is {scale:g}, .* at least 1e-38"):
        build(with_key(skeleton("granite-scales"), "granite.logit_scale", scale))


def test_key_heads_that_do_not_divide(llama):
    case = with_key(llama, "llama.attention.head_count_kv", 3)
    with pytest.raises(FormatError, match=r"'blk\.0\.attn_k\.weight'"):
        build(case)


@pytest.mark.parametrize("count", [3, 4000, 2**31 - 1])
def test_more_layers_than_tensors(llama, count):
    start = time.monotonic()
    with pytest.raises(FormatError, match=r"blk\.2\.|block_count"):
        build(with_key(llama, "llama.block_count", count))
    assert time.monotonic() - start < 1


def test_an_unknown_architecture_lists_the_known(llama):
    with pytest.raises(UnsupportedError, match=r"'nonesuch' is not supported; supported are .*llama"):
        build(llama | {"architecture": "nonesuch"})


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_missing_in_turn(name):
    case = skeleton(name)
    for tensor, _ in first_layers(case):
        message, graph = outcome(without_tensor(case, tensor))
        if graph is None:  # of tensors that have another form, the message may name that one
            assert tensor.partition(".attn_")[0].partition(".ssm_")[0].partition(".ffn_")[0] in message
        else:
            assert tensor not in graph.weights()


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_misshapen_in_turn(name):
    case = skeleton(name)
    used = build(case).weights()
    for tensor, shape in first_layers(case):
        if tensor in used:
            for wrong in ([*shape[:-1], shape[-1] + 1], [2, 3, *shape], [7]):
                with pytest.raises(FormatError):
                    build(with_shape(case, tensor, wrong))


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_wrong_in_turn(name):
    case = skeleton(name)
    start = time.monotonic()
    for key, kind, _ in case["metadata"]:
        if key.startswith(case["architecture"]):
            for value in BAD_FLOATS if kind == "FLOAT32" else BAD_INTEGERS:
                message, graph = outcome(with_key(case, key, value))
                assert (graph is None) == bool(message)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(("name", "kind"), [("clip", "mmproj"), ("whisper", "speech"), ("flux", "image")])
def test_what_is_no_text_model_is_refused_by_what_it_is(llama, name, kind):
    with pytest.raises(UnsupportedError, match=rf"architecture '{name}' \(.*{kind}.*\) is not supported"):
        build(llama | {"architecture": name})
