"""The questions of all rollouts that were opened: their files, copied from the store, as DuckDB reads them.

A rollout is copied once, its digests checked; its key says that it does not change. What a page shows is read from the
files when it is asked for. How each question came out, and its share and length, are in memory, by which filters and
sorts go, and its text in small letters is in a file beside the copies, in which a search reads: to lower a million
texts takes three times as long as to search them. A thread gathers both while the first page is shown. A rollout that
cannot be shown is not fetched again for each page: its manifest is final, and what is damaged stays so.
"""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb

from selfevo.report.reading import prefix_of
from selfevo.ui import nearest
from selfevo.ui.base import connected, readable, rows_of, table_at
from selfevo.ui.filters import PAGE, SORTS, Filter, conditions, lowered
from selfevo_contract import reasons
from selfevo_contract.artifacts import Manifest
from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.plan import Step
from selfevo_contract.rows import CURRICULUM, QUESTIONS, TEXTS
from selfevo_store import ObjectStore

FAILED_S = 10.0
"""For so long a rollout is not asked for again after its store, or this machine, failed."""

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

    id: tuple[str, str]
    """Where it was copied from: its address, and the write that made its manifest."""
    place: int
    """Among those that were."""
    iteration: int
    folder: Path
    files: dict[str, str]
    """By their names in SQL."""
    rows: int
    searched: str
    """The file with the texts in which a search reads."""
    outcomes: Future[None]
    """Done when the table has its outcomes, and the folder this file."""

    @property
    def failure(self) -> SelfevoError | None:
        """Why the table will never have them."""
        found = self.outcomes.exception() if self.outcomes.done() else None
        return found if isinstance(found, SelfevoError) else None


class _UnreadableError(InputError):
    """Rows of a rollout that was copied; it is refused from now on."""


