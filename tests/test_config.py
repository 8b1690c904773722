"""Settings that the environment makes no sense of, and what is said then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgellm.config import load_config
from edgellm.errors import UsageError


def test_home_is_the_folder_that_is_named_or_one_in_the_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("EDGELLM_HOME", raising=False)
    assert load_config().home == Path("/me/.cache/edgellm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert load_config().home == Path("/cache/edgellm")
    monkeypatch.setenv("EDGELLM_HOME", "~/models")
    assert load_config().home == Path("/me/models")


@pytest.mark.skipif(os.name != "posix", reason="users are the system's own")
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    pwd = pytest.importorskip("pwd")

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "EDGELLM_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(UsageError, match="no home folder to keep models in: set EDGELLM_HOME to a folder"):
        load_config()
    monkeypatch.setenv("EDGELLM_HOME", "/models")
    assert load_config().home == Path("/models")


def test_the_home_of_somebody_who_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("EDGELLM_HOME", "~nosuch/x")
    with pytest.raises(UsageError, match=r"EDGELLM_HOME is '~nosuch/x'.*set it to a folder"):
        load_config()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1025", "9" * 5000])
def test_threads_that_are_no_count_are_refused_in_a_short_sentence(monkeypatch, value):
    monkeypatch.setenv("EDGELLM_THREADS", value)
    with pytest.raises(UsageError, match="a whole number from 1 to 1024") as caught:
        load_config()
    assert len(str(caught.value)) < 200


def test_threads_are_counted(monkeypatch):
    monkeypatch.setenv("EDGELLM_THREADS", "12")
    assert load_config().threads == 12
    monkeypatch.setenv("EDGELLM_THREADS", "")
    assert load_config().threads is None
