"""The frontier example: its data, its tokenizer, and the base model that ships with it."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from runs import load_script

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "frontier"


make_base = load_script("frontier_make_base", EXAMPLE / "make_base.py")


def test_shipped_heldout_is_what_the_script_generates(tmp_path: Path) -> None:
    again = tmp_path / "heldout.jsonl"
    assert make_base.main(["--heldout", str(again)]) == 0
    assert again.read_bytes() == (EXAMPLE / "heldout.jsonl").read_bytes()


def test_heldout_has_as_many_lines_of_each_length_and_the_oracles_answers() -> None:
    from selfevo_trainer.oracles.sorting import true_answer

    rows = [json.loads(line) for line in (EXAMPLE / "heldout.jsonl").read_text().splitlines()]
    assert all(row["answer"] == true_answer(row["question"]) for row in rows)
    assert Counter(len(row["question"].split()) for row in rows) == dict.fromkeys(range(7, 19), 25)
    assert len({row["question"] for row in rows}) == len(rows) == 300


def test_no_line_of_more_than_six_letters_is_ever_seen_sorted() -> None:
    asked = 0
    for example in islice(make_base.pretraining_text(0), 3000):
        if example.prompt == make_base.CHALLENGER_PROMPT:
            asked += 1
            line = example.completion.removeprefix("<question>").removesuffix("</question>\\boxed{?}").split()
            assert 5 <= len(line) == len(set(line)) <= 13
        else:
            assert len(example.prompt.split()) <= 6
            assert example.completion == f"\\boxed{{{make_base.in_order(example.prompt)}}}"
    assert 800 < asked < 1300


@pytest.mark.slow
def test_the_shipped_base_knows_what_it_was_taught_and_asks_for_more() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE / "base")
    assert tokenizer.decode(tokenizer("\\boxed{A b c}")["input_ids"]) == "\\boxed{ A b c }"
    model = AutoModelForCausalLM.from_pretrained(EXAMPLE / "base")
    assert model.num_parameters() < 100_000
    rng = random.Random(1)
    known = [make_base.draw(rng, letters) for letters in range(1, 7) for _ in range(8)]
    beyond = [make_base.draw(rng, 16) for _ in range(32)]
    answers = [
        (make_base.arithmetic.boxed(text) or "").strip()
        for text in make_base.arithmetic.answer_all(model, tokenizer, [*known, *beyond], sample=False)
    ]
    right = [answer == make_base.in_order(line) for line, answer in zip([*known, *beyond], answers, strict=True)]
    assert sum(right[: len(known)]) >= 0.9 * len(known) and sum(right[len(known) :]) <= 3
    asked = make_base.arithmetic.answer_all(model, tokenizer, [make_base.CHALLENGER_PROMPT] * 40, sample=True)
    assert sum(text.startswith("<question>") and text.endswith("\\boxed{ ? }") for text in asked) >= 36
