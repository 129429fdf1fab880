"""Oracles: what is asked, what is made of the answers, and what of an endpoint that fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.chat_standin import content, endpoint
from selfevo_contract.errors import InputError, ServiceError
from selfevo_contract.rows import CurriculumRow, InvalidCompletion, Question
from selfevo_contract.rows_between import REPLIES
from selfevo_contract.spec.grading import Grading
from selfevo_contract.spec.oracles import ArithmeticOracle, DataOracle, EndpointOracle, SortingOracle
from selfevo_trainer import oracles
from selfevo_trainer.answers.grades import ExactGrader
from selfevo_trainer.endpoints import client
from selfevo_trainer.oracles import endpoint as endpoint_oracle
from selfevo_trainer.oracles.judgement import accuracy
from selfevo_trainer.process.clock import Clock

KEPT = [CurriculumRow(question=f"{i} + {i}", answer=str(2 * i if i % 4 else 7), share=0.5) for i in range(1, 13)]
"""Twelve questions; the labels of three are wrong."""


def right(body: dict[str, Any], number: int) -> tuple[int, Any]:
    left, _, other = body["messages"][-1]["content"].removeprefix("Solve: ").split()
    return 200, content(rf"So \boxed{{{int(left) + int(other)}}}.")


class Committed:
    """In the place of Chunks: rows by their numbers, in memory."""

    def __init__(self, size: int) -> None:
        self.size, self.rows, self.sizes = size, dict[int, Any](), list[int]()

    def read(self, numbers: range) -> dict[int, Any]:
        return {number: self.rows[number] for number in numbers if number in self.rows}

    def commit(self, numbers: range, rows: list[Any]) -> None:
        self.sizes.append(len(numbers))
        self.rows |= {n: REPLIES.types[0].model_validate(row.wire()) for n, row in zip(numbers, rows, strict=True)}

    def timings(self) -> dict[str, float]:
        return {}


def judged(
    oracle: Any,
    kept: list[CurriculumRow] = KEPT,
    valid: list[Question] | None = None,
    committed: Committed | None = None,
) -> oracles.Judgement:
    """What the oracle says of ``kept``, in a phase's surroundings without a store."""
    there = committed or Committed(64)
    context: Any = SimpleNamespace(
        chunks=there,
        clock=Clock(),
        progress=lambda *_: None,
        grader=lambda _: ExactGrader(),
        config=SimpleNamespace(storage=SimpleNamespace(endpoint=None, region=None), chunk_questions=there.size),
    )
    inputs: Any = SimpleNamespace(oracle=oracle, seed=3, grading=Grading(method="exact"))
    made = valid or [Question(question=row.question, majority=row.answer, share=row.share) for row in kept]
    rows = oracles.with_truths(context, inputs, [*made, InvalidCompletion(raw="?")])
    truths = {row.question: row.truth for row in rows if isinstance(row, Question)}
    known = [row.model_copy(update={"truth": truths.get(row.question)}) for row in kept]
    return oracles.judge(context, inputs, rows, known)


def asking(url: str, **over: Any) -> EndpointOracle:
    return EndpointOracle.model_validate(
        {"kind": "endpoint", "url": url, "model": "strong", "patience": 60, "requestTimeout": 30, **over}
    )


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(client, "LONGEST_WAIT_S", 0.4)
    monkeypatch.setattr(endpoint_oracle, "Chunks", lambda context, *_: context.chunks)


def test_every_label_is_compared_with_the_answer_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEVO_ORACLE_TOKEN", "secret")
    with endpoint(right) as server:
        prompt = {"system": "Think.", "user": "Solve: {question}"}
        found = judged(asking(server.url, samples=3, prompt=prompt, temperature=0.25, maxCompletionLength=9))
    assert found.metrics == {
        "label_checked": 12,
        "label_accuracy": 0.75,
        "label_accuracy_error": 0,  # nothing is left to chance
        "oracle_undecided": 0,
        "oracle_prompt_tokens": 12 * 3 * 3,
        "oracle_completion_tokens": 12 * 3 * 5,
    }
    assert [row.right for row in found.rows] == [row.answer != "7" for row in KEPT]
    assert {row.votes for row in found.rows} == {((row.answer, 3),) for row in found.rows}
    asked = server.bodies[0]
    assert (asked["model"], asked["temperature"]) == ("strong", 0.25)
    assert asked["max_tokens"] == 9 and asked["messages"][0] == {"role": "system", "content": "Think."}
    assert len({body["seed"] for body in server.bodies}) == 36
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret"}


