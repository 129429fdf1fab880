"""`selfevo run` over the demo's manifest with each kind of engine, the real vLLM (its CPU build) among them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from harness.cli import wait_for
from harness.inprocess import Phases
from harness.tiny import settings, write_questions
from harness.vllm import Vllm
from runs import arithmetic
from selfevo_contract.artifacts import ANSWER_CHUNKS, MANIFEST_NAME
from selfevo_contract.rows import CURRICULUM, QUESTIONS, answers_of
from selfevo_contract.run import SelfEvolutionRun

pytestmark = pytest.mark.slow

LIMIT_S = 1800
ASKED, HELD_OUT, SAMPLES = 240, 40, 4
BAND = {"min": 0.3, "max": 0.95}
BY_TRANSFORMERS = {"kind": "transformers", "batchSize": 1024}
FILES = {
    "evaluate-0": answers_of("tiny").name,
    "challenger-train-1": "model/model.safetensors",
    "solver-rollout-1": CURRICULUM.name,
    "solver-train-1": "model/model.safetensors",
    "evaluate-1": answers_of("tiny").name,
}
TWICE = ("solver-rollout-1",)
"""Steps that vLLM does in process in two runs."""


class Demo:
    """The demo's manifest with small settings, and the command run over it by ``python``."""

    def __init__(self, folder: Path, kind: str, python: str, environment: dict[str, str], chunk: int = 64) -> None:
        folder.mkdir()
        engine = BY_TRANSFORMERS if kind == "transformers" else {"kind": kind, "batchSize": None}
        over: dict[str, Any] = {
            "parallelSteps": 1,
            "challenger": {"engine": engine},
            "rollout": {
                "engine": engine,
                "questions": ASKED,
                "samples": 6,
                "shards": 1,
                "chunkQuestions": chunk,
                "band": BAND,
            },
            "evaluation": {"samples": SAMPLES, "engine": engine if kind == "vllm" else BY_TRANSFORMERS},
        }
        spec = settings(over, questions=write_questions(folder / "heldout.jsonl", HELD_OUT))
        self.manifest = folder / "run.json"
        self.manifest.write_text(json.dumps(arithmetic(spec, store=folder / "store").wire()))
        self.python, self.environment = python, {**environment, "OMP_NUM_THREADS": "1", "CI": "true"}

    def begin_from(self, other: Demo, *steps: str) -> None:
        """With what ``other`` has made in these steps."""
        for step in steps:
            (at,) = (other.manifest.parent / "store").glob(f"**/{other.phases.plan.by_name[step].key}")
            shutil.copytree(at, self.manifest.parent / at.relative_to(other.manifest.parent))

    def begin(self) -> subprocess.Popen[str]:
        script = "from selfevo.main import main; main()"
        command = [self.python, "-c", script, "run", str(self.manifest), "--workdir", "work", "--workers", "1"]
        return subprocess.Popen(
            command,
            cwd=self.manifest.parent,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self) -> None:
        self.end(self.begin(), 0)

    def end(self, process: subprocess.Popen[str], code: int) -> None:
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == code, f"{out[-4000:]}\n{err[-8000:]}"

    def run_and_stop_in_the_answers(self) -> None:
        """Ctrl-C once a chunk of the rollout's answers is there."""
        process = self.begin()
        chunks = f"store/*/solver-rollout/*/chunks/{ANSWER_CHUNKS}/*/{MANIFEST_NAME}"
        wait_for(lambda: any(self.manifest.parent.glob(chunks)) or process.poll() is not None, LIMIT_S)
        process.send_signal(signal.SIGINT)
        self.end(process, 130)

    @cached_property
    def phases(self) -> Phases:
        """The run as it was recorded: with the digests of its files."""
        recorded = self.manifest.parent / "work" / "runs" / "default" / "arithmetic" / "status.json"
        return Phases(SelfEvolutionRun.model_validate_json(recorded.read_bytes()), recorded.parent)

    def rows(self, step: str) -> bytes:
        return self.phases.read(step, FILES[step])

    def metrics(self, step: str) -> dict[str, float]:
        return dict(self.phases.committed(step).metrics)


@pytest.fixture(scope="module")
def demos(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Demo]:
    folder = tmp_path_factory.mktemp("demos")
    served = str(vllm.python), vllm.environment()
    made = {
        "transformers": Demo(folder / "transformers", "transformers", sys.executable, dict(os.environ)),
        "server": Demo(folder / "server", "server", *served),
        "first": Demo(folder / "first", "vllm", *served),
        "second": Demo(folder / "second", "vllm", *served, chunk=8),
    }

    def by_vllm_twice() -> None:
        made["first"].run()
        # A phase of each kind that the server does not repeat: each starts its engines anew, and they take their time.
        made["second"].begin_from(made["first"], *(step for step in FILES if step not in TWICE))
        made["second"].run_and_stop_in_the_answers()
        made["second"].run()

    def by_the_others() -> None:
        made["transformers"].run()
        made["server"].begin_from(made["transformers"], "evaluate-0")
        made["server"].run()

    with ThreadPoolExecutor(2) as pool:  # two cores
        for lane in [pool.submit(by_vllm_twice), pool.submit(by_the_others)]:
            lane.result()
    return made


def test_the_same_run_gives_the_same_rows_by_vllm_in_process_stopped_or_not_and_by_its_server(
    demos: dict[str, Demo],
) -> None:
    for step in TWICE:
        assert demos["first"].rows(step) == demos["second"].rows(step), step
    # A server's requests come in another company each time: that has no say, and neither has the way to vLLM.
    for step in ("challenger-train-1", "solver-rollout-1", "solver-train-1"):
        assert demos["server"].rows(step) == demos["first"].rows(step), step
    assert demos["transformers"].phases.read("solver-rollout-1", QUESTIONS.name) != demos["first"].phases.read(
        "solver-rollout-1", QUESTIONS.name
    )


def test_the_kind_of_engine_is_in_no_key(demos: dict[str, Demo]) -> None:
    keys = {tuple(step.key for step in demo.phases.plan.steps) for demo in demos.values()}
    assert len(keys) == 1


def test_curricula_and_scores_are_those_of_transformers_within_sampling_error(demos: dict[str, Demo]) -> None:
    by_transformers = demos["transformers"].metrics("solver-rollout-1")
    for name in ("first", "server"):
        ours = demos[name].metrics("solver-rollout-1")
        for count in ("valid", "kept"):
            share = (ours[count] + by_transformers[count]) / (2 * ASKED)
            error = (2 * share * (1 - share) / ASKED) ** 0.5  # of the difference of two shares
            apart = abs(ours[count] - by_transformers[count]) / ASKED
            assert apart <= 4 * error + 1e-9, (name, count, ours, by_transformers)
        assert ours["kept"] > 10, ours
    scores, theirs = demos["first"].metrics("evaluate-0"), demos["transformers"].metrics("evaluate-0")
    # The most probable token is the same in each; 160 samples have an error of about 4 points.
    assert scores["tiny/greedy"] == theirs["tiny/greedy"]
    assert abs(scores["tiny/mean"] - theirs["tiny/mean"]) < 0.2
