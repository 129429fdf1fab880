"""The questions of all rollouts that were looked at: their files, copied from the store, as DuckDB reads them.

A rollout is copied once, its digests checked; its key says that it does not change. What a page shows is read from the
files when it is asked for. How each question came out, and its share and length, are in memory, by which filters and
sorts go: they are gathered behind the first page's back.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from selfevo.report.reading import prefix_of
from selfevo.ui.base import connected, readable, rows_of, table_at
from selfevo.ui.filters import PAGE, SORTS, Filter, conditions, lowered
from selfevo_contract.artifacts import Manifest
from selfevo_contract.errors import InputError
from selfevo_contract.plan import Step
from selfevo_contract.rows import CURRICULUM, QUESTIONS, TEXTS
from selfevo_store import ObjectStore

INVALID, UNLABELLED, KEPT = "invalid", "unlabelled", "kept"
_CUT = 600
"""Characters of a question in the table."""
_ANSWERS = 200
"""Answers of one question that are read in full."""
_SAME = 50
"""Other questions with the same words that one question's page leads to."""

_TEXT = "coalesce(question, raw)"
_OUTCOME = f"""length({_TEXT}) AS length, CASE WHEN question IS NOT NULL THEN share END AS share,
    CASE WHEN question IS NULL THEN '{INVALID}' WHEN dropped IS NOT NULL THEN dropped
        WHEN label IS NULL THEN '{UNLABELLED}' ELSE '{KEPT}' END AS came,
    CASE WHEN truth IS NULL OR coalesce(label, majority) IS NULL THEN 'unknown'
        WHEN coalesce(label, majority) = truth THEN 'right' ELSE 'wrong' END AS verdict"""
_TABLE = """CREATE TABLE outcomes (place INTEGER, iteration INTEGER, number BIGINT, length BIGINT, share DOUBLE,
    came VARCHAR, verdict VARCHAR)"""
_LABELLED = """WITH asked AS (SELECT * FROM read_parquet($questions, file_row_number = true) WHERE {asked}),
    labels AS (SELECT question, any_value(answer) AS label FROM read_parquet($curriculum) WHERE {labels}
        GROUP BY question),
    rows AS (SELECT a.*, file_row_number AS number, label FROM asked a
        LEFT JOIN labels l ON l.question = a.question AND a.dropped IS NULL)"""
"""Questions with their labels, from a rollout's two files."""
_ALL = _LABELLED.format(asked="true", labels="true")
_SOME = "question IN (SELECT question FROM asked WHERE dropped IS NULL)"


@dataclass(frozen=True)
class Found:
    """One page of the questions that were asked for."""

    total: int
    rows: list[SimpleNamespace]

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE))


@dataclass(frozen=True)
class _Rollout:
    """One that was copied."""

    place: int
    """Among those that were."""
    iteration: int
    files: dict[str, str]
    """By their names in SQL."""
    rows: int
    outcomes: Future[None]
    """Done when the table has its outcomes."""


