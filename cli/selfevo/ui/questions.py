"""The questions of all rollouts that were looked at, in memory, as one table that DuckDB filters and searches.

A rollout is read once, from files whose digests the store's reader checks; its key says that it does not change.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from selfevo.report.reading import prefix_of
from selfevo.ui.base import connected, rows_of, table_at
from selfevo.ui.filters import PAGE, SORTS, Filter, conditions
from selfevo_contract.artifacts import Manifest
from selfevo_contract.plan import Step
from selfevo_contract.rows import CURRICULUM, QUESTIONS, TEXTS
from selfevo_store import ObjectStore

INVALID, UNLABELLED, KEPT = "invalid", "unlabelled", "kept"
_CUT = 600
"""Characters of a question in the table."""
_ANSWERS = 200
"""Answers of one question that are read in full."""

_TABLE = """CREATE TABLE questions (key VARCHAR, iteration INTEGER, number BIGINT, question VARCHAR, raw VARCHAR,
    lowered VARCHAR, length BIGINT, share DOUBLE, majority VARCHAR, proposed VARCHAR, truth VARCHAR, label VARCHAR,
    came VARCHAR, verdict VARCHAR, votes STRUCT(answer VARCHAR, count BIGINT)[])"""
_TAKE = f"""INSERT INTO questions
    WITH labels AS (SELECT question, any_value(answer) AS label FROM read_parquet($curriculum) GROUP BY question),
    rows AS (SELECT q.*, l.label FROM read_parquet($questions, file_row_number = true) q
        LEFT JOIN labels l ON l.question = q.question AND q.dropped IS NULL)
    SELECT $key, $iteration, file_row_number, question, raw, lower(coalesce(question, raw)),
        length(coalesce(question, raw)), CASE WHEN question IS NOT NULL THEN share END, majority, proposed, truth,
        label, CASE WHEN question IS NULL THEN '{INVALID}' WHEN dropped IS NOT NULL THEN dropped
            WHEN label IS NULL THEN '{UNLABELLED}' ELSE '{KEPT}' END,
        CASE WHEN truth IS NULL OR coalesce(label, majority) IS NULL THEN 'unknown'
            WHEN coalesce(label, majority) = truth THEN 'right' ELSE 'wrong' END,
        votes
    FROM rows ORDER BY file_row_number"""


@dataclass(frozen=True)
class Found:
    """One page of the questions that were asked for."""

    total: int
    rows: list[SimpleNamespace]

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE))


class Questions:
    """Several threads may ask at once; one at a time takes in a rollout."""

    def __init__(self) -> None:
        self._base = connected(_TABLE)
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def take(self, namespace: str, store: ObjectStore, rollouts: Sequence[tuple[Step, Manifest]]) -> None:
        """Read those that are not there yet.

        Raises:
            SelfevoError: the store failed, or what it has is damaged.
        """
        with self._lock:
            for step, manifest in rollouts:
                if step.key not in self._taken:
                    self._read(prefix_of(namespace, step), store, step, manifest)
                    self._taken.add(step.key)

    def find(self, keys: Sequence[str], of: Filter) -> Found:
        """A page of the rollouts' questions."""
        where, values = conditions(of)
        where, values = f"list_contains(?, key) AND {where}", [list(keys), *values]
        cursor = self._base.cursor()
        total = rows_of(cursor.execute(f"SELECT count(*) AS n FROM questions WHERE {where}", values))[0].n
        order = "iteration, number" if of.sort == "number" else SORTS[of.sort]
        if of.down:
            order = ", ".join(f"{name} DESC" for name in order.split(", "))
        places = f"""SELECT rowid FROM questions WHERE {where}
            ORDER BY {order} NULLS LAST, iteration, number LIMIT {PAGE} OFFSET {PAGE * (of.page - 1)}"""
        rows = cursor.execute(
            f"""SELECT iteration, number, left(coalesce(question, raw), {_CUT}) AS text, length, share,
                left(majority, {_CUT}) AS majority, came, verdict
            FROM questions WHERE rowid IN ({places}) ORDER BY {order} NULLS LAST, iteration, number""",
            values,
        )
        return Found(int(total), rows_of(rows))

    def one(self, key: str, number: int) -> SimpleNamespace | None:
        """All of one question, its votes with the largest class first."""
        cursor = self._base.cursor()
        rows = rows_of(cursor.execute("SELECT * FROM questions WHERE key = ? AND number = ?", [key, number]))
        if not rows:
            return None
        found = rows[0]
        found.votes = sorted(enumerate(found.votes or []), key=lambda vote: -vote[1]["count"])
        return found

    def same(self, keys: Sequence[str], question: SimpleNamespace) -> list[SimpleNamespace]:
        """Where else it was asked, word for word but for capitals."""
        cursor = self._base.cursor()
        found = cursor.execute(
            """SELECT iteration, number, share, came, verdict FROM questions
            WHERE list_contains(?, key) AND lowered = ? AND NOT (key = ? AND number = ?)
            ORDER BY iteration, number LIMIT 50""",
            [list(keys), question.lowered, question.key, question.number],
        )
        return rows_of(found)

    def answers(self, namespace: str, store: ObjectStore, of: Step, manifest: Manifest, number: int) -> list[Any]:
        """The answers to a question that are kept (storage.keepAnswers), by class."""
        if TEXTS.as_in(manifest) is None:
            return []
        with tempfile.TemporaryDirectory(prefix="selfevo-ui-") as folder:
            path = table_at(store, prefix_of(namespace, of), manifest, TEXTS, Path(folder))
            found = self._base.cursor().execute(
                f"""SELECT sample, text, answer, coalesce(vote, 1000000) AS class, tokens, truncated
                FROM read_parquet(?) WHERE number = ? ORDER BY vote NULLS LAST, sample LIMIT {_ANSWERS}""",
                [str(path), number],
            )
            return rows_of(found)

    def _read(self, prefix: str, store: ObjectStore, step: Step, manifest: Manifest) -> None:
        with tempfile.TemporaryDirectory(prefix="selfevo-ui-") as folder:
            places = {
                "questions": str(table_at(store, prefix, manifest, QUESTIONS, Path(folder))),
                "curriculum": str(table_at(store, prefix, manifest, CURRICULUM, Path(folder))),
            }
            cursor = self._base.cursor()
            cursor.execute(_TAKE, {**places, "key": step.key, "iteration": step.iteration})
