"""Split sets: several files that are one model, and all the ways in which they may not fit together."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm.errors import FormatError, ModelNotFoundError, UsageError
from edgellm.gguf import open_gguf, write_gguf


def write_set(folder, count=3, total=None, numbers=None, names=None):
    """Two tensors in each file; the metadata in the first."""
    for i in range(count):
        number = i if numbers is None else numbers[i]
        metadata = {"split.no": number, "split.count": count, "split.tensors.count": total or 2 * count}
        tensors = {
            f"t{i}.{k}" if names is None else names[i][k]: np.full((4, 8), 10 * i + k, np.float32)
            for k in range(2)
        }
        write_gguf(
            folder / f"model-{i + 1:05}-of-{count:05}.gguf", "llama", metadata | {"llama.x": i}, tensors
        )
    return folder / f"model-00001-of-{count:05}.gguf"


def test_a_set_reads_as_one_file(tmp_path):
    path = write_set(tmp_path)
    with open_gguf(path) as file:
        assert file.meta.int("x") == 0
        assert len(file.tensors) == 6
        assert file.file_bytes == sum(p.stat().st_size for p in tmp_path.iterdir())
        for i in range(3):
            for k in range(2):
                file.release(f"t{i}.{k}")
                assert (file.data(f"t{i}.{k}").view(np.float32) == 10 * i + k).all()
        with pytest.raises(FormatError, match="no tensor"):
            file.data("absent")
    with pytest.raises(UsageError, match="closed"):
        file.data("t2.1")


def test_a_later_file_names_the_first(tmp_path):
    write_set(tmp_path)
    with pytest.raises(UsageError, match=r"file 2 of 3; give the first, .*model-00001-of-00003\.gguf"):
        open_gguf(tmp_path / "model-00002-of-00003.gguf")


def test_a_missing_file_is_named(tmp_path):
    path = write_set(tmp_path)
    (tmp_path / "model-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match=r"model-00003-of-00003\.gguf, file 3 of 3"):
        open_gguf(path)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"total": 7}, "have 6 tensors, not 7"),
        ({"numbers": [0, 2, 1]}, "does not say that it is file 2 of 3"),
        ({"names": [["a", "b"], ["c", "a"], ["d", "e"]]}, r"'a' is in model-00001-of-00003\.gguf, too"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, options, error):
    path = write_set(tmp_path, **options)
    with pytest.raises(FormatError, match=error):
        open_gguf(path)


def test_a_renamed_first_file_says_how_names_must_be(tmp_path):
    path = write_set(tmp_path).rename(tmp_path / "renamed.gguf")
    with pytest.raises(UsageError, match=r"must end in -00001-of-00003\.gguf"):
        open_gguf(path)


def test_an_absurd_count_is_refused_at_once(tmp_path):
    path = tmp_path / "model-00001-of-60000.gguf"
    write_gguf(path, "llama", {"split.no": 0, "split.count": 60000}, {"a": np.zeros(32, np.float32)})
    with pytest.raises(FormatError, match=r"split\.count is 60000"):
        open_gguf(path)
