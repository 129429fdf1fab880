"""What does a third role do to a task that nothing checks? examples/writing.yaml beside its controls, over seeds.

    python benchmarks/writing.py --seeds 0 1 2 --iterations 8

Arms, alike in everything but the settings named in `ARMS`:
    slow       the example: a judge that is trained a little in each iteration
    frozen     the first judge stays
    fast       the same pairs, five times the steps at five times the learning rate
    no-gate    the slow judge without the gate on lengths and parts
    reach      the slow judge, and no pairs on tasks beyond what the anchors reach (verifier.gate.reach)
    truth      the true quality in the judge's place: the ceiling that a better judge could reach

By iteration, none of it seen by any training:
    quality    true quality (examples/writing/task.py) of the sampled answers to the held-out tasks, their mean; from 0
    anchors    alignment of the judge that is left: its rank correlation with the true quality over six careless texts
               on each of 60 tasks, the mean over the tasks; from the first judge on
    policy     the same over the sampled answers of that iteration's Solver to each held-out task
    tokens     mean length of those answers

Steps with equal inputs are shared by the arms of a seed, as in any store (truth has one of its own). CPU seconds are
those of the steps that an arm did not find done. Every run is written at once, and a call goes on with what is missing
of those of the same commit and settings.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from learning import run_arm, series
from machine import command, provenance
from runs import EXAMPLES, arms_parser, earlier, example, load_heavy_modules, load_script, merged
from selfevo_contract.artifacts import Manifest, step_prefix
from selfevo_contract.digests import file_digest, model_digest
from selfevo_contract.judging import JUDGE_FILE, Verdict
from selfevo_contract.phases import EVALUATE, VERIFIER_TRAIN, Loading
from selfevo_contract.plan import plan
from selfevo_contract.rows import texts_of
from selfevo_store import ObjectStore, fetch, fetch_rows, open_store, read_file, read_manifest

if TYPE_CHECKING:
    from selfevo_trainer.judges.scalar import ScalarJudge

WRITING = EXAMPLES / "writing"
ARMS: dict[str, dict[str, Any]] = {
    "slow": {},
    "frozen": {"verifier": {"maxSteps": 0}},
    "fast": {"verifier": {"maxSteps": 40, "learningRate": 1e-3}},
    "no-gate": {"verifier": {"gate": {"lengthRatio": 1000.0, "parts": False}}},
    "reach": {"verifier": {"gate": {"reach": 0.1}}},
    "truth": {"verifier": {"maxSteps": 0}},
}
TASK = "writing"
BANK_SEED, BANK_TASKS, BANK_TEXTS = 20_261_132, 60, 6


task = load_script("writing_task", WRITING / "task.py")


class TrueJudge:
    """The true quality in a judge's place: sigma of its score is the quality."""

    digest = "0" * 64

    def score(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float]:
        """See `selfevo_trainer.judges.Judge`."""
        worth = (min(max(task.quality(*each), 1e-4), 1 - 1e-4) for each in zip(tasks, answers, strict=True))
        return [math.log(each / (1 - each)) for each in worth]

    def close(self) -> None:
        """Nothing is held."""


def ranks(values: Sequence[float]) -> list[float]:
    """Equal ones share the mean of their places.

    >>> ranks([0.3, 0.1, 0.3])
    [1.5, 0.0, 1.5]
    """
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [statistics.fmean(places[value]) for value in values]


