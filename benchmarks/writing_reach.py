"""Does verifier.gate.reach find the tasks that are harder than the judge's anchors? On examples/writing.yaml's models.

    OMP_NUM_THREADS=1 python benchmarks/writing_reach.py

The base answers 60 tasks of each length from 2 to 8 words, 4 times each, and the example's judge scores the answers.
Of the example's anchors three parts are taken: tasks of 2 and 3 words, of 2 to 4, and all (2 to 6). For each part and
quantile, with two limits of a task's mean score:
    solver     the quantile of the means of up to 64 of the anchors' tasks, which the base answers 4 times: the gate's
    anchors    the quantile of the means of the anchors' own answers, chosen and rejected: tried, and of no use
it prints how many of the 60 tasks of each length are beyond the limit, and the share of pairs of answers to one task
that the judge orders as their true quality (examples/writing/task.py) does, beyond the limit and within.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import provenance
from runs import EXAMPLES, load_script
from selfevo_contract.judging import AnchorRow
from selfevo_contract.phases import Loading
from selfevo_contract.spec.engines import TransformersEngine as Settings
from selfevo_contract.spec.prompts import Prompt
from selfevo_contract.spec.sampling import Sampling
from selfevo_trainer.engines.transformers_engine import TransformersEngine
from selfevo_trainer.judges.scalar import ScalarJudge
from selfevo_trainer.pairs.reach import asked, lowest
from selfevo_trainer.prompts import messages
from selfevo_trainer.rewards.judged import scored

WRITING = EXAMPLES / "writing"
LOADING = Loading(dtype="float32", trust_remote_code=False)
SAMPLING = Sampling.model_validate({"temperature": 1.0, "topP": 1.0, "maxCompletionLength": 30})
LENGTHS, TASKS, SAMPLES, SEED = range(2, 9), 60, 4, 5
PARTS = {"2 and 3 words": 3, "2 to 4 words": 4, "2 to 6 words": 6}
QUANTILES = (0.05, 0.1, 0.25)
task = load_script("writing_task", WRITING / "task.py")


@dataclass(frozen=True)
class Answered:
    """A task with what the judge makes of its answers."""

    words: int
    mean: float
    right: int
    pairs: int


class Models:
    """The example's base and judge."""

    def __init__(self) -> None:
        self.solver = TransformersEngine(WRITING / "base", LOADING, Settings.model_validate({"batchSize": 1024}))
        self.judge = ScalarJudge.load(WRITING / "judge", LOADING, 96, "")

    def answers(self, tasks: Sequence[str], seed: int) -> list[tuple[str, str, float]]:
        """Task, text and score, `SAMPLES` of each task one after another."""
        prompts = [messages(Prompt(system="", user="{question}"), each) for each in tasks]
        made = self.solver.generate(prompts, SAMPLING, SAMPLES, seed)
        texts = [(each, one.text) for each, group in zip(tasks, made, strict=True) for one in group]
        scores = self.judge.score([each for each, _ in texts], [text for _, text in texts])
        return [(each, text, score) for (each, text), score in zip(texts, scores, strict=True)]


def answered(rows: Iterable[tuple[str, str, float]]) -> list[Answered]:
    """By task."""
    found = []
    for each, group in itertools.groupby(rows, key=lambda row: row[0]):
        known = [(score, task.quality(each, text)) for _, text, score in group]
        pairs = [(a, b) for a, b in itertools.combinations(known, 2) if a[1] != b[1]]
        right = sum((a[0] > b[0]) == (a[1] > b[1]) for a, b in pairs)
        mean = statistics.fmean(scored(score) for score, _ in known)
        found.append(Answered(len(each.split()), mean, right, len(pairs)))
    return found


def accuracy(tasks: Sequence[Answered]) -> float | None:
    """Share of pairs in their right order.

    >>> accuracy([Answered(2, 0.5, 3, 4), Answered(3, 0.5, 0, 2)]), accuracy([])
    (0.5, None)
    """
    pairs = sum(each.pairs for each in tasks)
    return round(sum(each.right for each in tasks) / pairs, 3) if pairs else None


def divided(tasks: Sequence[Answered], limit: float) -> dict[str, Any]:
    """What ``limit`` makes of ``tasks``."""
    beyond = [each for each in tasks if each.mean < limit]
    return {
        "limit": round(limit, 3),
        "beyond": [sum(each.words == words for each in beyond) for words in LENGTHS],
        "right_beyond": accuracy(beyond),
        "right_within": accuracy([each for each in tasks if each.mean >= limit]),
    }


def measured(models: Models) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """By length, and a row for each part of the anchors, limit and quantile."""
    rng = random.Random(SEED)
    rows = models.answers(list(dict.fromkeys(task.draw(rng, n) for n in LENGTHS for _ in range(TASKS))), 1)
    tasks = answered(rows)
    by_length = {
        str(n): {
            "tasks": len(its),
            "mean": round(statistics.fmean(each.mean for each in its), 3),
            "right": accuracy(its),
        }
        for n in LENGTHS
        if (its := [each for each in tasks if each.words == n])
    }
    lines = (WRITING / "anchors.jsonl").read_text().splitlines()
    anchors = [AnchorRow.model_validate({**json.loads(line), "source": "data"}) for line in lines]
    found = []
    for part, longest in PARTS.items():
        mine = [each for each in anchors if len(each.question.split()) <= longest]
        questions = list(dict.fromkeys(asked((each.question for each in mine), 1, SEED)))
        own = [(each, score) for each, _, score in models.answers(questions, 7)]
        texts = [(each.question, text) for each in mine for text in (each.chosen, each.rejected)]
        scores = models.judge.score([each for each, _ in texts], [text for _, text in texts])
        written = [(each, score) for (each, _), score in zip(texts, scores, strict=True)]
        for by, of in (("solver", own), ("anchors", written)):
            for quantile in QUANTILES:
                limit = lowest(of, quantile)
                assert limit is not None
                found.append({"anchors": part, "by": by, "quantile": quantile, **divided(tasks, limit)})
    return by_length, found


def main() -> int:
    """Print and write it."""
    by_length, rows = measured(Models())
    result = {**provenance(), "by_length": by_length, "limits": rows}
    (Path(__file__).parent / "results" / "writing_reach.json").write_text(json.dumps(result, indent=1) + "\n")
    for each in (*by_length.items(), *rows):
        print(json.dumps(each))
    return 0


if __name__ == "__main__":
    sys.exit(main())
