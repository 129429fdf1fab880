"""No identifier of the sources has a word that names no thing: it is a message, a report, a status, a reconcile."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("contract", "operator", "trainer", "cli")
WORDS = {"told", "said", "look", "looks", "looked", "looking", "sight", "sights", "news"}
_ANY = re.compile("|".join(sorted(WORDS)), re.IGNORECASE)
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def vague(source: str) -> Iterator[str]:
    """The identifiers in ``source`` of which one part, in snake or camel case, is such a word."""
    if not _ANY.search(source):  # a tokenizer for every file would take seconds
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and {part.lower() for part in _PART.findall(token.string)} & WORDS:
            yield token.string


def test_identifiers_are_the_fields_terms() -> None:
    files = [path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]
    assert len(files) > 100
    found = {
        path.relative_to(ROOT).as_posix(): sorted(names)
        for path in files
        if (names := set(vague(path.read_text(encoding="utf-8"))))
    }
    assert found == {}, "name the thing: message, detail, reported, poll, check, reconcile, ..."


@pytest.mark.parametrize("name", ["said", "_told", "said_of", "LOOK_S", "JobSight", "news", "told_to_end", "look2"])
def test_such_a_name_is_found(name: str) -> None:
    assert list(vague(f"def f(x):\n    return x.{name}\n")) == [name]


def test_words_in_sentences_and_within_other_words_are_not_meant() -> None:
    assert list(vague('"""Look at the log."""\nlookup = ProcessLookupError("said")  # as told\n')) == []
