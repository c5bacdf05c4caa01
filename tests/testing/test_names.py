"""`unigpu.testing`: its public names, and what is said where its extra is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unigpu import testing

WITHOUT = """
import sys
sys.modules["respx"] = None
from unigpu.testing import isolated
from unigpu.testing import handlers
try:
    from unigpu.testing import unigpu_mock
except Exception as exc:
    print(type(exc).__name__, exc)
"""


@pytest.mark.parametrize("name", testing.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(testing, name).__doc__


def test_there_are_no_others() -> None:
    assert sorted(testing.__all__) == sorted(testing._WHERE)
    with pytest.raises(AttributeError, match="unigpu_mokc"):
        testing.unigpu_mokc  # noqa: B018 - the access is the test


def test_without_the_extra_it_says_what_to_install() -> None:
    told = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True).stdout
    assert told.startswith("ConfigurationError unigpu_mock needs the package respx")
    assert 'pip install "unigpu[testing]"' in told
