"""How fast the operator goes from step to step, and what it costs: N runs of 4 steps at once, on a real control plane.

    python benchmarks/operator_scale.py [--runs 1,20,200,1000] [--cold-start 5000]

etcd, kube-apiserver and kube-controller-manager are real; kwok plays pods that take one second. A gap is the time
between a Job being Complete and the next Job of its run existing, both as arrivals on one watch held by a process of
its own (scale/observer.py). Beside the operator, in the same run of this script, a bare watcher that only POSTs the
next Job (scale/bare.py): nothing that a controller does can be faster. The operator writes its full status meanwhile:
status with conditions and attempts, Events, one read of the pods of every Job.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from harness.cluster import controlplane, kwok
from harness.cluster.controlplane import CRDS, ControlPlane
from harness.ports import free_port
from harness.runs import document, make_run
from machine import provenance
from selfevo_contract.plan import plan
from selfevo_operator.manifests.job import render
from selfevo_operator.manifests.settings import PodSettings

HERE = Path(__file__).parent
STEPS = 4
SEQUENCE: dict[str, Any] = {
    "spec__storage__uri": "s3://models/benchmark",
    "spec__iterations": 2,
    "spec__challenger__grpo__maxSteps": 0,
    "spec__rollout__shards": 1,
    "spec__evaluation": None,
}
"""Two iterations with an untrained Challenger: rollout and training in turn, each waiting for the one before."""
IMAGE = "selfevo-trainer:benchmark"


def four_steps(name: str, namespace: str, **changes: Any) -> dict[str, Any]:
    """A run of four steps, one after the other: two iterations with an untrained Challenger. Give each a seed of its
    own, or one makes the steps of all."""
    return document(metadata={"name": name, "namespace": namespace}, **SEQUENCE, **changes)


class Operator:
    """The operator as a process, and what it costs."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.port = free_port()
        kubeconfig = plane.kubeconfig(plane.admin_token, folder / "operator.kubeconfig")
        command = [sys.executable, "-m", "selfevo_operator", "--all-namespaces", "--image", IMAGE]
        command += ["--listen", f"127.0.0.1:{self.port}", "--kubeconfig", str(kubeconfig)]
        self.log = (folder / f"operator-{self.port}.log").open("wb")
        self.started = time.monotonic()
        self.popen = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.process = psutil.Process(self.popen.pid)
        self.ready_s = self._wait_ready()

    def _wait_ready(self) -> float:
        while time.monotonic() - self.started < 120:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return time.monotonic() - self.started
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"the operator did not become ready, see {self.log.name}")

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as response:
            lines = [line for line in response.read().decode().splitlines() if line and not line.startswith("#")]
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}

    def writes(self) -> float:
        writing = ('verb="create"', 'verb="patch"', 'verb="delete"')
        calls = self.metrics().items()
        return sum(
            n for name, n in calls if name.startswith("selfevo_api_calls_total") and any(w in name for w in writing)
        )

    def cost(self) -> dict[str, float]:
        memory, times = self.process.memory_info(), self.process.cpu_times()
        peak = next(
            int(line.split()[1]) / 1024
            for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return {"rss_mib": memory.rss / 2**20, "peak_mib": peak, "cpu_s": times.user + times.system}

    def stop(self) -> None:
        self.popen.send_signal(signal.SIGTERM)
        self.popen.wait(30)
        self.log.close()


def observed(plane: ControlPlane, folder: Path, jobs: int) -> tuple[subprocess.Popen[str], Path]:
    output = folder / f"seen-{time.monotonic_ns()}.json"
    command = [sys.executable, "-m", "scale.observer", plane.server, plane.admin_token, str(jobs), str(output)]
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().strip() == "watching"
    return process, output


def gaps(seen: list[dict[str, Any]]) -> dict[str, float]:
    """p50, p99 and max of the gaps in milliseconds, transitions a minute, and how long nobody did anything.

    The plane itself stands still for seconds now and then, whoever is measured; gaps that fall into such a silence are
    counted all the same.
    """
    by_run: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(seen, key=lambda entry: entry["first"]):
        by_run.setdefault(entry["run"], []).append(entry)
    found = sorted(
        (after["first"] - before["complete"]) * 1000
        for jobs in by_run.values()
        for before, after in itertools.pairwise(jobs)
    )
    span = max(e["complete"] for e in seen) - min(e["first"] for e in seen)
    heard = sorted(entry[what] for entry in seen for what in ("first", "complete"))
    cut = statistics.quantiles(found, n=100, method="inclusive") if len(found) > 1 else [found[0]] * 99
    return {
        "gaps": len(found),
        "p50_ms": round(statistics.median(found), 1),
        "p99_ms": round(cut[98], 1),
        "max_ms": round(found[-1], 1),
        "longest_silence_ms": round(max(after - before for before, after in itertools.pairwise(heard)) * 1000, 1),
        "transitions_a_minute": round(len(seen) / span * 60),
        "seconds": round(span, 1),
    }


def beside(operator: dict[str, float], bare: dict[str, float]) -> dict[str, float]:
    """How many times the bare watcher's figures: what of a measurement holds on another machine, too."""
    return {name: round(operator[name] / bare[name], 2) for name in ("p50_ms", "p99_ms", "transitions_a_minute")}


def create_all(plane: ControlPlane, objects: list[dict[str, Any]]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(plane.admin.create, objects))


def measure_bare(plane: ControlPlane, folder: Path, runs: int) -> dict[str, float]:
    namespace = plane.make_namespace()
    run = make_run(**{"metadata": {"name": "bare", "namespace": namespace, "uid": "u"}, **SEQUENCE})
    template = render(run, plan(run.spec).steps[0], 1, "bare", PodSettings(image=IMAGE))[0]
    template["metadata"].pop("ownerReferences")
    file = folder / "bare.json"
    file.write_text(json.dumps(template))
    observer, output = observed(plane, folder, runs * STEPS)
    command = [
        sys.executable,
        "-m",
        "scale.bare",
        plane.server,
        plane.admin_token,
        namespace,
        str(runs),
        str(STEPS),
        str(file),
    ]
    bare = subprocess.Popen(command, cwd=HERE)
    process = psutil.Process(bare.pid)
    peak = 0.0
    while bare.poll() is None:
        peak = max(peak, process.memory_info().rss / 2**20) if psutil.pid_exists(bare.pid) else peak
        time.sleep(0.2)
    if bare.returncode:
        raise RuntimeError("the bare watcher failed, see above")
    observer.wait(60)
    return {**gaps(json.loads(output.read_text())["jobs"]), "rss_mib": round(peak, 1)}


def measure_operator(plane: ControlPlane, folder: Path, runs: int) -> dict[str, float]:
    namespace = plane.make_namespace()
    operator = Operator(plane, folder)
    observer, output = observed(plane, folder, runs * STEPS)
    create_all(plane, [four_steps(f"run-{n}", namespace, spec__seed=n) for n in range(runs)])
    observer.wait(3600)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done = operator.metrics().get('selfevo_runs{phase="Succeeded"}', 0.0)
        if done >= runs:
            break
        time.sleep(0.2)
    found = gaps(json.loads(output.read_text())["jobs"])
    writes, cost = operator.writes(), operator.cost()
    operator.stop()
    assert done >= runs, f"{done} of {runs} runs succeeded"
    return {
        **found,
        "writes_a_transition": round(writes / (runs * STEPS), 2),
        "rss_mib": round(cost["rss_mib"], 1),
        "peak_mib": round(cost["peak_mib"], 1),
        "cpu_s": round(cost["cpu_s"], 2),
        "cpu_ms_a_transition": round(cost["cpu_s"] / (runs * STEPS) * 1000, 2),
    }


def measure_cold_start(plane: ControlPlane, folder: Path, runs: int) -> dict[str, float]:
    """Start with ``runs`` runs that are there already, none of which the operator has seen."""
    namespace = plane.make_namespace()
    create_all(plane, [four_steps(f"run-{n}", namespace, spec__seed=n, spec__suspend=True) for n in range(runs)])
    found = {}
    for name in ("first", "again"):
        operator = Operator(plane, folder)
        while (
            operator.metrics().get('selfevo_runs{phase="Suspended"}', 0.0) < runs
            or operator.metrics()["selfevo_queue_depth"]
        ):
            time.sleep(0.1)
        found[f"{name}_ready_s"] = round(operator.ready_s, 1)
        found[f"{name}_all_seen_s"] = round(time.monotonic() - operator.started, 1)
        found[f"{name}_rss_mib"] = round(operator.cost()["rss_mib"], 1)
        operator.stop()
    return {"runs": runs, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="1,20,200,1000")
    parser.add_argument("--cold-start", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "operator_scale.json")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results: dict[str, Any] = {**provenance(), "steps_a_run": STEPS, "pod_seconds": 1, "by_runs": {}}
    with tempfile.TemporaryDirectory(prefix="selfevo-scale-") as place:
        folder = Path(place)
        for runs in [int(n) for n in options.runs.split(",") if n]:
            found = {}
            for name, measure in (("bare", measure_bare), ("operator", measure_operator)):
                # Each has a plane of its own: what one leaves behind takes a minute to be deleted.
                with (
                    controlplane.running(folder / f"plane-{runs}-{name}", crds=CRDS, scheduler=True) as plane,
                    kwok.running(plane, folder / f"kwok-{runs}-{name}"),
                ):
                    found[name] = measure(plane, folder, runs)
                    print(runs, name, found[name], flush=True)
            found["operator_to_bare"] = beside(found["operator"], found["bare"])
            results["by_runs"][str(runs)] = {**found, "load_average": round(os.getloadavg()[0], 1)}
            options.output.write_text(json.dumps(results, indent=1) + "\n")
        if options.cold_start:
            with controlplane.running(folder / "plane-cold", crds=CRDS) as plane:
                results["cold_start"] = measure_cold_start(plane, folder, options.cold_start)
                results["cold_start"]["load_average"] = round(os.getloadavg()[0], 1)
                print(results["cold_start"], flush=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
