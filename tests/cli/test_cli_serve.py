"""`edgellm serve`."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("option", ["--api-key", "--host"])
def test_an_empty_key_or_host_is_none(cli, fake, option):
    ended = cli("serve", option, "")
    assert (ended.code, ended.out) == (2, "")
    assert "at least one" in ended.err or "--host is empty" in ended.err
    assert fake.asked == []