def alignment(groups: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """Spearman's rank correlation of (score, quality) in each group, the mean over those in which neither is constant.

    >>> alignment([[(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)], [(1.0, 0.2), (2.0, 0.1)], [(1.0, 0.5), (2.0, 0.5)]])
    0.0
    """
    found = []
    for group in groups:
        scores, worth = ranks([score for score, _ in group]), ranks([quality for _, quality in group])
        if len(set(scores)) > 1 and len(set(worth)) > 1:
            found.append(statistics.correlation(scores, worth))
    return round(statistics.fmean(found), 4) if found else None


Texts = Sequence[tuple[str, str]]
"""Task and text."""


def bank() -> Texts:
    """Careless texts on tasks of all lengths, the same on every call."""
    rng = random.Random(BANK_SEED)
    tasks = [task.draw(rng, rng.choice(task.LENGTHS)) for _ in range(BANK_TASKS)]
    return [(asked, task.written(rng, asked)) for asked in tasks for _ in range(BANK_TEXTS)]


def by_task(texts: Texts, scores: Sequence[float]) -> list[list[tuple[float, float]]]:
    """(score, quality) of the texts on each task."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for (asked, text), score in zip(texts, scores, strict=True):
        groups.setdefault(asked, []).append((score, task.quality(asked, text)))
    return list(groups.values())


def settings(over: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """``over`` with the example's files named absolutely."""
    judge, anchors = WRITING / "judge", WRITING / "anchors.jsonl"
    files = {
        "model": {"uri": f"file://{judge}", "digest": model_digest(judge)},
        "anchors": {"data": {"uri": f"file://{anchors}", "digest": file_digest(anchors)}},
    }
    found: dict[str, Any] = merged({"verifier": files}, merged(over, {"seed": seed}))
    return found


def read_out(over: Mapping[str, Any], folder: Path, truth: bool) -> dict[str, dict[str, Any]]:
    """Iteration -> what the docstring above names, as far as the run came."""
    run = example(TASK, over, store=folder / "store")
    store, namespace = open_store(run.spec.storage.uri), run.metadata.namespace
    found: dict[str, dict[str, Any]] = {}
    judges: dict[int, Any] = {}
    steps = sorted(plan(run.spec).steps, key=lambda step: step.phase != VERIFIER_TRAIN.name)  # judges first
    for step in steps:
        prefix = step_prefix(namespace, step.phase, step.key)
        manifest = read_manifest(store, prefix)
        if manifest is None:
            continue
        row = found.setdefault(str(step.iteration), {})
        if step.phase == VERIFIER_TRAIN.name:
            judges[step.iteration] = TrueJudge() if truth else judge_of(store, namespace, prefix, manifest)
            row["anchors"] = aligned(judges[step.iteration], bank())
        if step.phase == EVALUATE.name:
            rows = [each for each in fetch_rows(store, prefix, manifest, texts_of(TASK)) if each.sample is not None]
            texts = [(each.question, each.text) for each in rows]
            row["quality"] = round(statistics.fmean(task.quality(*each) for each in texts), 4)
            row["perfect"] = round(statistics.fmean(bool(each.right) for each in rows), 4)
            row["tokens"] = round(statistics.fmean(each.tokens for each in rows), 2)
            row["policy"] = aligned(judges[max(each for each in judges if each <= step.iteration)], texts)
    return {iteration: found[iteration] for iteration in sorted(found, key=int)}


def aligned(judge: Any, texts: Texts) -> float | None:
    """The judge's alignment over ``texts``."""
    return alignment(by_task(texts, judge.score([asked for asked, _ in texts], [text for _, text in texts])))


def judge_of(store: ObjectStore, namespace: str, prefix: str, manifest: Manifest) -> ScalarJudge:
    """The judge that the verifier-train step at ``prefix`` stands for."""
    from selfevo_trainer.judges.scalar import ScalarJudge

    verdict = Verdict.model_validate_json(read_file(store, prefix, manifest, JUDGE_FILE))
    place = step_prefix(namespace, verdict.holder.phase, verdict.holder.key)
    holder = read_manifest(store, place)
    assert holder is not None
    with tempfile.TemporaryDirectory() as folder:
        path = fetch(store, place, holder, Path(folder), folder="model")
        return ScalarJudge.load(path, Loading(dtype="float32", trust_remote_code=False), 96, verdict.digest)


@contextmanager
def paid_by_the_truth() -> Iterator[None]:
    """Challenger, rollout and Solver of phases that are forked meanwhile ask `TrueJudge`."""
    from selfevo_trainer import solver_rewards
    from selfevo_trainer.judges import scoring

    with ExitStack() as stack:
        for module in (scoring, solver_rewards):
            stack.enter_context(mock.patch.object(module, "open_judge", lambda *_, **__: TrueJudge()))
        yield


def run_one(arm: str, seed: int, over: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One run of an arm: what its manifests say, what is read out beside, CPU seconds."""
    truth, before = arm == "truth", os.times()
    spec = settings(merged(over, ARMS[arm]), seed)
    folder = folder / (f"seed-{seed}-truth" if truth else f"seed-{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    with paid_by_the_truth() if truth else nullcontext():
        metrics = run_arm(spec, seed, folder, TASK)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    read = read_out(spec, folder, truth)
    return {"read_out": read, "metrics": metrics, "cpu_s": round(spent, 1), "command": command()}


READ = ("quality", "perfect", "tokens", "anchors", "policy")
SERIES = {
    "promoted": "verifier-train/promoted",
    "anchors_before": "verifier-train/anchors/before",
    "anchors_after": "verifier-train/anchors/after",
    "score": "solver-rollout/score_mean",
}


def summarise(runs: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, Any]:
    """By arm and seed, over the iterations."""
    return {
        arm: {
            seed: {
                **{name: [row.get(name) for row in run["read_out"].values()] for name in READ},
                **{name: [round(each, 3) for each in series(run["metrics"], its)] for name, its in SERIES.items()},
                "ended": run["metrics"].get("ended"),
                "cpu_s": run["cpu_s"],
            }
            for seed, run in by_seed.items()
        }
        for arm, by_seed in runs.items()
    }


def main() -> int:
    """Run what is asked for and not there yet, writing the result after every run."""
    arguments = arms_parser(__doc__, "writing", list(ARMS), 8).parse_args()
    load_heavy_modules()
    over = merged(json.loads(arguments.set), {"iterations": arguments.iterations})
    about = {**provenance(), "set": over, "arms": ARMS}
    runs, begun = earlier(arguments.out, about), time.time()
    for seed in arguments.seeds:
        for arm in arguments.arms:
            if str(seed) in runs.get(arm, {}):
                continue
            found = run_one(arm, seed, over, arguments.folder)
            runs.setdefault(arm, {})[str(seed)] = found
            shown = summarise({arm: {str(seed): found}})[arm][str(seed)]
            print(f"{time.time() - begun:6.0f} s  seed {seed}  {arm:8} {json.dumps(shown)}", flush=True)
            result = {**about, "summary": summarise(runs), "runs": runs}
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