class Questions:
    """Several threads may ask at once; one at a time copies a rollout."""

    def __init__(self) -> None:
        self._base = connected(_TABLE)
        self._folder = tempfile.TemporaryDirectory(prefix="selfevo-ui-", ignore_cleanup_errors=True)
        self._taken: dict[str, _Rollout] = {}
        self._lock = threading.Lock()
        self._behind = ThreadPoolExecutor(1, "outcomes")

    def take(
        self, namespace: str, store: ObjectStore, rollouts: Sequence[tuple[Step, Manifest]]
    ) -> dict[str, InputError]:
        """Copy those that are not there yet. Returns why others cannot be shown, by their keys: they have no such rows,
        or damaged ones.

        Raises:
            SelfevoError: the store failed.
        """
        refused = {}
        with self._lock:
            for step, manifest in rollouts:
                if step.key not in self._taken:
                    try:
                        self._taken[step.key] = self._copied(prefix_of(namespace, step), store, step, manifest)
                    except InputError as error:
                        refused[step.key] = error
        return refused

    def find(self, keys: Sequence[str], of: Filter) -> Found:
        """A page of the rollouts' questions."""
        wanted = [each for each in map(self._taken.__getitem__, keys) if of.iteration in (None, each.iteration)]
        if of == Filter(iteration=of.iteration, down=of.down, page=of.page):
            total, places = _in_order(wanted, of)
        else:
            total, places = self._looked_for(wanted, of)
        return Found(total, self._shown(wanted, places))

    def one(self, key: str, number: int) -> SimpleNamespace | None:
        """All of one question, its votes with the largest class first."""
        sql = _LABELLED.format(asked=f"file_row_number = {int(number)}", labels=_SOME)
        rows = self._rows(f"{sql} SELECT *, {_OUTCOME}, lower({_TEXT}) AS lowered FROM rows", self._taken[key].files)
        if not rows:
            return None
        found = rows[0]
        found.key, found.votes = key, sorted(enumerate(found.votes or []), key=lambda vote: -vote[1]["count"])
        return found

    def same(self, keys: Sequence[str], question: SimpleNamespace) -> list[SimpleNamespace]:
        """Where else it was asked, word for word but for capitals."""
        wanted = [self._taken[key] for key in keys]
        own, places = (self._taken[question.key].place, question.number), []
        for each in wanted:
            rows = self._rows(
                f"""SELECT file_row_number AS number FROM read_parquet($questions, file_row_number = true)
                WHERE lower({_TEXT}) = $words ORDER BY number LIMIT {_SAME + 1}""",
                {"questions": each.files["questions"], "words": question.lowered},
            )
            places += [(each.place, row.number) for row in rows if (each.place, row.number) != own]
        return self._shown(wanted, places[:_SAME])

    def answers(self, namespace: str, store: ObjectStore, of: Step, manifest: Manifest, number: int) -> list[Any]:
        """The answers to a question that are kept (storage.keepAnswers), by class."""
        if TEXTS.as_in(manifest) is None:
            return []
        with tempfile.TemporaryDirectory(prefix="selfevo-ui-") as folder:
            path = table_at(store, prefix_of(namespace, of), manifest, TEXTS, Path(folder))
            return self._rows(
                f"""SELECT sample, text, answer, coalesce(vote, 1000000) AS class, tokens, truncated
                FROM read_parquet($texts) WHERE number = $number ORDER BY vote NULLS LAST, sample LIMIT {_ANSWERS}""",
                {"texts": str(path), "number": number},
            )

    def _copied(self, prefix: str, store: ObjectStore, step: Step, manifest: Manifest) -> _Rollout:
        place = len(self._taken)
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))  # another's, which could not be read, may be there
        files = {
            "questions": str(table_at(store, prefix, manifest, QUESTIONS, folder)),
            "curriculum": str(table_at(store, prefix, manifest, CURRICULUM, folder)),
        }
        with readable(store, prefix):
            self._rows(f"{_ALL} SELECT *, {_OUTCOME} FROM rows LIMIT 0", files)  # the columns are all there
            [count] = self._rows(
                "SELECT count(*) AS rows FROM read_parquet($questions)", {"questions": files["questions"]}
            )
        outcomes = self._behind.submit(self._gather, place, step.iteration, files)
        return _Rollout(place, step.iteration, files, count.rows, outcomes)

    def _gather(self, place: int, iteration: int, files: dict[str, str]) -> None:
        columns = "number, length, share, came, verdict"
        self._base.cursor().execute(
            f"""INSERT INTO outcomes {_ALL}
            SELECT $place, $iteration, {columns} FROM (SELECT number, {_OUTCOME} FROM rows) ORDER BY number""",
            {**files, "place": place, "iteration": iteration},
        )

    def _looked_for(self, wanted: Sequence[_Rollout], of: Filter) -> tuple[int, list[tuple[int, int]]]:
        """How many questions the filter finds, and where those of its page are: rollout and number."""
        for each in wanted:
            each.outcomes.result()
        where, values = conditions(of)
        given: dict[str, Any] = {**values, "places": [each.place for each in wanted]}
        found = f"""SELECT place, number, iteration, share, length FROM outcomes
            WHERE list_contains($places, place) AND {where}"""
        words = lowered(of.text)
        if words is not None and wanted:
            hits = " UNION ALL ".join(
                f"""SELECT {each.place} AS place, file_row_number AS number
                FROM read_parquet($file_{each.place}, file_row_number = true) WHERE contains(lower({_TEXT}), $words)"""
                for each in wanted
            )
            found = f"SELECT * FROM ({found}) SEMI JOIN ({hits}) USING (place, number)"
            given |= {"words": words, **{f"file_{each.place}": each.files["questions"] for each in wanted}}
        way = "DESC NULLS LAST" if of.down else "NULLS LAST"
        order = "iteration, number" if of.sort == "number" else SORTS[of.sort]
        order = ", ".join(f"{name} {way}" for name in order.split(", "))
        rows = self._rows(
            f"""SELECT place, number, count(*) OVER () AS total FROM ({found})
            ORDER BY {order}, iteration, number LIMIT {PAGE} OFFSET {PAGE * (of.page - 1)}""",
            given,
        )
        if not rows and of.page > 1:
            [counted] = self._rows(f"SELECT count(*) AS total FROM ({found})", given)
            return counted.total, []
        return rows[0].total if rows else 0, [(row.place, row.number) for row in rows]

    def _shown(self, wanted: Iterable[_Rollout], places: Sequence[tuple[int, int]]) -> list[SimpleNamespace]:
        """What the table says of the questions at ``places``, in that order."""
        found: dict[tuple[int, int], SimpleNamespace] = {}
        for each in wanted:
            numbers = ", ".join(str(int(number)) for place, number in places if place == each.place)
            if numbers:
                sql = _LABELLED.format(asked=f"file_row_number IN ({numbers})", labels=_SOME)
                columns = f"number, left({_TEXT}, {_CUT}) AS text, left(majority, {_CUT}) AS majority, {_OUTCOME}"
                for row in self._rows(f"{sql} SELECT {columns} FROM rows", each.files):
                    row.iteration = each.iteration
                    found[each.place, row.number] = row
        return [found[place] for place in places]

    def _rows(self, sql: str, values: dict[str, Any]) -> list[SimpleNamespace]:
        return rows_of(self._base.cursor().execute(sql, values))


def _in_order(wanted: Sequence[_Rollout], of: Filter) -> tuple[int, list[tuple[int, int]]]:
    """The same for a filter that lets all questions through, in their order, for which nothing is looked for."""
    total = sum(each.rows for each in wanted)
    first = PAGE * (of.page - 1)
    places: list[tuple[int, int]] = []
    for each in sorted(wanted, key=lambda each: each.iteration, reverse=of.down):
        numbers = range(each.rows)[::-1] if of.down else range(each.rows)
        places += [(each.place, number) for number in numbers[max(0, first) : max(0, first + PAGE)]]
        first -= each.rows
    return total, places
