"""`edgellm serve`."""

from __future__ import annotations


def test_an_empty_key_is_no_key(cli, fake):
    ended = cli("serve", "--api-key", "")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "edgellm: --api-key is empty: give a key, or leave the option out\n"
    assert fake.asked == []
