"""Rows as Parquet: nothing is lost but halves of surrogate pairs, the bytes follow from the rows, others read it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfevo_contract import reasons
from selfevo_contract.errors import InputError
from selfevo_contract.rows import (
    CURRICULUM,
    ORACLE,
    QUESTIONS,
    TEXTS,
    CheckedQuestion,
    CurriculumRow,
    InvalidCompletion,
    OracleRow,
    RowFile,
    Tally,
    TextRow,
    answers_of,
    read_rows,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "rows"
TABLES: dict[str, RowFile[Any]] = {"questions": QUESTIONS, "curriculum": CURRICULUM, "answers": answers_of("tiny")}
ASKED = CheckedQuestion(
    question="1 + 1 = \u2153?",
    proposed=None,
    answers=Tally(answers=3, unboxed=1),
    majority="2",
    share=1 / 3,
    votes=(("2", 1), ("\U0001f600", 1)),
    dropped="below_band",
)
TEXT = TextRow(
    number=0, sample=0, question="1 + 1", text="so \\boxed{2}", answer="2", vote=0, tokens=9, truncated=False
)


def content(file: RowFile[Any], rows: Any, folder: Path) -> bytes:
    return file.write(folder, rows)[file.name].read_bytes()


def back(file: RowFile[Any], rows: Any, folder: Path) -> list[Any]:
    return read_rows(content(file, rows, folder), file, "file:///store/step")


@pytest.mark.parametrize("name", TABLES)
def test_rows_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    lines = (GOLDEN / f"{name}.jsonl").read_text().replace(r"\ud83d", r"\ufffd")  # UTF-8 has no halves of pairs
    rows = read_rows(lines.encode(), TABLES[name].lines, "here")
    assert len(rows) >= 3 and back(TABLES[name], rows, tmp_path) == rows


def test_each_kind_of_value_comes_back(tmp_path: Path) -> None:
    oracle = OracleRow(question="q", label="2", right=None, votes=(), tokens_read=2**40)
    for file, rows in (
        (QUESTIONS, [ASKED, InvalidCompletion(raw="no\x00 question\u2028"), ASKED.model_copy(update={"votes": ()})]),
        (ORACLE, [oracle, oracle.model_copy(update={"right": False})]),
        (TEXTS, [TEXT, TEXT.model_copy(update={"sample": None, "vote": None, "right": True, "text": ""})]),
        (CURRICULUM, []),
    ):
        assert back(file, rows, tmp_path) == rows


def test_half_of_a_pair_is_a_replacement_character(tmp_path: Path) -> None:
    [row] = back(CURRICULUM, [CurriculumRow(question="a\udfffb", answer="\ud83d\ude00", share=1.0)], tmp_path)
    assert (row.question, row.answer) == ("a\ufffdb", "\U0001f600")


def test_fields_of_a_newer_version_stay_with_their_row(tmp_path: Path) -> None:
    line = json.dumps({**ASKED.model_dump(), "answers": {"answers": 2, "refused": 1}, "judge": {"score": [0.5, None]}})
    newer = read_rows(line.encode(), QUESTIONS.lines, "here")
    twice = back(QUESTIONS, back(QUESTIONS, [*newer, ASKED], tmp_path), tmp_path)
    assert twice == [*newer, ASKED]
    assert twice[0].answers.model_extra == {"refused": 1} and twice[0].model_extra == {"judge": {"score": [0.5, None]}}


def test_an_older_file_may_lack_a_column_that_has_a_default() -> None:
    rows = read_rows(table({"question": ["q"], "answer": ["2"], "share": [0.5]}), CURRICULUM, "here")
    assert rows == [CurriculumRow(question="q", answer="2", share=0.5)]


@pytest.mark.slow
def test_the_bytes_follow_from_the_rows_alone(tmp_path: Path) -> None:
    rows = [TEXT.model_copy(update={"number": i, "text": f"{i} " * (i % 50)}) for i in range(10_000)]
    once = content(TEXTS, rows, tmp_path)
    assert content(TEXTS, iter(rows), tmp_path) == once
    import pyarrow as pa

    threads = pa.cpu_count()
    pa.set_cpu_count(7)
    try:
        assert content(TEXTS, rows, tmp_path) == once
    finally:
        pa.set_cpu_count(threads)
    assert content(TEXTS, rows[::-1], tmp_path) != once


def test_columns_have_types(tmp_path: Path) -> None:
    from pyarrow import parquet as pq

    path = QUESTIONS.write(tmp_path, [ASKED])[QUESTIONS.name]
    schema = {field.name: str(field.type) for field in pq.read_schema(path)}
    counts = ", ".join(f"{name}: int64" for name in Tally.model_fields)
    assert schema == {
        "question": "string",
        "proposed": "string",
        "too_long": "bool",
        "answers": f"struct<{counts}>",
        "majority": "string",
        "share": "double",
        "votes": "list<element: struct<answer: string, count: int64>>",
        "truth": "string",
        "second": "string",
        "second_share": "double",
        "agrees": "bool",
        "dropped": "string",
        "raw": "string",
        "more": "string",
    }
    stored = pq.ParquetFile(path).metadata.row_group(0)
    assert {stored.column(i).compression for i in range(stored.num_columns)} == {"ZSTD"}
    types = {field.name: str(field.type) for field in pq.read_schema(TEXTS.write(tmp_path, [])[TEXTS.name])}
    assert types["number"] == "int64" and types["right"] == "bool" and types["text"] == "string"


def table(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


WHOLE = {"question": ["q", "r"], "answer": ["2", "3"], "share": [0.5, 0.5]}
NO_PARQUET = "is no Parquet that selfevo wrote"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda: b"", NO_PARQUET),
        (lambda: b'{"question": "1 + 1"}\n', NO_PARQUET),
        (lambda: table(WHOLE)[:-20], NO_PARQUET),
        (lambda: table(WHOLE).replace(b"PAR1", b"PAR2"), NO_PARQUET),
        (lambda: table({**WHOLE, "more": [None, "[1]"]}), NO_PARQUET),
        (lambda: table({**WHOLE, "more": ["{", None]}), NO_PARQUET),
        (lambda: table({"question": ["q"], "answer": ["2"]}), "row 1 has no field 'share'"),
        (
            lambda: table({**WHOLE, "answer": [2, 3]}),
            "row 1 has 2 in the field 'answer', which should be a valid string",
        ),
        (
            lambda: table({**WHOLE, "share": [0.5, 1.5]}),
            "row 2 has 1.5 in the field 'share', which should be less than or equal to 1",
        ),
        (
            lambda: table({**WHOLE, "answer": ["2", None]}),
            "row 2 has null in the field 'answer', which should be a valid string",
        ),
    ],
)
def test_a_damaged_table_is_one_sentence(data: Callable[[], bytes], says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_rows(data(), CURRICULUM, "s3://models/step")
    message = str(caught.value)
    assert message.startswith("s3://models/step: file 'curriculum.parquet'") and says in message, message
    assert message.endswith("remove MANIFEST.json there to have it made again") and "\n" not in message
    assert caught.value.reason == reasons.CORRUPT_ARTIFACT
