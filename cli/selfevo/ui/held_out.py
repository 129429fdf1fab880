"""Held-out questions over iterations, and of fine-tuned models: a table that DuckDB filters and searches.

An evaluation is read once, by its step's key, from files whose digests the store's reader checks. It is the same
evaluation in every run that has the step.
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
from selfevo.ui.base import connected, readable, rows_of, table_at
from selfevo.ui.filters import HELD_OUT_SORTS, PAGE, HeldOutFilter, held_out_conditions
from selfevo.ui.models import TUNED, held_against, place_of
from selfevo_contract.artifacts import Manifest
from selfevo_contract.phases import HeldOutInputs
from selfevo_contract.plan import Step
from selfevo_contract.rows import answers_of, texts_of
from selfevo_store import ObjectStore

Evaluated = Sequence[tuple[Step, Manifest]]
_CUT = 600
"""Characters of a question in the table."""
_ANSWERS = 200
"""Answers of one question that are read in full."""
_RIGHT = {"greedy": "greedy_right", "maj": "majority_right"}

_TABLE = """CREATE TABLE held (key VARCHAR, task VARCHAR, task_order INTEGER, number BIGINT,
    question VARCHAR, answer VARCHAR, lowered VARCHAR, samples INTEGER, samples_right BIGINT, greedy VARCHAR,
    greedy_right BOOLEAN, majority VARCHAR, majority_right BOOLEAN, tokens DOUBLE,
    votes STRUCT(answer VARCHAR, count BIGINT)[])"""
_TAKE = """INSERT INTO held SELECT $key, $task, $place, file_row_number, question, answer, lower(question),
    $samples, samples_right, greedy, greedy_right, majority, majority_right, mean_tokens, votes
    FROM read_parquet($answers, file_row_number = true)"""
_EACH = """WITH of AS (SELECT unnest($keys) AS key, unnest($models) AS model),
    marks AS (SELECT *, {right} AS ok, model >= $tuned AS fine_tuned, lag({right}) OVER w AS was
        FROM held JOIN of USING (key) WINDOW w AS (PARTITION BY task, number ORDER BY model)),
    each AS (SELECT task, number, any_value(task_order) AS task_order, any_value(question) AS question,
        any_value(answer) AS answer, any_value(lowered) AS lowered,
        coalesce(count(*) FILTER (ok <> was AND NOT fine_tuned), 0) AS flips,
        avg(samples_right / samples) FILTER (NOT fine_tuned) AS share,
        bool_or(ok) FILTER (model = $since) AS before, bool_or(ok) FILTER (model = $until) AS after,
        max(samples_right / samples) FILTER (model = $until)
            - max(samples_right / samples) FILTER (model = $since) AS moved,
        map(list(model), list({{'right': ok, 'samples_right': samples_right, 'samples': samples}})) AS marks
        FROM marks GROUP BY task, number)"""
"""A row a question: of each model, and of two of them in particular. What is counted over time is of iterations."""


@dataclass(frozen=True)
class HeldOutFound:
    """One page of held-out questions."""

    total: int
    rows: list[SimpleNamespace]

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE))


class HeldOut:
    """Several threads may ask at once; one at a time takes in an evaluation."""

    def __init__(self) -> None:
        self._base = connected(_TABLE)
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def take(self, namespace: str, store: ObjectStore, evaluations: Evaluated) -> None:
        """Read those that are not there yet.

        Raises:
            SelfevoError: the store failed, or what it has is damaged.
        """
        with self._lock:
            for step, manifest in evaluations:
                if step.key not in self._taken:
                    self._read(prefix_of(namespace, step), store, step, manifest)
                    self._taken.add(step.key)

    def find(self, evaluations: Evaluated, of: HeldOutFilter) -> HeldOutFound:
        """A page of the questions of ``evaluations``; ``of`` says from which model to which."""
        where, values = held_out_conditions(of)
        given = {**_of(evaluations), "since": of.since, "until": of.until, **values}
        each = _EACH.format(right=_RIGHT[of.by])
        order = ", ".join(
            f"{name}{' DESC' if of.down else ''} NULLS LAST" for name in HELD_OUT_SORTS[of.sort].split(", ")
        )
        cursor = self._base.cursor()
        rows = rows_of(
            cursor.execute(
                f"""{each} SELECT task, number, left(question, {_CUT}) AS text, left(answer, {_CUT}) AS answer, flips,
                    share, moved, before, after, marks, count(*) OVER () AS total FROM each WHERE {where}
                ORDER BY {order}, task_order, number LIMIT {PAGE} OFFSET {PAGE * (of.page - 1)}""",
                given,
            )
        )
        if rows or of.page == 1:
            return HeldOutFound(rows[0].total if rows else 0, rows)
        [found] = rows_of(cursor.execute(f"{each} SELECT count(*) AS total FROM each WHERE {where}", given))
        return HeldOutFound(found.total, [])

    def flips(self, evaluations: Evaluated, by: str, task: str = "") -> list[SimpleNamespace]:
        """Of each model against the one that it is compared with: how many questions changed, and both ways."""
        given = _of(evaluations)
        pairs = held_against(given["models"])
        given |= {"first": [since for since, _ in pairs], "second": [until for _, until in pairs]}
        found = self._base.cursor().execute(
            f"""WITH of AS (SELECT unnest($keys) AS key, unnest($models) AS model),
            pairs AS (SELECT unnest($first) AS since, unnest($second) AS until, generate_subscripts($first, 1) AS n),
            marks AS (SELECT model, task, number, {_RIGHT[by]} AS ok FROM held JOIN of USING (key)
                WHERE {_RIGHT[by]} IS NOT NULL AND ($task = '' OR task = $task))
            SELECT since, until, count(*) AS asked, count(*) FILTER (a.ok AND NOT b.ok) AS lost,
                count(*) FILTER (b.ok AND NOT a.ok) AS gained
            FROM pairs JOIN marks a ON a.model = since JOIN marks b ON b.model = until
                AND b.task = a.task AND b.number = a.number
            GROUP BY since, until, n ORDER BY n""",
            {name: value for name, value in given.items() if name != "tuned"} | {"task": task},
        )
        return rows_of(found)

    def one(self, evaluations: Evaluated, task: str, number: int) -> list[SimpleNamespace]:
        """One question as each model answered it, with all that is recorded; votes with the largest class first."""
        given = _of(evaluations)
        rows = rows_of(
            self._base.cursor().execute(
                """WITH of AS (SELECT unnest($keys) AS key, unnest($models) AS model)
                SELECT * FROM held JOIN of USING (key) WHERE task = $task AND number = $number ORDER BY model""",
                {"keys": given["keys"], "models": given["models"], "task": task, "number": number},
            )
        )
        for row in rows:
            row.votes = sorted(row.votes or [], key=lambda vote: -vote["count"])
        return rows

    def answers(
        self, namespace: str, store: ObjectStore, of: Step, manifest: Manifest, task: str, number: int
    ) -> list[SimpleNamespace]:
        """The sampled answers to a question that are kept, in their order."""
        file = texts_of(task)
        if file.as_in(manifest) is None:
            return []
        prefix = prefix_of(namespace, of)
        with tempfile.TemporaryDirectory(prefix="selfevo-ui-") as folder, readable(store.uri_of(prefix)):
            path = table_at(store, prefix, manifest, file, Path(folder))
            found = self._base.cursor().execute(
                f"""SELECT sample, text, answer, "right", tokens, truncated FROM read_parquet(?)
                WHERE number = ? AND sample IS NOT NULL ORDER BY sample LIMIT {_ANSWERS}""",
                [str(path), number],
            )
            return rows_of(found)

    def _read(self, prefix: str, store: ObjectStore, step: Step, manifest: Manifest) -> None:
        assert isinstance(step.inputs, HeldOutInputs)
        cursor = self._base.cursor()
        with tempfile.TemporaryDirectory(prefix="selfevo-ui-") as folder, readable(store.uri_of(prefix)):
            tables = [
                (place, task, table_at(store, prefix, manifest, answers_of(task.name), Path(folder)))
                for place, task in enumerate(step.inputs.tasks)
                if answers_of(task.name).as_in(manifest) is not None
            ]
            for place, task, path in tables:
                given = {"key": step.key, "task": task.name, "place": place, "answers": str(path)}
                cursor.execute(_TAKE, {**given, "samples": step.inputs.samples_of(task)})


def _of(evaluations: Evaluated) -> dict[str, Any]:
    return {
        "keys": [step.key for step, _ in evaluations],
        "models": [place_of(step) for step, _ in evaluations],
        "tuned": TUNED,
    }
