"""Small data sets in the hub's own layout: a card with its licence, and parquet files or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from selfevo.data.base import DataSet

LONG = [f"option {number}" for number in range(10)]
ROWS: dict[str, list[dict[str, Any]]] = {
    "math500": [
        {
            "problem": r"Simplify $\frac{2}{4}$.",
            "solution": "...",
            "answer": r"\frac{1}{2}",
            "unique_id": "test/a/1.json",
        },
        {"problem": "What is the interval?", "solution": "...", "answer": "(1, 2]", "unique_id": "test/a/2.json"},
    ],
    "gsm8k": [
        {"question": "Tom has 7 apples.\nHe eats 3. How many are left?", "answer": "He has <<7-3=4>>4 left.\n#### 4"},
        {"question": "How much is it?", "answer": "A lot.\n#### 1,018"},
    ],
    "amc23": [{"id": 0, "question": "How far?", "answer": "27.0", "url": "https://amc"}],
    "aime24": [{"id": 60, "problem": "Find $m+n$.", "solution": "...", "answer": "025", "year": "2024"}],
    "aime25": [{"problem": "Find the angle.", "answer": r"336^\circ", "id": "8"}],
    "minerva": [{"question": "How bright is the star?", "answer": r"4.83 \times 10^{26}"}],
    "olympiad": [
        {"question": "Solve $x^2=4$.", "final_answer": ["2", "-2"], "is_multiple_answer": True, "unit": None},
        {"question": "Find $n$.", "final_answer": ["$n=3$"], "is_multiple_answer": False, "unit": None},
    ],
    "mmlu-pro": [
        {"question": "Which?", "options": LONG, "answer": "J", "answer_index": 9, "category": "law"},
        {
            "question": "Even?",
            "options": ["3", "4", "N/A", "N/A"],
            "answer": "B",
            "answer_index": 1,
            "category": "math",
        },
    ],
    "supergpqa": [{"uuid": "a", "question": "Who?", "options": ["I", "You"], "answer": "You", "answer_letter": "B"}],
    "bbeh": [{"task": "zebra puzzles", "input": "Who owns the zebra?", "target": "the Norwegian", "mini": 1}],
}
"""Name of a data set -> rows in its columns, and in some that nobody reads."""


def write_data_set(
    folder: Path, entry: DataSet, rows: Sequence[dict[str, Any]], *, licence: str | None = "mit", lines: bool = False
) -> Path:
    """A repository with the entry's configuration and split, in parquet, or as JSON ``lines``."""
    name = f"{entry.config or 'data'}/{entry.split}{'.jsonl' if lines else '-00000-of-00001.parquet'}"
    file = folder / name
    file.parent.mkdir(parents=True)
    if lines:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    card: dict[str, Any] = {} if licence is None else {"license": licence}
    card["configs"] = [{"config_name": entry.config or "default", "data_files": [{"split": entry.split, "path": name}]}]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# A data set\n")
    return folder
