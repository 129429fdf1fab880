"""The writing example: its task and true quality, its data, its tokenizer, and the models that ship with it."""

from __future__ import annotations

import doctest
import json
import math
import random
import statistics
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import writing as benchmark
import writing_makers
from runs import load_script
from selfevo_contract.spec.rewards import JUDGED

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "writing"


make_base = load_script("writing_make_base", EXAMPLE / "make_base.py")
task = make_base.task

WORTH = [
    (r"\boxed{ fox but bell and lamp but owl }", 1.0),
    (r"\boxed{ fox and bell and lamp but owl }", 0.3 + 0.35 + 0.35 * 2 / 3),  # a wrong connector
    (r"\boxed{ bell but fox but lamp but owl }", 0.3 + 0.35 * 2 / 3 + 0.35),  # two words swapped
    (r"\boxed{ fox but bell and lamp }", 3 / 4 * (0.3 + 0.35 * 2 / 3 + 0.35)),  # a word left out
    (r"\boxed{ fox but bell and lamp but owl and bee }", 4 / 5),  # a word added
    (r"\boxed{ fox but bell and lamp but owl but bell and lamp }", 4 / 6),  # over-long
    (r"\boxed{ fox }", 1 / 4 * (0.3 + 0.35)),  # short
    (r"\boxed{ fox but bell and lamp but owl", 1 / 2),  # no end
    (
        r"\boxed{ fox but bell and lamp but owl } \boxed{ fox but bell and lamp but owl }",
        4 / 8 * (0.65 + 0.35 * 6 / 7) / 2,
    ),
    (r"\boxed{ and fox but bell and lamp but owl }", 0.3 + 0.35 + 0.35 * 3 / 4),  # a connector that joins nothing
    (r"\boxed{ cat and crow }", 0.0),  # about another task
    (r"\boxed{ and but and }", 0.0),
    ("", 0.0),
]


@pytest.mark.parametrize(("text", "worth"), WORTH)
def test_what_a_text_is_worth(text: str, worth: float) -> None:
    assert task.quality("fox bell lamp owl", text) == pytest.approx(worth, abs=1e-6)


@pytest.mark.parametrize("asked", ["", "   ", "fox fox fox", "what is this ?", "fox"])
def test_a_hostile_task_has_a_quality_too(asked: str) -> None:
    for text in ("", r"\boxed{ fox }", asked, r"\boxed{ } }"):
        assert 0.0 <= task.quality(asked, text) <= 1.0


def test_only_the_perfect_text_is_worth_one() -> None:
    rng = random.Random(0)
    for words in task.LENGTHS:
        for _ in range(50):
            asked = task.draw(rng, words)
            perfect, text = task.in_box(task.joined(asked.split())), task.written(rng, asked)
            assert task.quality(asked, perfect) == 1.0
            assert (task.quality(asked, text) == 1.0) == (text == perfect)


def test_longer_tasks_are_done_worse_and_parts_better_than_the_whole() -> None:
    rng = random.Random(0)

    def mean(words: int, composed: bool) -> float:
        found = []
        for _ in range(80):
            asked = task.draw(rng, words)
            drafts = [task.written(rng, " ".join(part)) for part in task.parts_of(asked.split())]
            text = task.in_box(make_base.composed(drafts)) if composed else task.written(rng, asked)
            found.append(task.quality(asked, text))
        return statistics.fmean(found)

    at_once = [mean(words, False) for words in task.LENGTHS]
    assert at_once == sorted(at_once, reverse=True) and at_once[0] > 0.7 and at_once[-1] < 0.6
    assert mean(6, True) > at_once[-1] + 0.2


