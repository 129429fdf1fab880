"""Stands in for `python -m selfevo_trainer`: the same contract with its surroundings, and nothing computed.

It commits small outputs to the store that its PhaseConfig names, as the real one does, in a fraction of a second.
The folder FAKE_TRAINER_DIR tells it how to misbehave (`<step>.json`) and keeps a diary (`diary.jsonl`):

    {"exit": 3, "times": 2}           end with this code, the first two times
    {"kill": 9}                       die by this signal
    {"hang": true}                    work until SIGTERM comes or the parent is gone
    {"seconds": 0.5}                  take so long
    {"mute": true, "times": 1}        commit, and say nothing about it
    {"shard": 1}                      only in this shard
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from selfevo_contract.artifacts import ManifestDraft, shard_prefix
from selfevo_contract.phases import (
    CONFIG_FILE_ENV,
    SHARD_ENV,
    TERMINATION_LOG_ENV,
    PhaseConfig,
    PhaseResult,
    Progress,
)
from selfevo_trainer.store import commit, open_store, read_manifest

PARENT_ENV = "SELFEVO_PARENT_PID"


class Stopped(Exception):
    """SIGTERM came, or nobody waits for us any more."""


def stop(*_: object) -> None:
    raise Stopped


def note(folder: Path | None, **entry: Any) -> None:
    if folder is not None:
        with (folder / "diary.jsonl").open("a") as file:
            file.write(json.dumps({"pid": os.getpid(), "time": time.time(), **entry}) + "\n")


def orders(folder: Path | None, config: PhaseConfig, shard: int | None) -> dict[str, Any]:
    """How to misbehave this time."""
    file = folder / f"{config.step}.json" if folder is not None else None
    if file is None or not file.exists():
        return {}
    told: dict[str, Any] = json.loads(file.read_text())
    if told.get("shard", shard) != shard:
        return {}
    if "times" in told:
        told["times"] -= 1
        if told["times"] < 0:
            return {}
        file.write_text(json.dumps(told))
    return told


def metrics_of(config: PhaseConfig) -> dict[str, float]:
    t = config.iteration
    return {
        "evaluate": {"mean": 0.5 + 0.1 * t, "greedy": 0.6 + 0.1 * t},
        "solver-rollout": {"questions": 16.0, "kept": 8.0, "in_band_share": 0.5, "majority_share_mean": 0.6},
        "challenger-train": {"reward_first": 0.3, "reward_last": 0.4},
        "solver-train": {"reward_first": 0.5, "reward_last": 0.7},
    }[config.inputs.phase]


def report(config: PhaseConfig, shard: int | None, done: int, total: int) -> None:
    line = Progress(
        phase=config.inputs.phase,
        step=config.step,
        doing="training",
        done=done,
        total=total,
        metrics={"reward": 0.1 * done},
        shard=shard,
    )
    with contextlib.suppress(BrokenPipeError):
        print(line.model_dump_json(by_alias=True, exclude_none=True), flush=True)


def work(config: PhaseConfig, shard: int | None, told: dict[str, Any]) -> None:
    if told.get("hang"):
        parent = os.environ.get(PARENT_ENV)
        while parent is None or str(os.getppid()) == parent:
            report(config, shard, 1, 3)
            time.sleep(0.05)
        raise Stopped
    for done in range(1, 4):
        report(config, shard, done, 3)
        time.sleep(told.get("seconds", 0) / 3)


def run(config: PhaseConfig, shard: int | None, folder: Path | None) -> PhaseResult:
    store = open_store(config.storage.uri)

    def result(outcome: str, metrics: dict[str, float]) -> PhaseResult:
        return PhaseResult(
            phase=config.inputs.phase,
            key=config.key,
            outcome=outcome,  # type: ignore[arg-type]
            metrics=metrics,
            timings={"total": 0.1},
        )

    found = read_manifest(store, config.prefix)
    if found is not None:
        return result("found", dict(found.metrics))
    told = orders(folder, config, shard)
    note(folder, event="work", step=config.step, shard=shard, attempt=config.attempt, omp=os.environ["OMP_NUM_THREADS"])
    if "kill" in told:
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), told["kill"])
    if "exit" in told:
        raise SystemExit(told["exit"])
    work(config, shard, told)

    draft = ManifestDraft(
        key=config.key,
        phase=config.inputs.phase,
        iteration=config.iteration,
        attempt=config.attempt,
        metrics=metrics_of(config),
        timings={"total": 0.1},
        inputs=config.inputs.wire(),
    )
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "config.json"
        made.write_text(json.dumps({"key": config.key}))
        files = {"model/config.json": made}
        if shard is not None:
            commit(store, shard_prefix(config.prefix, shard), files, draft)
            shards = config.inputs.shards  # type: ignore[union-attr]
            if any(read_manifest(store, shard_prefix(config.prefix, index)) is None for index in range(shards)):
                return result("shard", {})
        won = commit(store, config.prefix, files, draft).won
    note(folder, event="committed" if won else "found", step=config.step, shard=shard)
    if told.get("mute"):
        raise SystemExit(0)
    return result("committed" if won else "found", metrics_of(config))


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    config = PhaseConfig.model_validate_json(Path(os.environ[CONFIG_FILE_ENV]).read_text())
    folder = Path(os.environ["FAKE_TRAINER_DIR"]) if "FAKE_TRAINER_DIR" in os.environ else None
    shard = int(os.environ[SHARD_ENV]) if SHARD_ENV in os.environ else None
    note(folder, event="start", step=config.step, shard=shard)
    try:
        result = run(config, shard, folder)
    except Stopped:
        result = PhaseResult(phase=config.inputs.phase, key=config.key, outcome="terminated", exit_code=143)
    except SystemExit as wanted:
        code = int(str(wanted.code))
        if code == 0:
            return 0
        reasons = {2: "InvalidInput", 3: "ServiceFailed", 4: "EmptyCurriculum"}
        result = PhaseResult(
            phase=config.inputs.phase,
            key=config.key,
            outcome="failed",
            exit_code=code,
            reason=reasons.get(code, "Crashed"),
            message=f"told to end with {code}; tell otherwise",
        )
    finally:
        note(folder, event="end", step=config.step, shard=shard)
    Path(os.environ[TERMINATION_LOG_ENV]).write_bytes(result.message_bytes())
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
