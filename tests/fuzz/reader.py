"""Opens a file and touches what loading touches."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from edgellm import models as families
from edgellm.chat import ChatTemplate
from edgellm.errors import EdgeLLMError
from edgellm.gguf import GGUFFile, open_gguf
from edgellm.loading import configure
from edgellm.tokenizers import Tokenizer
from fuzz import models, seeds
from fuzz.damage import damaged, noise
from fuzz.edits import edited
from fuzz.models import Image, Model

TEXT = "hello <|im_end|> é\n 12"
HI = [{"role": "user", "content": "Hi"}]
GETTERS = ("__getitem__", "int", "float", "bool", "str", "get_array", "ints")
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|/\S+|[-\d.]+(e[-+]?\d+)?|\b(nan|inf)\b")


def make(rng: Random, kept: list[Model]) -> tuple[Image | list[Image], Model | None]:
    """An input: the files of a set, or one; and the model that it comes from, where it comes from one."""
    roll = rng.random()
    if roll < 0.02:
        return noise(rng), None
    model = rng.choice(kept)
    if roll < 0.07:
        return split_set(model, rng), None
    if roll < 0.65:
        made = edited(model, rng)
        return models.write(made), made
    image = models.write(edited(model, rng)) if roll > 0.93 else rng.choice(seeds.seed_images())
    return damaged(image, rng), None


def split_set(model: Model, rng: Random) -> list[Image]:
    """Two or three files that should be one set."""
    count = rng.choice([2, 3])
    parts = []
    for i in range(count):
        pairs = [p for p in model.pairs if not str(p[0]).startswith("split.")] if i == 0 else []
        numbers = {"split.no": i, "split.count": count, "split.tensors.count": len(model.tensors)}
        pairs = pairs + [[key, 2, value] for key, value in numbers.items()]
        part = Model(pairs, model.tensors[i::count])
        parts.append(part if rng.random() < 0.4 else edited(part, rng))
    images = [models.write(part) for part in parts]
    return [image if rng.random() < 0.8 else damaged(image, rng) for image in images]


def put(folder: Path, made: Image | list[Image]) -> Path:
    """Write an input; gives the file to open."""
    if isinstance(made, Image):
        return _put(folder / "fuzz.gguf", made)
    paths = [folder / f"fuzz-{i + 1:05}-of-{len(made):05}.gguf" for i in range(len(made))]
    for path, image in zip(paths, made, strict=True):
        _put(path, image)
    return paths[0]


def _put(path: Path, image: Image) -> Path:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.ftruncate(file, 0)
        os.write(file, image.head)
        # What follows are zeros without pages of their own.
        os.ftruncate(file, image.size)
    finally:
        os.close(file)
    return path


def exercise(path: Path) -> tuple[str, ...]:
    """What came of each stage, in words without names and numbers. Errors that are not ours go through."""
    try:
        file = open_gguf(path)
    except EdgeLLMError as error:
        return (_words(error),)
    with file:
        stages: list[Callable[[GGUFFile], Any]] = [_metadata, _tensors, _graph, _tokenizer]
        return tuple(_outcome(stage, file) for stage in stages)


def _outcome(stage: Callable[[GGUFFile], Any], file: GGUFFile) -> str:
    try:
        return str(stage(file))
    except EdgeLLMError as error:
        return _words(error)


def _words(error: EdgeLLMError) -> str:
    return type(error).__name__ + _PARTICULAR.sub("", str(error))[:200]


def _metadata(file: GGUFFile) -> str:
    for key in file.metadata:
        for getter in GETTERS:
            try:
                getattr(file.metadata, getter)(key, *([4] if getter in GETTERS[5:] else []))
            except EdgeLLMError:
                pass
    return ""


def _tensors(file: GGUFFile) -> str:
    for name, info in file.tensors.items():
        data = file.data(name)
        assert data.size == info.nbytes
        assert info.nbytes == 0 or int(data[0]) + int(data[-1]) >= 0
    return ""


def _graph(file: GGUFFile) -> str:
    graph = families.build(file)
    configure(graph, file, available=2**34)
    return f"graph {file.architecture}"


def _tokenizer(file: GGUFFile) -> str:
    tokenizer = Tokenizer(file)
    ids = tokenizer.encode(TEXT, parse_special=True)
    tokenizer.decode(ids)
    source = tokenizer.chat_template
    if source:
        ChatTemplate(source, tokenizer.bos_text, tokenizer.eos_text).render(HI)
    return f"tokenizer {type(tokenizer._kind).__name__} {bool(source)}"
