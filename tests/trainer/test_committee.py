"""Two Solvers label, or nobody does (rollout.labels: committee)."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from runs import arithmetic
from selfevo_contract.artifacts import ANSWER_CHUNKS, COMMITTEE_CHUNKS, chunk_prefix, chunks_prefix
from selfevo_contract.rows import CURRICULUM, QUESTIONS
from selfevo_contract.run import SelfEvolutionRun
from selfevo_trainer.answers.grades import ExactGrader
from selfevo_trainer.answers.voting import expected_accuracy

STEP = "solver-rollout-1"
STILL = {"grpo": {"maxSteps": 0}}


@pytest.mark.slow
def test_what_two_votes_differ_on_labels_nothing(tmp_path: Path) -> None:
    def run(labels: str) -> SelfEvolutionRun:
        over = {"challenger": STILL, "solver": STILL, "rollout": {"shards": 1, "labels": labels, "chunkQuestions": 16}}
        spec = settings(over, questions=write_questions(tmp_path / "heldout.jsonl"))
        return arithmetic(spec, store=tmp_path / "store")

    alone, both = (Phases(run(labels), tmp_path) for labels in ("majority", "committee"))
    assert (alone(STEP).code, both(STEP).code) == (0, 0)
    before, after = alone.rows(STEP, QUESTIONS), both.rows(STEP, QUESTIONS)

    # The second vote moves nothing of the first.
    own = ("second", "second_share", "agrees", "dropped")
    assert [{k: v for k, v in row.items() if k not in own} for row in after] == [
        {k: v for k, v in row.items() if k not in own} for row in before
    ]
    dropped = 0
    for first, row in zip(before, after, strict=True):
        if row["question"] is None:
            continue
        second = row.get("second")
        pair = (row["majority"], second)
        equal = None not in pair and ExactGrader().equal_many([pair]) == [True]
        assert row["agrees"] is equal
        assert row["dropped"] == (first["dropped"] or (None if equal else "disagreed"))
        dropped += row["dropped"] == "disagreed"
    metrics = both.committed(STEP).metrics
    assert metrics["dropped_disagreed"] == dropped > 0 and 0 < metrics["agreed_share"] < 1
    assert metrics["kept"] == alone.committed(STEP).metrics["kept"] - dropped > 0
    band = run("majority").spec.rollout.band
    for phases in (alone, both):  # what the kept questions will earn, by each answer against the others'
        by_band = (None, "below_band", "above_band")
        rows = [row for row in phases.rows(STEP, QUESTIONS) if row["question"] and row["dropped"] in by_band]
        votes = [[size for _, size in row["votes"]] for row in rows if row.get("agrees") is not False]
        expected = expected_accuracy(votes, 4, lambda share: band.side(share) == "in")
        assert expected is not None
        assert phases.committed(STEP).metrics["expected_accuracy"] == pytest.approx(expected) and 0 < expected < 1
    kept = {row["question"]: row["answer"] for row in alone.rows(STEP, CURRICULUM)}
    assert all(kept[row["question"]] == row["answer"] for row in both.rows(STEP, CURRICULUM))
    assert "dropped_disagreed" not in alone.committed(STEP).metrics

    # What a killed attempt had voted on is not voted on again, and comes to the same.
    whole = both.rows(STEP, QUESTIONS)
    prefix = both.prefix(STEP)
    place = Path(both.run.spec.storage.uri.removeprefix("file://")) / prefix
    (place / "MANIFEST.json").unlink()
    both.store.delete_prefix(chunks_prefix(prefix, ANSWER_CHUNKS))
    both.store.delete_prefix(chunk_prefix(prefix, COMMITTEE_CHUNKS, range(16, 32)))
    ended = both(STEP)
    asked = [report.total for report in ended.progress if report.doing == "asking the committee"]
    assert ended.code == 0 and asked[0] == 16 * 4 and both.rows(STEP, QUESTIONS) == whole
