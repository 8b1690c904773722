"""Which file of a repository is meant, by the names of its files alone."""

from __future__ import annotations

import pytest

from edgellm.errors import ModelNotFoundError, UsageError
from edgellm.hub.repository import choose, quant_of

SET = [f"m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_0.gguf", "Q4_0"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("Q8_0/model-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ("gemma-3-1b-it-UD-IQ3_XXS.gguf", "UD-IQ3_XXS"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("model.BF16.gguf", "BF16"),
        ("model-TQ1_0.gguf", "TQ1_0"),
        ("Q3.gguf", "Q3"),
        ("phi-4.gguf", ""),
    ],
)
def test_the_quant_type_is_read_from_the_name(name, quant):
    assert quant_of(name) == quant


@pytest.mark.parametrize(
    ("files", "quant", "chosen"),
    [
        (["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q4_0.gguf"], None, "m-Q4_K_M.gguf"),
        (["m-Q8_0.gguf", "m-Q4_0.gguf"], None, "m-Q4_0.gguf"),
        (["m-Q8_0.gguf", "m-F16.gguf"], None, "m-Q8_0.gguf"),
        (["m.gguf", "README.md"], None, "m.gguf"),
        (["m-Q6_K.gguf", "mmproj-Q8_0.gguf", "m-imatrix.gguf"], None, "m-Q6_K.gguf"),
        (["m-Q8_0.gguf", "m-q4_k_m.gguf"], "Q8_0", "m-Q8_0.gguf"),
        (["m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf"], "q4_k_xl", "m-UD-Q4_K_XL.gguf"),
        (["deep/folder/m-Q4_0.gguf", "m-Q4_0.gguf"], None, "m-Q4_0.gguf"),
        ([*SET, "m-Q8_0.gguf"], "Q8_0", "m-Q8_0.gguf"),
        ([*(name.replace("Q8_0", "Q4_K_M") for name in SET), "m-Q8_0.gguf"], None, "m-Q8_0.gguf"),
        ([*SET[1:], "m-Q4_0.gguf"], None, "m-Q4_0.gguf"),
        (["mmproj-m-Q8_0.gguf", "m-Q8_0.gguf"], "Q8_0", "m-Q8_0.gguf"),
        (["mmproj/m-Q8_0.gguf", "m-Q6_K.gguf"], None, "m-Q6_K.gguf"),
        (["m-imatrix-Q4_K_M.gguf", "imatrix.gguf"], None, "m-imatrix-Q4_K_M.gguf"),
    ],
)
def test_the_file_that_is_meant(files, quant, chosen):
    assert choose("user/repo", files, quant) == (chosen,)


@pytest.mark.parametrize(
    ("files", "quant", "error", "said"),
    [
        (["m-Q8_0.gguf", "m-Q6_K.gguf"], "Q2_K", ModelNotFoundError, "no Q2_K; it has: Q6_K, Q8_0"),
        (["m-Q5_0.gguf", "m-Q6_K.gguf"], None, UsageError, "choose one.*Q5_0, Q6_K"),
        (["README.md"], None, ModelNotFoundError, "no .gguf"),
        (
            ["README.md", "mmproj-F16.gguf"],
            None,
            ModelNotFoundError,
            r"no .gguf model: mmproj-F16\.gguf go beside",
        ),
        (["m.imatrix.gguf"], "Q8_0", ModelNotFoundError, "importance matrices"),
        (
            SET[:1] + SET[2:],
            None,
            ModelNotFoundError,
            r"2 of the 3 .* missing are: m-Q8_0-00002-of-00003\.gguf$",
        ),
        (SET[1:], "Q8_0", ModelNotFoundError, r"missing are: m-Q8_0-00001-of-00003\.gguf$"),
        ([*SET, "m-Q6_K.gguf"], "Q4_0", ModelNotFoundError, "no Q4_0; it has: Q6_K, Q8_0"),
    ],
)
def test_a_repository_that_does_not_fit_says_what_it_has(files, quant, error, said):
    with pytest.raises(error, match=said):
        choose("user/repo", files, quant)


@pytest.mark.parametrize("quant", [None, "q8_0"])
def test_a_set_is_chosen_whole_and_in_order(quant):
    files = ["README.md", *(f"Q8_0/{name}" for name in reversed(SET)), "m-F16.gguf"]
    assert choose("user/repo", files, quant or "Q8_0") == tuple(f"Q8_0/{name}" for name in SET)
    assert choose("user/repo", files[:-1], quant) == tuple(f"Q8_0/{name}" for name in SET)


def test_sets_in_different_folders_are_different_sets():
    files = [f"a/{name}" for name in SET] + [f"b/{name}" for name in SET[:2]]
    assert choose("user/repo", files, "Q8_0") == tuple(f"a/{name}" for name in SET)
