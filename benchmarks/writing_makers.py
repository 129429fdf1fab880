"""Which makers of pairs are right where the judge is wrong? Read off a run of examples/writing.yaml, by true quality.

    OMP_NUM_THREADS=1 selfevo run examples/writing.yaml --storage file:///tmp/writing
    python benchmarks/writing_makers.py --store file:///tmp/writing

Of each iteration's new pairs whose answers differ in true quality (examples/writing/task.py):
    pairs      how many there are, and the share that the maker orders rightly
    errors     those of them that the judge before orders wrongly, and the share of these that the maker orders rightly:
               above a half the maker corrects the judge, below it entrenches what the judge has wrong
    used       the same of the pairs that the gate let through, which the judge was trained on
A run by itself measures that on anchors that name a maker (docs/verifier.md), of which the example has none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from machine import provenance
from runs import EXAMPLES, load_script
from selfevo_contract.artifacts import step_prefix
from selfevo_contract.judging import AFTER, LENGTH_AFTER, PAIRS, PROMOTED, PairRow
from selfevo_contract.phases import VERIFIER_TRAIN
from selfevo_contract.plan import plan_of
from selfevo_store import fetch_rows, open_store, read_manifest
from selfevo_store.run_records import known_records, read_record

task = load_script("writing_task", EXAMPLES / "writing" / "task.py")


def counted(pairs: Iterable[tuple[PairRow, float]]) -> dict[str, Any]:
    """Of pairs, each with how much better the maker's chosen answer truly is; ties of the judge are errors.

    >>> pair = PairRow(question="q", chosen="a", rejected="b", maker="swap", margin=-1.0)
    >>> counted([(pair, 0.5), (pair, 0.25), (pair, -0.5), (pair.model_copy(update={"margin": 1.0}), -0.5)])
    {'pairs': {'count': 4, 'right': 0.5}, 'errors': {'count': 3, 'right': 0.667}}
    """
    known = list(pairs)
    errors = [worth for pair, worth in known if ((pair.margin or 0.0) > 0) != (worth > 0) or not pair.margin]
    return {"pairs": _shares([worth for _, worth in known]), "errors": _shares(errors)}


def _shares(worths: list[float]) -> dict[str, Any]:
    right = sum(worth > 0 for worth in worths)
    return {"count": len(worths), "right": round(right / len(worths), 3) if worths else None}


def measured(rows: Iterable[PairRow]) -> dict[str, Any]:
    """By maker."""
    by_maker: dict[str, list[tuple[PairRow, float]]] = {}
    for row in rows:
        worth = task.quality(row.question, row.chosen) - task.quality(row.question, row.rejected)
        if worth and not row.replayed:
            by_maker.setdefault(row.maker, []).append((row, worth))
    return {
        maker: {**counted(pairs), "used": counted(each for each in pairs if each[0].dropped is None)}
        for maker, pairs in by_maker.items()
    }


def read_off(uri: str) -> dict[str, dict[str, Any]]:
    """Iteration -> what its pairs were worth, and what became of its judge."""
    store = open_store(uri)
    [((namespace, _), key)] = known_records(store, name="writing").items()
    found = {}
    run = read_record(store, key).run
    for step in plan_of(run.spec, run.status).steps:
        prefix = step_prefix(namespace, step.phase, step.key)
        manifest = read_manifest(store, prefix) if step.phase == VERIFIER_TRAIN.name else None
        if manifest is not None:
            rows = fetch_rows(store, prefix, manifest, PAIRS) if PAIRS.as_in(manifest) else []
            figures = {name: round(manifest.metrics[name], 3) for name in (PROMOTED, AFTER, LENGTH_AFTER)}
            found[str(step.iteration)] = {**figures, "makers": measured(rows)}
    return found


def main() -> int:
    """Print and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="of the run: what --storage named")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "writing_makers.json")
    arguments = parser.parse_args()
    iterations = read_off(arguments.store)
    result = {**provenance(), "iterations": iterations}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for number, row in iterations.items():
        used = {maker: its["used"]["errors"] for maker, its in row["makers"].items()}
        print(f"{number}  promoted {row[PROMOTED]:.0f}  anchors {row[AFTER]}  {json.dumps(used)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
