"""Questions of rollouts that cannot be read: fetched once, and a sentence beside the others' wherever it shows."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from selfevo.ui import questions
from selfevo.ui.filters import Filter
from selfevo.ui.questions import Questions
from selfevo_contract import reasons
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.rows import CURRICULUM, QUESTIONS, CheckedQuestion, CurriculumRow
from selfevo_store import CorruptArtifact

STORE: Any = SimpleNamespace(uri_of=lambda key: f"s3://b/{key}")
TEXT = Filter(text="what")


class Tables:
    """In the place of ``table_at``, which copies a file of a rollout from its store."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.texts: dict[str, list[str]] = {}
        """Questions of rollouts, by their keys; of others it makes up three."""
        self.failing: SelfevoError | None = None
        """Why no curriculum can be fetched."""
        self.damaged: set[str] = set()
        """Keys of rollouts whose questions' pages are, beneath a footer that says nothing of it."""

    def __call__(self, store: Any, prefix: str, manifest: Any, file: Any, folder: Path) -> Path:
        self.asked.append(file.name)
        path = folder / file.name
        if file is CURRICULUM:
            if self.failing is not None:
                raise self.failing
            CURRICULUM.write(folder, [CurriculumRow(question="what is 1?", answer="1", share=0.5)])
            return path
        key = prefix.rsplit("/", 1)[-1]
        texts = self.texts.get(key, [f"what is {n}?" for n in range(3)])
        QUESTIONS.write(folder, [CheckedQuestion(question=text, majority="1", share=0.5) for text in texts])
        if key in self.damaged:
            data = path.read_bytes()
            pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
            path.write_bytes(data[:4] + b"\xff" * (pages - 4) + data[pages:])
        return path

    @property
    def fetches(self) -> int:
        return self.asked.count(QUESTIONS.name)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    found = Tables()
    monkeypatch.setattr(questions, "table_at", found)
    yield found


def rollouts(*writes: str) -> list[Any]:
    """One an iteration, each with the id of the write that made its manifest."""
    keys = ("a" * 64, "b" * 64)
    steps = [SimpleNamespace(key=key, phase="solver-rollout", iteration=n) for n, key in enumerate(keys, 1)]
    return [(step, SimpleNamespace(write_id=write)) for step, write in zip(steps, writes, strict=False)]


def test_what_is_damaged_is_fetched_once_and_leaves_nothing(tables: Tables) -> None:
    shown = Questions()
    tables.failing = CorruptArtifact("s3://b/c is damaged")
    for _ in range(3):
        [error] = shown.take("default", STORE, rollouts("1")).values()
        assert "is damaged" in str(error)
    assert tables.fetches == 1 and not list(Path(shown._folder.name).iterdir())
    tables.failing = None
    assert shown.take("default", STORE, rollouts("1")) and tables.fetches == 1  # a manifest is final
    assert not shown.take("default", STORE, rollouts("2")) and tables.fetches == 2  # another one is another rollout
    assert shown.find(["a" * 64], Filter()).total == 3


@pytest.mark.parametrize(
    "error",
    [
        ServiceError("the store is away"),
        InputError("permission denied", reason=reasons.STORE_INVALID),
        OSError(errno.ENOSPC, "no space"),
    ],
)
def test_a_store_that_failed_is_asked_again_after_a_while(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    shown = Questions()
    tables.failing = error

    def message() -> str:
        try:
            return "".join(map(str, shown.take("default", STORE, rollouts("1")).values()))
        except (SelfevoError, OSError) as raised:
            return str(raised)

    assert message() == message() == str(error)
    assert tables.fetches == (1 if isinstance(error, SelfevoError) else 2)
    assert not list(Path(shown._folder.name).iterdir())
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + questions.FAILED_S)
    monkeypatch.setattr(questions, "time", later)
    tables.failing = None
    assert message() == "" and shown.find(["a" * 64], TEXT).total == 3


@pytest.mark.parametrize("of", [Filter(), TEXT, Filter(sort="share")])
def test_pages_that_are_damaged_below_a_sound_footer_are_a_sentence(tables: Tables, of: Filter) -> None:
    shown = Questions()
    tables.damaged = {"b" * 64}
    for _ in range(2):
        found, refused = shown.page("default", STORE, rollouts("1", "1"), of)
        assert found.total == 3 and [row.iteration for row in found.rows] == [1, 1, 1]
        [error] = refused.values()
        assert list(refused) == ["b" * 64] and "has rows that this version of selfevo cannot read (" in str(error)
        assert f"s3://b/default/solver-rollout/{'b' * 64}" in str(error)
    assert tables.fetches == 2


def test_the_nearest_have_the_most_words_in_common(tables: Tables) -> None:
    shown, keys = Questions(), ["a" * 64, "b" * 64]
    tables.texts["b" * 64] = [
        "a farmer has 8 hens",
        "A farmer has 7 hens and 2 of them lay; how many do?",  # the same words, and no neighbour
        "a farmer has 7 hens and 3 of them lay; how many do?",
        "of 7 hens 2 lay; how many do?",
        "why?",
    ]
    tables.texts["a" * 64] = ["a farmer has 7 hens and 2 of them lay; how many do?", "another"]
    shown.take("default", STORE, rollouts("1", "1"))
    row = shown.one("a" * 64, 0)
    assert row is not None
    found = shown.nearest(keys, row)
    assert [(each.iteration, each.number) for each in found] == [(2, 2), (2, 3), (2, 0)]
    assert [each.common for each in found] == pytest.approx([8 / 14, 2 / 15, 1 / 13])
    other = shown.one("b" * 64, 4)
    assert other is not None and shown.nearest(keys, other) == []


def test_one_question_is_shown_beside_a_damaged_rollout(tables: Tables) -> None:
    shown = Questions()
    tables.damaged = {"b" * 64}
    shown.take("default", STORE, rollouts("1", "1"))
    row = shown.one("a" * 64, 0)
    assert row is not None and shown.same(["a" * 64, "b" * 64], row) == []
    assert list(shown.take("default", STORE, rollouts("1", "1"))) == ["b" * 64]
    with pytest.raises(InputError, match="has rows that this version"):
        shown.one("b" * 64, 0)


def test_a_filter_that_found_no_memory_may_find_it_later(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, gather = Questions(), Questions._gather

    def full(self: Questions, uri: str, *rest: Any) -> None:
        with questions.readable(uri):
            raise duckdb.OutOfMemoryException("out of memory")

    monkeypatch.setattr(Questions, "_gather", full)
    for _ in range(2):
        found, refused = shown.page("default", STORE, rollouts("1"), TEXT)
        assert found.total == 0 and "out of memory" in str(refused["a" * 64]) and tables.fetches == 1
    monkeypatch.setattr(Questions, "_gather", gather)
    monkeypatch.setattr(questions, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + questions.FAILED_S))
    found, refused = shown.page("default", STORE, rollouts("1"), TEXT)
    assert (found.total, refused, tables.fetches) == (3, {}, 2)
    assert len(list(Path(shown._folder.name).iterdir())) == 1
