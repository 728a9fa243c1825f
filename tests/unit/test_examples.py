"""The examples in the docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import isicvision

MODULES = [each.name for each in pkgutil.walk_packages(isicvision.__path__, "isicvision.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