def test_the_shipped_data_is_what_the_script_generates(tmp_path: Path) -> None:
    assert make_base.main(["--data", str(tmp_path)]) == 0
    for name in ("heldout.jsonl", "anchors.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes()


def test_anchors_are_ordered_by_quality_and_apart_from_the_held_out_tasks() -> None:
    held = [json.loads(line) for line in (EXAMPLE / "heldout.jsonl").read_text().splitlines()]
    anchors = [json.loads(line) for line in (EXAMPLE / "anchors.jsonl").read_text().splitlines()]
    assert not {row["question"] for row in anchors} & {row["question"] for row in held}
    assert all(task.quality(row["question"], task.in_box(row["answer"])) == 1.0 for row in held)
    assert Counter(len(row["question"].split()) for row in held).keys() == set(task.LENGTHS)
    assert len(anchors) > 250
    for row in anchors:
        better, worse = (task.quality(row["question"], row[side]) for side in ("chosen", "rejected"))
        assert better >= worse + make_base.LEAST_DIFFERENCE - 1e-6


def test_neither_model_is_taught_a_held_out_task_and_the_judge_no_long_one_and_no_anchor() -> None:
    held = set(make_base.make_heldout())
    texts = list(islice(make_base.pretraining_text(0), 1000))
    assert not held & {example.prompt for example in texts}
    assert not [
        example
        for example in texts
        if example.completion.split()[1:-1] and " ".join(example.completion.split()[1:-1]) in held
    ]
    anchors = {row["question"] for row in make_base.make_anchors()}
    pairs = list(islice(make_base.judge_pairs(0), 200))
    assert not {asked for asked, _, _ in pairs} & (held | anchors)
    assert {len(asked.split()) for asked, _, _ in pairs} == set(make_base.JUDGE_LENGTHS)
    wrong = sum(task.quality(asked, first) < task.quality(asked, second) for asked, first, second in pairs)
    assert 8 < wrong < 40


def test_the_benchmark_reads_alignment_and_pays_the_truth_by_quality() -> None:
    for module in (task, make_base, benchmark, writing_makers):
        outcome = doctest.testmod(module)
        assert outcome.failed == 0 and outcome.attempted > 0
    texts = benchmark.bank()
    assert texts == benchmark.bank() and len(texts) == benchmark.BANK_TASKS * benchmark.BANK_TEXTS
    judge = benchmark.TrueJudge()
    assert benchmark.aligned(judge, texts) == 1.0
    worth = [benchmark.task.quality(*each) for each in texts]
    scores = judge.score(*zip(*texts, strict=True))
    assert [1 / (1 + math.exp(-score)) for score in scores] == pytest.approx(worth, abs=2e-4)
    assert benchmark.alignment(benchmark.by_task(texts, [-each for each in worth])) == -1.0
    assert benchmark.alignment(benchmark.by_task(texts, [0.5] * len(texts))) is None  # says nothing of anything


@pytest.mark.slow
def test_in_the_ceilings_place_the_true_quality_pays_every_role() -> None:
    from selfevo_trainer import solver_rewards
    from selfevo_trainer.judges import scoring

    inputs: Any = SimpleNamespace(
        judge="a step", rubric=None, loading=None, judge_length=96, reward=SimpleNamespace(mode=JUDGED)
    )
    asked, text, context = "fox bell lamp owl", r"\boxed{ fox but bell and lamp }", cast(Any, None)
    with benchmark.paid_by_the_truth():
        paid = scoring.open_scorer(context, inputs, JUDGED).rewards([asked, asked], [text, ""])
        with solver_rewards.open_reward(context, inputs) as reward:
            assert isinstance(reward.judge, benchmark.TrueJudge)  # type: ignore[attr-defined]
    assert paid == pytest.approx([task.quality(asked, text), task.quality(asked, "")], abs=1e-3)


@pytest.mark.slow
def test_a_word_is_a_token_in_every_role_and_parts_come_out_as_lines() -> None:
    from selfevo_trainer.pairs.decomposition import parts_of

    tokenizer, rng = make_base.build_tokenizer(), random.Random(0)
    examples = {kind: make_base.example(rng, kind, "fox bell lamp owl cat") for kind in make_base.SHARES}
    for example in examples.values():
        text = tokenizer.decode(tokenizer(example.completion)["input_ids"])
        assert text.split() == example.completion.split()
        assert len(tokenizer(example.prompt)["input_ids"]) < 60
    split = tokenizer.decode(tokenizer(examples["split"].completion)["input_ids"])
    assert parts_of(split) == ["fox bell", "lamp owl cat"]


@pytest.mark.slow
def test_the_shipped_base_is_careless_and_the_shipped_judge_knows_short_tasks_better_than_long_ones() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from selfevo_contract.phases import Loading
    from selfevo_trainer.judges.scalar import ScalarJudge

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "base")
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE / "base")
    assert model.num_parameters() < 110_000
    worth = make_base.measure(model, tokenizer)
    assert worth["2"] > 0.6 and worth["6"] < 0.5
    asked = make_base.arithmetic.answer_all(model, tokenizer, [make_base.CHALLENGER_PROMPT] * 40, sample=True)
    assert sum(text.startswith("<question> ") and text.endswith(" </question>") for text in asked) >= 36
    judge = ScalarJudge.load(EXAMPLE / "judge", Loading(dtype="float32", trust_remote_code=False), 96, "")
    rows = make_base.make_anchors()
    tasks = [row["question"] for row in rows]
    better, worse = (judge.score(tasks, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    right = {
        short: statistics.fmean(
            a > b
            for task_, a, b in zip(tasks, better, worse, strict=True)
            if (len(task_.split()) in make_base.JUDGE_LENGTHS) == short
        )
        for short in (True, False)
    }
    assert right[True] > 0.75 and right[True] > right[False] > 0.5
