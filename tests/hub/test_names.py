"""What a person may call a model, and what is said when it is not one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.errors import ModelNotFoundError, UsageError
from edgellm.hub import head, installed, pull, remove, resolve


def test_a_path_is_itself(tmp_path: Path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    assert resolve(str(path)) == resolve(path) == path
    assert resolve("model.gguf") == Path("model.gguf")
    assert resolve("./model.gguf").samefile(path)


@pytest.mark.parametrize("name", ["nowhere.gguf", "./nowhere", "/nowhere/at/all.gguf", "smollm2/135m"])
def test_a_path_that_is_not_there_says_so(name):
    with pytest.raises(ModelNotFoundError, match=f"{name} does not exist"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("~nosuch/x.gguf", "~nosuch/x.gguf begins with a home folder that is not there"),
        ("a" * 300 + ".gguf", "cannot be opened \\(File name too long\\)"),
        ("a\0.gguf", "does not exist"),
    ],
)
def test_a_path_that_cannot_be_there_says_so(name, said):
    with pytest.raises(ModelNotFoundError, match=said):
        resolve(name)


def test_a_folder_is_not_a_model(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        resolve(str(tmp_path) + "/")


def test_an_unknown_name_is_told_its_neighbours_and_how_to_list_them(home):
    with pytest.raises(ModelNotFoundError, match=r"smollm2:135m.*edgellm list.*hf\.co/USER/REPO"):
        resolve("smollm2")


@pytest.mark.parametrize("name", ["", None, 3])
def test_what_is_not_a_name_is_refused(name):
    with pytest.raises(UsageError):
        resolve(name)


@pytest.mark.parametrize("name", ["smollm2:135m", "hf.co/user/repo:Q8_0"])
def test_nothing_is_downloaded_unless_asked_for(home: Path, name):
    with pytest.raises(ModelNotFoundError, match=f"edgellm pull {name}"):
        resolve(name, download=False)
    assert not home.exists()


def test_what_is_not_in_the_store_cannot_be_removed(home):
    with pytest.raises(ModelNotFoundError, match="is not in the model store"):
        remove("smollm2:135m")


@pytest.mark.parametrize(
    ("file", "name", "gone"),
    [
        ("My/model.gguf", "My:model", "no model is called 'My:model'"),
        ("a/b/c.gguf", "a/b:c", "a/b:c does not exist"),
    ],
)
def test_a_file_that_somebody_put_into_the_store_has_the_name_that_is_listed(home: Path, file, name, gone):
    path = home / "models" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    assert [model.name for model in installed()] == [name]
    assert resolve(name) == pull(name) == path
    assert head(name) is None
    assert remove(name).freed_bytes == 4
    with pytest.raises(ModelNotFoundError, match=gone):
        resolve(name)


@pytest.mark.parametrize("what", [pull, remove])
def test_a_path_is_neither_pulled_nor_removed(home: Path, what):
    with pytest.raises(ModelNotFoundError, match=r"'\./m\.gguf' is a path.*`edgellm run \./m\.gguf` takes"):
        what("./m.gguf")
    with pytest.raises(
        ModelNotFoundError, match=r"the names there are, and hf\.co/USER/REPO:QUANT works too"
    ):
        what("unknown")


def test_names_cost_no_import_of_the_hub_library():
    script = "import sys, edgellm.hub; edgellm.hub.catalogue(); print('huggingface_hub' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert child.stdout == "False\n"


def test_a_device_is_no_model():
    with pytest.raises(ModelNotFoundError, match="/dev/null is no regular file"):
        resolve("/dev/null")
