"""How far a judge's scores by a vLLM server are from those by transformers, and what a server's mistakes would make.

    OMP_NUM_THREADS=1 PYTHONPATH=contract:trainer $(.venv/bin/python -m harness.vllm) benchmarks/judge_server.py

`python -m harness.vllm` (with tests/ on the path) says where the Python of vLLM's CPU build is. The judges: that of
examples/writing.yaml, in each dtype, and two of other kinds with random weights, whose tokenizer has no token for
padding and so is padded with the one that ends an answer. What they are asked about are the example's anchors.

Writes benchmarks/results/judge_server.json.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, GPT2Config, LlamaConfig

from machine import provenance
from selfevo_contract.judging import AnchorRow
from selfevo_contract.phases import Loading, StepModelRef
from selfevo_contract.spec.judge_server import JudgeServer
from selfevo_trainer.distributed.layout import ALONE
from selfevo_trainer.inputs.judge_files import JudgeFiles
from selfevo_trainer.judges.held import COUNT, apart
from selfevo_trainer.judges.scalar import ScalarJudge, scores_of
from selfevo_trainer.judges.served import ServedJudge
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.process.signals import StopRequest

WRITING = Path(__file__).resolve().parents[1] / "examples" / "writing"
RESULT = Path(__file__).parent / "results" / "judge_server.json"
LONGEST = 96
SETTINGS = JudgeServer.model_validate({"gpuMemoryUtilization": 0.3})
"""On a CPU it is a share of the machine's memory, which others want, too."""
ANCHORS = [
    AnchorRow.model_validate({**json.loads(line), "source": "data"})
    for line in (WRITING / "anchors.jsonl").read_text().splitlines()
]
TASKS = [row.question for row in ANCHORS] * 2
ANSWERS = [*(row.chosen for row in ANCHORS), *(row.rejected for row in ANCHORS)]
SMALL: Mapping[str, Any] = {"num_labels": 1, "initializer_range": 0.3, "eos_token_id": 1, "pad_token_id": 1}


def loading(dtype: str) -> Loading:
    return Loading.model_validate({"dtype": dtype, "trustRemoteCode": False})


def random_judges(folder: Path) -> dict[str, Path]:
    """Of two kinds, the example's size."""
    tokenizer = load_tokenizer(WRITING / "judge", loading("float32"))
    tokenizer.chat_template, tokenizer.pad_token = None, None
    torch.manual_seed(0)
    tokens, layers, heads, width = len(tokenizer), 2, 2, 64
    llama = LlamaConfig(
        **SMALL,
        vocab_size=tokens,
        max_position_embeddings=512,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_size=width,
        intermediate_size=2 * width,
    )
    gpt2 = GPT2Config(**SMALL, vocab_size=tokens, n_positions=512, n_layer=layers, n_head=heads, n_embd=width)
    for name, config in (("llama", llama), ("gpt2", gpt2)):
        classifiers: Any = AutoModelForSequenceClassification
        model = classifiers.from_config(config)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in ("llama", "gpt2")}


def margins(scores: Sequence[float]) -> list[float]:
    half = len(scores) // 2
    return [a - b for a, b in zip(scores[:half], scores[half:], strict=True)]


def compared(path: Path, dtype: str) -> dict[str, float]:
    """Both on all anchors, and what margins a server would give that makes a mistake."""
    judge = ScalarJudge.load(path, loading(dtype), LONGEST, "")
    known = judge.score(TASKS, ANSWERS)
    config = SimpleNamespace(frozen_server=None, gpus_of_servers=lambda *, before: 0)
    context: Any = SimpleNamespace(config=config, rank=ALONE, stop=StopRequest())
    files = JudgeFiles(path, "0" * 64, StepModelRef(phase="verifier-train", key="0" * 64))
    with closing(ServedJudge.open(context, SETTINGS, files, loading(dtype), LONGEST)) as server:
        found = server.score(TASKS, ANSWERS)
    rows = [judge.encode(task, answer) for task, answer in zip(TASKS, ANSWERS, strict=True)]
    judge.model.config.pad_token_id = None
    last = [scores_of(judge.model, [row], 0)[0] for row in rows]
    before = [scores_of(judge.model, [row[:-1]], 0)[0] for row in rows]
    difference, limit = apart(margins(found), margins(known), dtype)
    mistakes = {
        "with_an_activation": torch.sigmoid(torch.tensor(found)).tolist(),
        "of_the_last_token": last,
        "of_the_token_before": before,
    }
    return {
        "answers": len(known),
        "largest_difference": max(abs(a - b) for a, b in zip(found, known, strict=True)),
        "margins_differ_by": difference,
        f"margins_of_{COUNT}_differ_by": apart(margins(found)[:COUNT], margins(known)[:COUNT], dtype)[0],
        "limit": limit,
        **{name: apart(margins(scores), margins(known), dtype)[0] for name, scores in mistakes.items()},
    }


def main() -> None:
    """Measure, print, write."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        judges = {"writing": WRITING / "judge", **random_judges(Path(folder))}
        for name, path in judges.items():
            for dtype in ("float32", "float16", "bfloat16") if name == "writing" else ("float32",):
                found[f"{name}, {dtype}"] = {key: float(f"{of:.3g}") for key, of in compared(path, dtype).items()}
                print(name, dtype, json.dumps(found[f"{name}, {dtype}"]), flush=True)
    RESULT.write_text(json.dumps({**provenance(), "judges": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
