"""The command as a person uses it, with the real trainer: run, stop, go on, extend, read what came out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from runs import EXAMPLES, merged

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "iterations": 1,
    "model": {"uri": (EXAMPLES / "arithmetic" / "base").as_uri()},
    "storage": {"uri": "file:store"},
    "challenger": {"grpo": {"maxSteps": 2, "promptsPerStep": 4, "perDeviceTrainBatchSize": 32}, "checkpointEvery": 1},
    "rollout": {"questions": 120, "samples": 6, "band": {"min": 0.1, "max": 0.95}},
    "solver": {
        "grpo": {"maxSteps": 4, "promptsPerStep": 16, "promptsPerUpdate": 16, "perDeviceTrainBatchSize": 128},
        "checkpointEvery": 1,
    },
    "evaluation": {"samples": 1, "tasks": [{"name": "arithmetic", "data": {"uri": "file:heldout.jsonl"}}]},
    "exclude": [{"uri": "file:heldout.jsonl"}],
}


class Project:
    """A folder with a manifest, and the command run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = (EXAMPLES / "arithmetic" / "heldout.jsonl").read_text().splitlines()[:60]
        (folder / "heldout.jsonl").write_text("\n".join(rows) + "\n")
        self.write({})

    def write(self, over: dict[str, Any], name: str = "run.yaml") -> None:
        document = yaml.safe_load((EXAMPLES / "arithmetic.yaml").read_text())
        document["spec"] = merged(merged(document["spec"], SMALL), over)
        (self.folder / name).write_text(yaml.safe_dump(document))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).parent / "selfevo"), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "true"}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *arguments: str) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, f"{out}\n{err}"
        self.output = f"{out}\n{err}"
        return out

    def steps(self, name: str = "run.yaml") -> dict[str, bool]:
        rows = json.loads(self("plan", name, "--output", "json"))["steps"]
        return {row["name"]: row["exists"] for row in rows}

    def digests(self) -> dict[str, str]:
        manifests = (json.loads(path.read_text()) for path in (self.folder / "store").rglob("MANIFEST.json"))
        return {
            f"{manifest['phase']}/{manifest['key']}/{file['name']}": file["sha256"]
            for manifest in manifests
            for file in manifest["files"]
            if file["name"] == "model/model.safetensors"
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


def test_a_run_is_stopped_goes_on_is_extended_and_tells_what_came_out(project: Project) -> None:
    tmp_path = project.folder
    assert not any(project.steps().values())

    # Ctrl-C while the Solver trains, after its first checkpoint: a clean stop, and the way to go on.
    process = project.start("run", "run.yaml")
    deadline = time.monotonic() + 600
    while not list((tmp_path / "store").rglob("solver-train/*/checkpoints/*/MANIFEST.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "run run.yaml" in out and "Traceback" not in err

    # The same command goes on and ends; what was done is not done again.
    before = project.digests()
    out = project("run", "run.yaml")
    assert all(project.steps().values())
    assert before and before.items() <= project.digests().items()
    started = [line.split()[1] for line in out.splitlines() if " started" in line]
    assert started == ["solver-train-1", "evaluate-1"], out

    # A model that transformers can load, the report, digests that hold.
    uri = project("artifacts", "path", "run.yaml", "--iteration", "1", "--role", "solver").strip()
    assert uri.startswith("file://") and "\n" not in uri
    assert "0 damaged" in project("artifacts", "verify", "run.yaml")
    project("artifacts", "fetch", "run.yaml", "--iteration", "1", "--to", "model")
    assert (tmp_path / "model" / "config.json").is_file()
    project("report", "run.yaml", "-o", "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()[:500]
    assert "Succeeded" in project("status", "run.yaml")

    # Raising iterations extends; another manifest that differs in its Solver shares everything before.
    first = project.digests()
    project.write({"iterations": 2})
    assert sum(project.steps().values()) == 5
    project.write({"solver": {"grpo": {"maxSteps": 2}}}, "other.yaml")
    shared = project.steps("other.yaml")
    assert [name for name, there in shared.items() if not there] == ["solver-train-1", "evaluate-1"]
    project("run", "other.yaml", "--quiet")
    assert first.items() <= project.digests().items() and all(project.steps("other.yaml").values())

    # And what a step wrote is a base that another run can start from.
    project.write({"model": {"uri": uri, "digest": None}, "evaluation": {"every": 1}}, "next.yaml")
    assert not any(project.steps("next.yaml").values())


def test_processes_that_are_forked_write_the_same_bytes_as_new_ones(project: Project) -> None:
    """Those of the run above, the forked ones, were stopped and went on besides."""
    tmp_path = project.folder
    project.write({})
    assert all(project.steps().values())
    project("run", "run.yaml", "--storage", "file:cold", "--workdir", "another", "--cold")
    assert "without the warm parent" not in project.output
    assert (tmp_path / ".selfevo" / "runs" / "default" / "arithmetic" / "warm.log").is_file()
    assert not (tmp_path / "another" / "runs" / "default" / "arithmetic" / "warm.log").exists()

    def digests(store: str) -> dict[str, str]:
        manifests = [json.loads(path.read_text()) for path in (tmp_path / store).rglob("MANIFEST.json")]
        return {
            f"{manifest['phase']}/{manifest['key']}/{file['name']}": file["sha256"]
            for manifest in manifests
            for file in manifest["files"]
            if file["name"] != "metrics.jsonl"  # holds times
        }

    cold = digests("cold")
    assert len({name.split("/")[0] for name in cold}) == 4
    assert cold.items() <= digests("store").items()
