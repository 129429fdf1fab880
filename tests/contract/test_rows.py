"""Rows: what older versions wrote is read and comes out byte for byte; what is damaged is one sentence.

tests/golden/rows holds rows of the tiny run as the version before the rows had types wrote them. Of each shape that
it did not happen to have (an invalid completion with half of a surrogate pair, a metric that is NaN) one is by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.fingerprint import FINGERPRINT
from selfevo_contract.rows import (
    ANSWERED,
    CURRICULUM,
    METRICS,
    ORACLE,
    QUESTIONS,
    TEXTS,
    WRITTEN,
    CheckedQuestion,
    InvalidCompletion,
    Question,
    Row,
    RowFile,
    Tally,
    WrittenQuestion,
    answers_of,
    read_rows,
    write_rows,
)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "rows"
FILES: dict[str, RowFile[Any]] = {
    "chunk-questions": WRITTEN,
    "chunk-answers": ANSWERED,
    "questions": QUESTIONS,
    "curriculum": CURRICULUM,
    "answers": answers_of("tiny"),
    "metrics": METRICS,
    "fingerprint": FINGERPRINT,
}
QUESTION = {"question": "1 + 1", "proposed": "2", "majority": "2", "share": 0.5, "votes": [["2", 1]], "truth": "2"}
READERS = ("trainer/selfevo_trainer", "cli/selfevo", "tests/harness", "benchmarks")


def read(name: str) -> list[Any]:
    """As the versions before Parquet wrote it."""
    return read_rows((GOLDEN / f"{name}.jsonl").read_bytes(), FILES[name].lines, "file:///store/step")


@pytest.mark.parametrize("name", FILES)
def test_what_an_older_version_wrote_comes_out_byte_for_byte(name: str, tmp_path: Path) -> None:
    rows = read(name)
    assert write_rows(tmp_path / "rows.jsonl", rows).read_bytes() == (GOLDEN / f"{name}.jsonl").read_bytes()
    known = {field for row in rows if not isinstance(row, FILES["metrics"].type_of({})) for field in row.model_extra}
    assert known == set(), "each field has its place in a type"


def test_each_shape_of_a_question_is_read() -> None:
    rows = read("questions")
    assert {type(row) for row in rows} == {CheckedQuestion, InvalidCompletion}
    assert {type(row) for row in read("chunk-questions")} == {WrittenQuestion, InvalidCompletion}
    assert {type(row) for row in read("chunk-answers")} == {Question, InvalidCompletion}
    asked = [row for row in rows if isinstance(row, CheckedQuestion)]
    assert {row.too_long for row in asked} == {True, False}
    assert all((row.answers is None) == row.too_long for row in asked)
    assert None in {row.dropped for row in asked} and "too_long" in {row.dropped for row in asked}
    assert "\ud83d" in rows[-1].raw


def test_checks_do_not_lose_a_field_of_a_newer_version(tmp_path: Path) -> None:
    line = json.dumps({**QUESTION, "answers": {"answers": 2, "refused": 1}, "judge": {"score": 0.5}})
    [answered] = read_rows(line.encode(), ANSWERED, "here")
    assert isinstance(answered, Question)
    written = write_rows(tmp_path / "rows.jsonl", [answered.checked("duplicate")]).read_text()
    assert written.endswith('"truth": "2", "dropped": "duplicate", "judge": {"score": 0.5}}\n')
    assert json.loads(written)["answers"]["refused"] == 1


def test_metrics_are_numbers_only() -> None:
    [row] = read_rows(b'{"loss": 0.5, "note": "of a newer version", "kl": NaN, "step": 1, "update": 2}\n', METRICS, "")
    assert row.metrics.keys() == {"loss", "kl"} and (row.step, row.update) == (1, 2)


def test_a_tally_adds_up_and_has_shares() -> None:
    both = Tally(answers=3, unboxed=1) + Tally(answers=1, timed_out=2)
    assert both == Tally(answers=4, unboxed=1, timed_out=2)
    assert both.shares("a/") == {
        "a/unboxed": 0.25,
        "a/truncated": 0.0,
        "a/timed_out": 0.5,
        "a/crashed": 0.0,
        "a/ill_formed": 0.0,
    }
    assert set(Tally().shares().values()) == {0.0}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "1 + 1"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is [1], which is no object"),
        (json.dumps({"question": "1 + 1"}), "has no field 'share'"),
        (json.dumps({**QUESTION, "question": 7}), "has 7 in the field 'question', which should be a valid string"),
        (
            json.dumps({**QUESTION, "share": "much"}),
            "has \"much\" in the field 'share', which should be a valid number",
        ),
        (
            json.dumps({**QUESTION, "share": 1.5}),
            "has 1.5 in the field 'share', which should be less than or equal to 1",
        ),
        (json.dumps({**QUESTION, "share": float("nan")}), "has NaN in the field 'share', which should be"),
        (
            json.dumps({**QUESTION, "votes": [["2", 1], ["3", 0.5]]}),
            "has 0.5 in the field 'votes.1.1', which should be a valid integer",
        ),
        (
            json.dumps({**QUESTION, "answers": {"unboxed": -1}}),
            "has -1 in the field 'answers.unboxed', which should be greater than or equal to 0",
        ),
    ],
)
def test_a_damaged_row_is_one_sentence(line: str, says: str) -> None:
    whole = f"{json.dumps(QUESTION)}\n\n{line}\n".encode()
    with pytest.raises(InputError) as caught:
        read_rows(whole, ANSWERED, "s3://models/step")
    message = str(caught.value)
    assert message.startswith(f"s3://models/step: file 'questions.jsonl', line 3 {says}"), message
    assert message.endswith("remove MANIFEST.json there to have it made again") and "\n" not in message
    assert caught.value.reason == reasons.CORRUPT_ARTIFACT


def test_what_no_row_can_hold_is_not_written(tmp_path: Path) -> None:
    class Strange(Row):
        what: Any

    with pytest.raises(TypeError, match="which JSON has no form for"):
        write_rows(tmp_path / "rows.jsonl", [Strange(what={1})])


def test_nobody_reads_a_row_past_its_type() -> None:
    """No field of a row is asked of a dictionary, and no file of rows is spelled in a package, but in the contract."""
    common = {"answers", "greedy", "step", "update", "text", "tokens"}
    fields = {field for kind in _types() for field in kind.model_fields} - common
    field = re.compile(rf"""\w(?:\[|\.get\()["'](?:{"|".join(sorted(fields))})["']""")
    file = re.compile(r"""["'/](?:questions|curriculum|metrics|texts)\.(?:jsonl|parquet)["']""")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in READERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if field.search(line) or (file.search(line) and folder in READERS[:2])
    ]
    assert found == []


def test_the_page_has_every_field() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    fields = {field for kind in _types() for field in kind.model_fields}
    assert len(fields) > 20
    assert [field for field in sorted(fields) if f"\n| `{field}` |" not in page] == []
    for file in (*FILES.values(), TEXTS, ORACLE):
        if file not in (WRITTEN, ANSWERED):  # of chunks, beside the rollout's own
            assert f"\n## {file.name.replace('tiny', '&lt;task&gt;')}\n" in page


def _types() -> set[type[Row]]:
    def below(kind: type[Row]) -> set[type[Row]]:
        return {kind}.union(*(below(each) for each in kind.__subclasses__() if each.__module__ == Row.__module__))

    return below(Row)
