"""End trainings with SIGTERM at random moments while uploads are slow: each attempt must end within the grace period,
lose nothing that was committed, and be resumed bit-equal.

    python benchmarks/sigterm.py --signals 200

A real S3 server (versitygw) lies behind a proxy that holds each object up for as long as its bytes would take at
``--rate``. One undisturbed run is the reference. Then one of its trainings after the other is removed from the store
and done again, with SIGTERM at a random moment of each attempt until ``--per-training`` have come; the attempt after
them ends by itself. A process gets ``--grace`` as a pod gets its terminationGracePeriodSeconds, and SIGKILL behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness import s3proxy, versitygw
from kill import SMALL, Runner, preload
from machine import provenance
from runs import arithmetic
from selfevo_contract.artifacts import MANIFEST_NAME, step_prefix
from selfevo_contract.plan import Step
from selfevo_contract.process import GRACE_SECONDS_ENV
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import open_storage

TRAININGS = ("challenger-train", "solver-train")
EXIT_TERMINATED = 143


@dataclass
class Tally:
    """What the attempts that got SIGTERM did."""

    ends: Counter[str] = field(default_factory=Counter)
    """How they ended: `checkpoint` (143, a new one is in the store), `terminated` (143, nothing new), `signal` (the
    process was not ours yet), `done` (its commit was under way and went through)."""
    seconds: list[float] = field(default_factory=list)
    """From SIGTERM to the process's end."""
    resumed: int = 0
    """Attempts that went on from a checkpoint."""
    faults: list[str] = field(default_factory=list)


class Trainings:
    """The trainings of one run, done again and again."""

    def __init__(self, run: SelfEvolutionRun, folder: Path, grace: float, rng: random.Random) -> None:
        self.runner = Runner(run, folder)
        self.store = open_storage(run.spec.storage)
        self.grace, self.rng = grace, rng
        self.seconds: dict[str, float] = {}
        self.tally = Tally()

    def reference(self) -> dict[str, str]:
        """The run undisturbed: the sha256 of its files."""
        for step in self.runner.plan.steps:
            begun = time.monotonic()
            for shard in range(step.shards):
                self.runner.finish(step, shard)
            self.seconds[step.name] = time.monotonic() - begun
        return self.runner.digests()

    def again(self, step: Step, signals: int) -> None:
        """Remove ``step`` from the store and do it again with so many SIGTERMs, fewer where it is done before."""
        self.store.delete_prefix(self._prefix(step))
        for _ in range(signals):
            if self._disturbed(step):
                return
        self._resumes(step, self.runner.finish(step, 0), self._checkpoints(step))

    def _disturbed(self, step: Step) -> bool:
        """One attempt with SIGTERM at a random moment of its life; whether the step is done."""
        process = self.runner.start(step, 0)
        before = self._checkpoints(step)
        process.join(self.rng.uniform(0, self.seconds[step.name]))
        if not process.is_alive():
            return self._ended(step, process.exitcode, None, before)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        begun = time.monotonic()
        process.join(self.grace)
        took = time.monotonic() - begun
        if process.is_alive():
            self._fault(f"{step.name} had not ended {took:.1f} s after SIGTERM")
            process.kill()
            process.join()
        return self._ended(step, process.exitcode, took, before)

    def _ended(self, step: Step, code: int | None, took: float | None, before: list[int]) -> bool:
        done = self.store.exists(f"{self._prefix(step)}/{MANIFEST_NAME}")
        after = self._checkpoints(step)
        if took is not None:
            self.tally.seconds.append(took)
            kinds = {-signal.SIGTERM: "signal", 0: "done"}
            kinds[EXIT_TERMINATED] = "checkpoint" if max(after, default=0) > max(before, default=0) else "terminated"
            self.tally.ends[kinds.get(code if code is not None else 1, f"exit code {code}")] += 1
        if code not in (0, EXIT_TERMINATED, -signal.SIGTERM, -signal.SIGKILL):
            self._fault(f"{step.name} ended with {code}: {self.runner.log.read_text()[-600:]}")
        if done != (code == 0):
            self._fault(f"{step.name} ended with {code}, and its output is {'' if done else 'not '}committed")
        if not done and max(after, default=0) < max(before, default=0):
            self._fault(f"{step.name} had checkpoints {before} and has {after}")
        if code in (0, EXIT_TERMINATED) and self.runner.result.exists():
            self._resumes(step, json.loads(self.runner.result.read_text()), before)
        return done

    def _resumes(self, step: Step, result: dict[str, Any], before: list[int]) -> None:
        resumed = result.get("resumedFrom")
        self.tally.resumed += resumed is not None
        # One that ended before it came to the checkpoints has resumed nothing.
        if resumed is not None and before and resumed != max(before):
            self._fault(f"{step.name} went on from {resumed}, where the store had {before}")

    def _checkpoints(self, step: Step) -> list[int]:
        pattern = re.compile(rf"/checkpoints/(\d+)/{re.escape(MANIFEST_NAME)}$")
        keys = (info.key for info in self.store.list(f"{self._prefix(step)}/checkpoints"))
        return sorted(int(found[1]) for key in keys if (found := pattern.search(key)))

    def _prefix(self, step: Step) -> str:
        return step_prefix(self.runner.run.metadata.namespace, step.phase, step.key)

    def _fault(self, text: str) -> None:
        self.tally.faults.append(text)
        print(f"FAULT: {text}", flush=True)


