"""Stands in for `python -m selfevo_trainer`: the same contract with its surroundings, and nothing computed.

It commits small outputs to the file:// store that its PhaseConfig names, as the real one does. Standard library only:
it starts in some milliseconds, and what it writes is read by code that it does not share. The folder FAKE_TRAINER_DIR
tells it how to misbehave (`<step>.json`) and keeps a diary (`diary.jsonl`):

    {"exit": 3, "times": 2}           end with this code, the first two times
    {"kill": 9}                       die by this signal
    {"hang": true}                    work until SIGTERM comes or the parent is gone
    {"hang": true, "then": 4}         the same, and fail with this code where it would stop
    {"exit": 4, "linger": true}       say so, and be there still until SIGTERM ends it
    {"stubborn": true}                the same, deaf to SIGTERM
    {"seconds": 0.5}                  take so long
    {"reports": {"seconds_left": 9}}  say this, too, with its progress
    {"mute": true, "times": 1}        commit, and say nothing about it
    {"shard": 1}                      only in this shard
"""

import contextlib
import hashlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_TRAINER_DIR"])
CONFIG = json.loads(Path(os.environ["SELFEVO_PHASE_CONFIG_FILE"]).read_text())
STEP, KEY, INPUTS = CONFIG["step"], CONFIG["key"], CONFIG["inputs"]
PHASE = INPUTS["phase"]
SHARD = int(os.environ["JOB_COMPLETION_INDEX"]) if "JOB_COMPLETION_INDEX" in os.environ else None
PLACE = Path(CONFIG["storage"]["uri"].removeprefix("file://"), CONFIG["namespace"], PHASE, KEY)

T = CONFIG["iteration"]
METRICS = {
    "evaluate": {"mean": 0.5 + 0.1 * T, "greedy": 0.6 + 0.1 * T},
    "solver-rollout": {"questions": 16.0, "kept": 8.0, "in_band_share": 0.5, "majority_share_mean": 0.6},
    "challenger-train": {"reward_first": 0.3, "reward_last": 0.4},
    "solver-train": {"reward_first": 0.5, "reward_last": 0.7},
    "finetune": {"questions": 10.0, "kept": 9.0, "loss_first": 0.5, "loss_last": 0.25},
    "publish": {"files": 5.0, "put": 4.0, "bytes": 1000.0},
    "finetune-evaluate": {"mean": 0.7 + 0.05 * T, "greedy": 0.8},
}[PHASE]


class Stopped(Exception):
    """SIGTERM came, or nobody waits for us any more."""


def stop(*_: object) -> None:
    raise Stopped


def process() -> dict[str, object]:
    """What a process inherits."""
    here = Path("/proc/self")
    status = (here / "status").read_text().splitlines()
    own = ("SELFEVO_PARENT_PID", "SELFEVO_TERMINATION_LOG")  # the number of the command is in both
    return {
        "environment": {name: value for name, value in os.environ.items() if name not in own},
        "child of the command": str(os.getppid()) == os.environ["SELFEVO_PARENT_PID"],
        "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "signals": [line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt", "Threads"))],
        "files": {
            int(each.name): str(each.readlink()).split(":")[0]
            for each in sorted((here / "fd").iterdir())
            if each.exists()
        },
        "folder": str(Path.cwd()),
    }


def note(event: str) -> None:
    entry = {"event": event, "step": STEP, "shard": SHARD, "attempt": CONFIG["attempt"], "pid": os.getpid()}
    if event == "start":
        entry |= {"argv": Path(sys.orig_argv[1]).name, "process": process()}
    line = json.dumps({**entry, "time": time.time(), "omp": os.environ["OMP_NUM_THREADS"]})
    with (FOLDER / "diary.jsonl").open("a") as file:
        file.write(line + "\n")


def orders() -> dict[str, Any]:
    """How to misbehave this time."""
    file = FOLDER / f"{STEP}.json"
    order = json.loads(file.read_text()) if file.exists() else {}
    if order.get("shard", SHARD) != SHARD:
        return {}
    if "times" in order:
        order["times"] -= 1
        if order["times"] < 0:
            return {}
        file.write_text(json.dumps(order))
    return order


def result(outcome: str, **fields: object) -> dict[str, Any]:
    return {"phase": PHASE, "key": KEY, "outcome": outcome, "timings": {"total": 0.1}, "tokens": 100, **fields}


def report(done: int, more: Mapping[str, float] | None = None) -> None:
    line = {"event": "progress", "phase": PHASE, "step": STEP, "doing": "training", "done": done, "total": 3}
    line |= {"metrics": {"reward": 0.1 * done}, **(more or {})}
    if SHARD is not None:
        line["shard"] = SHARD
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(line, separators=(",", ":")), flush=True)


def work(order: dict[str, Any]) -> None:
    if order.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if order.get("hang") or order.get("stubborn"):
        while str(os.getppid()) == os.environ["SELFEVO_PARENT_PID"]:
            report(1)
            time.sleep(0.05)
        raise Stopped
    for done in range(1, 4):
        report(done, order.get("reports"))
        time.sleep(order.get("seconds", 0) / 3)


def commit(place: Path) -> bool:
    """Whether the manifest is this process's own."""
    write_id = secrets.token_hex(8)
    content = json.dumps({"key": KEY}).encode()
    stored = place / "attempts" / write_id / "model" / "config.json"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(content)
    file = {
        "name": "model/config.json",
        "path": str(stored.relative_to(place)),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest = {
        "schemaVersion": 1,
        "key": KEY,
        "phase": PHASE,
        "iteration": T,
        "attempt": CONFIG["attempt"],
        "metrics": METRICS,
        "timings": {"total": 0.1},
        "inputs": INPUTS,
        "writeId": write_id,
        "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": [file],
    }
    draft = place / f".tmp-{write_id}"
    draft.write_text(json.dumps(manifest))
    try:
        os.link(draft, place / "MANIFEST.json")
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def failure(code: int) -> dict[str, Any]:
    reason = {2: "InvalidInput", 3: "ServiceFailed", 4: "EmptyCurriculum"}.get(code, "Crashed")
    return result("failed", exitCode=code, reason=reason, message=f"ordered to end with {code}; order otherwise")


def run() -> dict[str, Any]:
    if (PLACE / "MANIFEST.json").exists():
        return result("found", metrics=METRICS)
    note("work")
    order = orders()
    if "kill" in order:
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), order["kill"])
    if order.get("exit"):
        outcome = failure(order["exit"])
        if order.get("linger"):
            Path(os.environ["SELFEVO_TERMINATION_LOG"]).write_text(json.dumps(outcome))
            # Before anybody is told: a SIGTERM while the handler is exchanged would be lost.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            note("reported")
            signal.pause()
        return outcome
    try:
        work(order)
    except Stopped:
        if "then" not in order:
            raise
        return failure(order["then"])
    if SHARD is not None:
        chunks = [PLACE / "chunks" / "answers" / f"{index:08d}-{1:08d}" for index in range(INPUTS["shards"])]
        commit(chunks[SHARD])
        if not all((chunk / "MANIFEST.json").exists() for chunk in chunks):
            return result("shard")
    won = commit(PLACE)
    note("committed" if won else "found")
    if order.get("mute"):
        sys.exit(0)
    return result("committed" if won else "found", metrics=METRICS)


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    note("start")
    try:
        outcome = run()
    except Stopped:
        outcome = result("terminated", exitCode=143)
    finally:
        note("end")
    Path(os.environ["SELFEVO_TERMINATION_LOG"]).write_text(json.dumps(outcome))
    return int(outcome.get("exitCode", 0))


if __name__ == "__main__":
    sys.exit(main())
