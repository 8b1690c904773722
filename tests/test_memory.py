import pytest

from edgellm import memory
from edgellm.errors import MemoryLimitError
from edgellm.memory import available_memory, plan_cache, total_memory

MIB = 2**20


def plan(**changes):
    """One MiB a page of 32 tokens, 100 MiB of model; four sequences of the model's 1024 tokens."""
    sizes = {
        "page_size": 32,
        "page_bytes": MIB,
        "other_bytes": 100 * MIB,
        "model_context": 1024,
        "context_length": None,
        "max_sequences": 4,
        "memory_limit": None,
        "available": None,
        "low_memory_helps": True,
    }
    made = plan_cache(**{**sizes, **changes})
    return made.context_length, made.num_pages


def test_where_memory_is_unknown_or_plenty_every_sequence_has_its_context():
    assert plan() == (1024, 128)
    assert plan(available=10_000 * MIB) == (1024, 128)


def test_nobody_gets_a_huge_context_unasked():
    assert plan(model_context=131072)[0] == 8192
    assert plan(model_context=131072, context_length=20000)[0] == 20000


def test_without_a_limit_the_cache_takes_a_quarter_of_what_is_left():
    assert plan(available=500 * MIB) == (1024, 100)


def test_one_context_may_take_more_than_a_quarter():
    assert plan(available=140 * MIB) == (1024, 32)


def test_a_limit_is_used_up_but_never_exceeded():
    assert plan(memory_limit=180 * MIB, available=10_000 * MIB) == (1024, 80)


def test_a_context_nobody_asked_for_shrinks_to_fit():
    assert plan(available=120 * MIB) == (640, 20)


@pytest.mark.parametrize("changes", [{"available": 110 * MIB}, {"memory_limit": 50 * MIB}])
def test_what_does_not_fit_is_refused_with_all_numbers(changes):
    with pytest.raises(MemoryLimitError, match="a context of 512 tokens needs 16 MiB beside 100 MiB"):
        plan(**changes)


@pytest.mark.parametrize(("sequences", "named"), [(1, False), (4, True)])
def test_fewer_sequences_are_a_remedy_where_there_are_several(sequences, named):
    with pytest.raises(MemoryLimitError) as caught:
        plan(max_sequences=sequences, available=110 * MIB)
    assert (f"and what {sequences} sequences compute in" in str(caught.value)) == named
    assert ("a smaller model, context_length or max_sequences" in str(caught.value)) == named


@pytest.mark.parametrize("helps", [True, False])
def test_weights_that_stay_in_the_file_are_a_remedy_where_they_would_take_memory(helps):
    with pytest.raises(MemoryLimitError) as caught:
        plan(low_memory_helps=helps, available=110 * MIB)
    assert ("--low-memory" in str(caught.value)) == helps


def test_a_context_that_was_asked_for_is_never_shortened():
    with pytest.raises(MemoryLimitError, match="a context of 1000 tokens needs 32 MiB"):
        plan(context_length=1000, available=120 * MIB)


def test_this_machine_has_some_memory():
    available = available_memory()
    assert available is None or available > 16 * MIB


def test_all_memory_is_the_machines_or_the_limit_of_a_cgroup(tmp_path, monkeypatch):
    whole = total_memory()
    assert whole is None or whole >= (available_memory() or 0)
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUPS", ((str(limit), ""),))
    for text, want in (("max", memory._system_total()), ("1048576\n", MIB)):
        limit.write_text(text)
        assert total_memory() == want