class Questions:
    """Several threads may ask at once; one at a time copies a rollout."""

    def __init__(self) -> None:
        self._base = connected(_TABLE)
        self._folder = tempfile.TemporaryDirectory(prefix="selfevo-ui-", ignore_cleanup_errors=True)
        self._taken: dict[str, _Rollout] = {}
        """By the step's key."""
        self._places = itertools.count()
        self._refused: dict[tuple[str, str], tuple[SelfevoError, float]] = {}
        """Why rollouts, by their ids, could not be read, and until when they are not asked for again."""
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
                try:
                    self._take(prefix_of(namespace, step), store, step, manifest)
                except InputError as error:
                    refused[step.key] = error
        return refused

    def page(
        self, namespace: str, store: ObjectStore, rollouts: Sequence[tuple[Step, Manifest]], of: Filter
    ) -> tuple[Found, dict[str, InputError]]:
        """A page of the rollouts' questions, and why some cannot be shown, which may come out when they are read."""
        tries = 0
        while True:
            refused = self.take(namespace, store, rollouts)
            try:
                return self.find([step.key for step, _ in rollouts if step.key not in refused], of), refused
            except _UnreadableError:  # one fewer
                tries += 1
                if tries > len(rollouts):
                    raise

    def find(self, keys: Sequence[str], of: Filter) -> Found:
        """A page of the rollouts' questions."""
        wanted = [each for each in map(self._taken.__getitem__, keys) if of.iteration in (None, each.iteration)]
        if of == Filter(iteration=of.iteration, down=of.down, page=of.page):
            total, places = _in_order(wanted, of)
        else:
            total, places = self._filtered(wanted, of)
        return Found(total, self._shown(wanted, places))

    def one(self, key: str, number: int) -> SimpleNamespace | None:
        """All of one question, its votes with the largest class first."""
        sql = _LABELLED.format(asked=f"file_row_number = {int(number)}", labels=_SOME)
        of = self._taken[key]
        with self._reading(of):
            rows = self._rows(f"{sql} SELECT *, {_OUTCOME}, lower({_TEXT}) AS lowered FROM rows", of.files)
        if not rows:
            return None
        found = rows[0]
        votes = [SimpleNamespace(**vote) for vote in found.votes or []]
        found.key, found.votes = key, sorted(enumerate(votes), key=lambda vote: -vote[1].count)
        return found

    def same(self, keys: Sequence[str], question: SimpleNamespace) -> list[SimpleNamespace]:
        """Where else it was asked, word for word but for capitals."""
        own = self._taken[question.key].place, question.number
        found: list[SimpleNamespace] = []
        for each in [self._taken[key] for key in keys]:
            with suppress(_UnreadableError), self._reading(each):  # the page is another's
                rows = self._rows(
                    f"""SELECT file_row_number AS number FROM read_parquet($questions, file_row_number = true)
                    WHERE lower({_TEXT}) = $words ORDER BY number LIMIT {_SAME + 1}""",
                    {"questions": each.files["questions"], "words": question.lowered},
                )
                places = [(each.place, row.number) for row in rows if (each.place, row.number) != own]
                found += self._shown([each], places[: _SAME - len(found)])
        return found

    def nearest(self, keys: Sequence[str], question: SimpleNamespace) -> list[SimpleNamespace]:
        """The questions of the other rollouts with the most runs of words in common with it, the nearest first; the
        same words are not among them. It reads all texts."""
        parts, values = nearest.sql(nearest.searched(question.lowered))
        found: list[tuple[float, _Rollout, int]] = []
        for each in [self._taken[key] for key in keys if key != question.key]:
            with suppress(_UnreadableError), self._reading(each):  # the page is another's
                each.outcomes.result()
                rows = self._rows(
                    f"""SELECT number, lowered, {parts} AS parts FROM read_parquet($searched)
                    WHERE parts > 0 AND lowered <> $words
                    ORDER BY parts DESC, abs(length(lowered) - length($words)), number LIMIT {nearest.CANDIDATES}""",
                    {**values, "searched": each.searched, "words": question.lowered},
                )
                found += [(nearest.in_common(question.lowered, row.lowered), each, row.number) for row in rows]
        best = sorted(found, key=lambda each: (-each[0], each[1].iteration, each[2]))[: nearest.SHOWN]
        shown = self._shown({each.place: each for _, each, _ in best}.values(), [(e.place, n) for _, e, n in best])
        for row, (common, _, _) in zip(shown, best, strict=True):
            row.common = common
        return shown

    def answers(self, namespace: str, store: ObjectStore, of: Step, manifest: Manifest, number: int) -> list[Any]:
        """The answers to a question that are kept (storage.keepAnswers), by class."""
        if TEXTS.as_in(manifest) is None:
            return []
        prefix = prefix_of(namespace, of)
        with tempfile.TemporaryDirectory(prefix="selfevo-ui-") as folder, readable(store.uri_of(prefix)):
            path = table_at(store, prefix, manifest, TEXTS, Path(folder))
            return self._rows(
                f"""SELECT sample, text, answer, coalesce(vote, 1000000) AS class, tokens, truncated
                FROM read_parquet($texts) WHERE number = $number ORDER BY vote NULLS LAST, sample LIMIT {_ANSWERS}""",
                {"texts": str(path), "number": number},
            )

    def _take(self, prefix: str, store: ObjectStore, step: Step, manifest: Manifest) -> None:
        known, id = self._taken.get(step.key), (store.uri_of(prefix), manifest.write_id)
        if known is not None:
            if known.failure is not None and known.id not in self._refused:
                self._refuse(known.id, known.failure)
            if known.id not in self._refused:
                return
        why, until = self._refused.get(id, (None, 0.0))
        if why is not None and time.monotonic() < until:
            raise why.with_traceback(None)
        try:
            self._taken[step.key] = self._copied(id, prefix, store, step, manifest)
        except SelfevoError as error:
            self._refuse(id, error)
            raise
        self._refused.pop(id, None)
        if known is not None:
            shutil.rmtree(known.folder, ignore_errors=True)

    def _copied(self, id: tuple[str, str], prefix: str, store: ObjectStore, step: Step, manifest: Manifest) -> _Rollout:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        try:
            files = {
                "questions": str(table_at(store, prefix, manifest, QUESTIONS, folder)),
                "curriculum": str(table_at(store, prefix, manifest, CURRICULUM, folder)),
            }
            with readable(id[0]):
                self._rows(f"{_ALL} SELECT *, {_OUTCOME} FROM rows LIMIT 0", files)  # the columns are all there
                [count] = self._rows(
                    "SELECT count(*) AS rows FROM read_parquet($questions)", {"questions": files["questions"]}
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        place, searched = next(self._places), str(folder / "searched.parquet")
        outcomes = self._behind.submit(self._gather, id[0], place, step.iteration, files, searched)
        return _Rollout(id, place, step.iteration, folder, files, count.rows, searched, outcomes)

    def _gather(self, uri: str, place: int, iteration: int, files: dict[str, str], searched: str) -> None:
        columns = "number, length, share, came, verdict"
        with readable(uri):
            self._base.cursor().sql(
                f"""SELECT file_row_number AS number, lower({_TEXT}) AS lowered
                FROM read_parquet($questions, file_row_number = true)""",
                params={"questions": files["questions"]},
            ).write_parquet(searched, compression="lz4_raw")
            self._base.cursor().execute(
                f"""INSERT INTO outcomes {_ALL}
                SELECT $place, $iteration, {columns} FROM (SELECT number, {_OUTCOME} FROM rows) ORDER BY number""",
                {**files, "place": place, "iteration": iteration},
            )

    def _refuse(self, id: tuple[str, str], why: SelfevoError) -> None:
        """For good if its rows are to blame, and not what they are read by."""
        passing = not isinstance(why, InputError) or why.reason == reasons.STORE_INVALID
        passing |= isinstance(why.__cause__, duckdb.OutOfMemoryException | duckdb.IOException)
        self._refused[id] = why, time.monotonic() + FAILED_S if passing else math.inf

    @contextmanager
    def _reading(self, of: _Rollout) -> Iterator[None]:
        """Within it rows of one that was copied are read, of which only the columns were checked before.

        Raises:
            _UnreadableError: they are damaged within, and the rollout is refused from now on.
        """
        try:
            with readable(of.id[0]):
                yield
        except _UnreadableError:
            raise
        except InputError as error:
            self._refuse(of.id, error)
            raise _UnreadableError(str(error)) from error

    def _filtered(self, wanted: Sequence[_Rollout], of: Filter) -> tuple[int, list[tuple[int, int]]]:
        """How many questions the filter finds, and where those of its page are: rollout and number."""
        for each in wanted:
            with self._reading(each):
                each.outcomes.result()
        where, values = conditions(of)
        given: dict[str, Any] = {**values, "places": [each.place for each in wanted]}
        found = f"""SELECT place, number, iteration, share, length FROM outcomes
            WHERE list_contains($places, place) AND {where}"""
        words = lowered(of.text)
        if words is not None and wanted:
            hits = " UNION ALL ".join(
                f"""SELECT {each.place} AS place, number FROM read_parquet($file_{each.place})
                WHERE contains(lowered, $words)"""
                for each in wanted
            )
            found = f"SELECT * FROM ({found}) SEMI JOIN ({hits}) USING (place, number)"
            given |= {"words": words, **{f"file_{each.place}": each.searched for each in wanted}}
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
                with self._reading(each):
                    rows = self._rows(f"{sql} SELECT {columns} FROM rows", each.files)
                for row in rows:
                    row.iteration = each.iteration
                    found[each.place, row.number] = row
        return [found[place] for place in places]

    def _rows(self, sql: str, values: dict[str, Any]) -> list[SimpleNamespace]:
        return rows_of(self._base.cursor().execute(sql, values))


def _in_order(wanted: Sequence[_Rollout], of: Filter) -> tuple[int, list[tuple[int, int]]]:
    """The same for a filter that lets all questions through, in their order, which no query is needed for."""
    total = sum(each.rows for each in wanted)
    first = PAGE * (of.page - 1)
    places: list[tuple[int, int]] = []
    for each in sorted(wanted, key=lambda each: each.iteration, reverse=of.down):
        numbers = range(each.rows)[::-1] if of.down else range(each.rows)
        places += [(each.place, number) for number in numbers[max(0, first) : max(0, first + PAGE)]]
        first -= each.rows
    return total, places