def test_a_sample_is_drawn_by_the_seed_and_has_an_error() -> None:
    with endpoint(right) as server:
        first, again, other = (judged(asking(server.url, samples=1, questions=6, seed=s)) for s in (0, 0, 5))
    assert [row.question for row in first.rows] == [row.question for row in again.rows]
    assert [row.question for row in first.rows] != [row.question for row in other.rows]
    assert first.metrics["label_checked"] == 6
    assert first.metrics == accuracy([row.right is True for row in first.rows], 12) | {
        name: value for name, value in first.metrics.items() if name.startswith("oracle_")
    }


def test_an_oracle_that_disagrees_with_itself_decides_nothing() -> None:
    def torn(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if body["messages"][-1]["content"] == "1 + 1":
            return 200, content(None if body["seed"] % 2 else "no box", finish="length")
        return right(body, number) if number % 2 else (200, content(r"\boxed{0}"))

    with endpoint(torn) as server:
        found = judged(asking(server.url, samples=2, maxConcurrency=1))
    assert found.metrics["oracle_undecided"] == 1 and found.metrics["label_checked"] == 0
    assert "label_accuracy" not in found.metrics
    assert {row.answer for row in found.rows} == {row.right for row in found.rows} == {None}
    assert (found.rows[0].unboxed, found.rows[0].truncated) == (2, 2)


def test_a_retry_goes_on_behind_what_was_answered() -> None:
    with endpoint(right) as server:
        whole = judged(asking(server.url, samples=2, maxConcurrency=1))
        asked = {body["seed"] for body in server.bodies}
    committed = Committed(5)
    with endpoint(lambda body, number: (401, b"") if number == 15 else right(body, number)) as server:
        with pytest.raises(InputError):
            judged(asking(server.url, samples=2, maxConcurrency=1), committed=committed)
        assert committed.sizes == [5] and len(server.bodies) == 16
    with endpoint(right) as server:
        again = judged(asking(server.url, samples=2, maxConcurrency=1), committed=committed)
        assert committed.sizes == [5, 5, 2] and len(server.bodies) == 14  # of the other seven questions
        assert {body["seed"] for body in server.bodies} < asked
    assert (again.metrics, again.rows) == (whole.metrics, whole.rows)


def test_kept_answers_to_another_question_are_not_taken() -> None:
    committed = Committed(64)
    with endpoint(right) as server:
        judged(asking(server.url, samples=1), committed=committed)
        found = judged(asking(server.url, samples=1), kept=KEPT[1:], committed=committed)
        assert len(server.bodies) == 12 + 11
    assert [row.question for row in found.rows] == [row.question for row in KEPT[1:]]


def test_no_more_requests_are_under_way_than_may_be() -> None:
    with endpoint(right) as server:
        judged(asking(server.url, samples=4, maxConcurrency=2))
    assert server.most <= 2 and len(server.bodies) == 48


@pytest.mark.parametrize(
    "bad", [(429, {"error": "slow"}), (500, b"oops"), (503, b""), (200, b"{"), (200, {"choices": []}), (200, b"[1]")]
)
def test_what_may_pass_is_asked_again(bad: tuple[int, Any]) -> None:
    with endpoint(lambda body, number: bad if number < 3 else right(body, number)) as server:
        found = judged(asking(server.url, samples=1, patience=60, maxConcurrency=1))
    assert found.metrics["label_accuracy"] == 0.75 and len(server.bodies) == 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "error", "expected"),
    [
        ((401, {"error": "who?"}), InputError, "answers 401 .*tokenSecret .on one machine: set SELFEVO_ORACLE_TOKEN"),
        ((404, {"error": "no such model"}), InputError, "answers 404 .*no such model.*knows spec.rollout.oracle.model"),
        ((302, b""), InputError, "redirects .302. elsewhere; name the address"),
        ((429, b""), ServiceError, "answers 429 .* requests; look at its log, raise spec.rollout.oracle.patience"),
        ((200, b"<html>"), ServiceError, "is no chat completion .'<html>'.*required to false"),
        ((200, content(5)), ServiceError, "whose content is no text"),  # type: ignore[arg-type]
    ],
)
def test_a_failure_is_one_sentence_and_no_rollout_needs_to_fail_for_it(
    answer: tuple[int, Any], error: type[Exception], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with endpoint(lambda body, number: answer) as server:
        with pytest.raises(error, match=expected) as raised:
            judged(asking(server.url, patience=1))
        assert server.url in str(raised.value) and "\n" not in str(raised.value)
        found = judged(asking(server.url, patience=1, required=False))
    assert found.metrics == {} and found.rows == ()
    assert "label accuracy is not known of this curriculum: spec.rollout.oracle.url" in caplog.text


def test_a_server_that_is_down_is_reported() -> None:
    with endpoint(right) as server:
        pass
    with pytest.raises(ServiceError, match=r"does not answer .*for \d s in \d+ requests"):
        judged(asking(server.url, patience=1))


def test_data_knows_some_of_the_questions(tmp_path: Path) -> None:
    file = tmp_path / "known.jsonl"
    known = [{"question": f" {i} +  {i}", "answer": 2 * i} for i in range(1, 9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in known))
    found = judged(DataOracle.model_validate({"kind": "data", "data": {"uri": f"file://{file}"}}))
    assert found.metrics["known_share"] == pytest.approx(8 / 12)
    assert found.metrics["majority_accuracy"] == found.metrics["label_accuracy"] == 0.75
    assert found.metrics["label_checked"] == 8 and found.metrics["label_accuracy_error"] > 0


def test_data_that_is_not_there_is_reported_at_its_field(tmp_path: Path) -> None:
    oracle = DataOracle.model_validate({"kind": "data", "data": {"uri": f"file://{tmp_path}/none"}})
    with pytest.raises(InputError, match=r"spec\.rollout\.oracle\.data\.uri is .*none"):
        judged(oracle)


def test_arithmetic_says_of_all_labels() -> None:
    found = judged(ArithmeticOracle(kind="arithmetic"))
    assert found.metrics == {"malformed_share": 0, "majority_accuracy": 0.75, "label_accuracy": 0.75}


@pytest.mark.parametrize(
    ("question", "truth"),
    [
        ("c A b", "A b c"),
        ("z", "z"),
        ("b b a", "a b b"),
        ("c  b", None),
        ("c ab", None),
        ("c 1", None),
        ("", None),
        ("c A b\n", None),
        ("\u00e9 a", None),
    ],
)
def test_letters_are_sorted(question: str, truth: str | None) -> None:
    from selfevo_trainer.oracles import sorting

    assert sorting.true_answer(question) == truth


def test_sorting_says_of_all_labels() -> None:
    """Sums are no lines of letters: all count as labelled wrongly."""
    found = judged(SortingOracle(kind="sorting"))
    assert found.metrics == {"malformed_share": 1, "majority_accuracy": 0, "label_accuracy": 0}


def test_the_error_is_that_of_a_sample_without_replacement() -> None:
    assert accuracy([True, False], 2)["label_accuracy_error"] == 0
    assert accuracy([True], 9) == {"label_checked": 1, "label_accuracy": 1}
    assert accuracy([], 9) == {"label_checked": 0}
    # by enumeration: the variance of the mean of 2 of {1, 1, 0, 0} is 1/12; the estimate's mean is that
    draws = [(a, b) for a in range(4) for b in range(4) if a < b]
    values = [True, True, False, False]
    means = [accuracy([values[a], values[b]], 4) for a, b in draws]
    assert sum(found["label_accuracy_error"] ** 2 for found in means) / 6 == pytest.approx(1 / 12)
