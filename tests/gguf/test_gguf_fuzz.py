"""Files that nobody would write: opened, or refused with an error of ours, soon and in little memory."""

from __future__ import annotations

import pytest
from fuzz import models, reader, run
from fuzz.edits import EDGES
from fuzz.models import Image, Model
from fuzz.run import Watch
from fuzz.seeds import seeds

from edgellm.errors import EdgeLLMError, FormatError
from edgellm.gguf import ValueType, open_gguf

SEEDS = seeds()


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_what_the_fuzzer_starts_from_is_sound(tmp_path, number):
    words = reader.exercise(reader.put(tmp_path, models.write(SEEDS[number])))
    good = (f"graph {SEEDS[number].architecture()}", "tokenizer ")
    assert words[0] == words[1] == ""
    assert any(word.startswith(good) for word in words[2:])


def test_some_thousand_files():
    watch = Watch()
    outcomes = run.reader(watch, 2500, seed=7)
    assert not watch.found, watch.examples
    assert outcomes > 150


def test_a_file_cut_at_every_byte(tmp_path):
    image = models.write(SEEDS[-1])
    for size in range(len(image.head)):
        with pytest.raises(EdgeLLMError):
            open_gguf(reader.put(tmp_path, Image(image.head[:size], size)))


def test_every_integer_of_a_file_at_its_edges(tmp_path):
    image = models.write(Model(SEEDS[-1].pairs[:5], [["a", [32], 0, None], ["b", [32, 2], 2, None]]))
    refused = 0
    for at, width in image.fields[:60] + image.fields[-20:]:
        for edge in EDGES:
            raw = (
                image.head[:at]
                + (edge % 2 ** (8 * width)).to_bytes(width, "little")
                + image.head[at + width :]
            )
            refused += len(reader.exercise(reader.put(tmp_path, Image(raw, image.size)))) == 1
    assert refused > 500


def test_a_set_whose_parts_disagree(tmp_path):
    """A part more, a part's number twice, and a tensor in both: refused, each in words of its own."""
    numbers = [[["split.no", ValueType.UINT16, i], ["split.count", ValueType.UINT16, 2]] for i in range(2)]
    first = [*SEEDS[-1].pairs, *numbers[0]]
    tensor = ["a", [32], 0, None]

    def outcome(second: Model) -> str:
        images = [models.write(Model(first, [tensor])), models.write(second)]
        return reader.exercise(reader.put(tmp_path, images))[0]

    assert outcome(Model(numbers[1], [["b", [32], 0, None]])) == ""
    wrong = [Model(numbers[0], []), Model([], []), Model(numbers[1], [tensor])]
    assert len({outcome(model) for model in wrong} - {""}) >= 2


# What was found: (key, type, value), and what the message must say.
FOUND = [
    ("test.layers", [[ValueType.BOOL]], [[0, 1]] * 4, "test.layers' is an array of 4 arrays"),
    ("test.layers", [[ValueType.INT32]], [[1], [2, 3], [4], []], "test.layers' is an array of 4 arrays"),
]


@pytest.mark.parametrize(("key", "kind", "value", "says"), FOUND)
def test_layers_that_are_no_numbers(tmp_path, key, kind, value, says):
    pairs = [["general.architecture", ValueType.STRING, "test"], [key, kind, value]]
    with open_gguf(reader.put(tmp_path, models.write(Model(pairs, [])))) as file:
        with pytest.raises(FormatError, match=says):
            file.metadata.get_array(key, 4)
        with pytest.raises(FormatError, match=says):
            file.metadata.ints(key, 4)


def test_a_way_to_be_wrong_is_seen(tmp_path, monkeypatch):
    """The harness itself: an error that is not ours is found, and said where it was."""
    monkeypatch.setattr(reader.families, "build", lambda file: {}["x"])
    watch = Watch()
    with watch.one("a file"):
        reader.exercise(reader.put(tmp_path, models.write(SEEDS[0])))
    assert [name.split()[0] for name in watch.found] == ["KeyError"]
