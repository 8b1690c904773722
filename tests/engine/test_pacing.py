from edgellm.engine.pacing import Pacer


def settle(seconds_per_token, low=8, high=512):
    pacer = Pacer(0.1, low, high)
    for _ in range(30):
        pacer.observe(pacer.chunk, pacer.chunk * seconds_per_token)
    return pacer.chunk


def test_the_chunk_settles_where_a_step_is_as_long_as_asked():
    assert 88 <= settle(0.001) <= 104


def test_the_chunk_has_a_floor_and_a_ceiling():
    assert settle(1.0) == 8
    assert settle(1e-6) == 512


def test_one_step_changes_it_by_a_factor_of_two_at_most():
    pacer = Pacer(0.1, 8, 512)
    pacer.observe(32, 1e-9)
    assert pacer.chunk == 64
    pacer.observe(64, 100.0)
    assert pacer.chunk == 32


def test_steps_without_prefill_or_with_a_short_rest_do_not_raise_it():
    pacer = Pacer(0.1, 8, 512)
    pacer.observe(0, 1e-9)
    pacer.observe(3, 1e-9)
    assert pacer.chunk == 32


def test_the_chunk_comes_in_eights():
    pacer = Pacer(0.1, 8, 512)
    pacer.observe(32, 0.1 / 1.3)
    assert pacer.chunk == 40