def slow(bytes_per_second: float) -> s3proxy.Faults:
    """Hold each upload up for as long as its bytes take."""

    def wait(request: s3proxy.Request) -> bool:
        if request.method == "PUT":
            time.sleep(int(request.headers.get("content-length", 0)) / bytes_per_second)
        return False

    return s3proxy.Faults(lose_request=wait)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Trainings until so many SIGTERMs came."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)
    with versitygw.running(folder) as server, s3proxy.proxied(server, slow(arguments.rate)) as proxy:
        os.environ |= {**server.environment, GRACE_SECONDS_ENV: str(arguments.grace)}
        preload()
        over = {**SMALL, "storage": {"uri": f"s3://{server.make_bucket()}/x", "endpoint": proxy.endpoint}}
        trainings = Trainings(arithmetic(over, store=folder / "store"), folder, arguments.grace, rng)
        expected = trainings.reference()
        print(f"undisturbed: {trainings.seconds}", flush=True)
        steps = [step for step in trainings.runner.plan.steps if step.phase in TRAININGS]
        count, different, tally = 0, list[str](), trainings.tally
        while len(tally.seconds) < arguments.signals:
            missing = arguments.signals - len(tally.seconds)
            trainings.again(steps[count % len(steps)], min(arguments.per_training, missing))
            count += 1
            found = trainings.runner.digests()
            different += [f"training {count}: {name}" for name in expected if expected[name] != found.get(name)]
            print(f"{len(tally.seconds)} signals, {count} trainings, {dict(tally.ends)}, {different}", flush=True)
    return {
        "signals": len(tally.seconds),
        "grace_s": arguments.grace,
        "upload_bytes_per_second": arguments.rate,
        "undisturbed_s": {step.name: round(trainings.seconds[step.name], 2) for step in steps},
        "trainings": count,
        "ends": dict(tally.ends),
        "seconds_to_the_end": {
            "median": round(statistics.median(tally.seconds), 2),
            "p95": round(statistics.quantiles(tally.seconds, n=20)[-1], 2),
            "longest": round(max(tally.seconds), 2),
        },
        "attempts_resumed_from_a_checkpoint": tally.resumed,
        "faults": tally.faults,
        "files_compared": len(expected) * count,
        "files_different": different,
        "seed": arguments.seed,
    }


def main() -> int:
    """Returns 1 when one did not end in time, lost a checkpoint or computed something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--per-training", type=int, default=4)
    parser.add_argument("--grace", type=int, default=30, help="seconds, as Kubernetes' own default")
    parser.add_argument("--rate", type=float, default=1e6, help="bytes a second of an upload")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sigterm.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="selfevo-sigterm-") as folder:
        result = {**provenance(), **measure(arguments, Path(folder))}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if result["files_different"] or result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
