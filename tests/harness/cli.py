"""A project on disk (model, data, manifest) and the command `selfevo` with the fake trainer."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

import selfevo.local.processes
import selfevo.local.warm
import selfevo.verbs.run
from harness import selfevo_fake
from harness.lines import whole_lines
from harness.runs import document
from selfevo.main import main
from selfevo_contract.run import SelfEvolutionRun

COMMAND = (sys.executable, str(Path(__file__).with_name("selfevo_fake.py")))


class Project:
    """A folder with everything that `selfevo run run.yaml` needs. The run has three steps and no evaluation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.orders = root / "orders"
        self.orders.mkdir(parents=True)
        self.store = root / "store"
        self.workdir = root / ".selfevo"
        (root / "model").mkdir()
        (root / "model" / "config.json").write_text("{}")
        (root / "heldout.jsonl").write_text('{"question": "1 + 1", "answer": "2"}\n')
        self.environment = {**os.environ, "FAKE_TRAINER_DIR": str(self.orders), "OMP_NUM_THREADS": "1"}
        for name in ("CI", "SELFEVO_DEBUG"):
            self.environment.pop(name, None)
        self.write()

    def write(self, name: str = "run.yaml", **changes: Any) -> Path:
        """A manifest; ``spec__iterations=2`` sets a field."""
        made = document(
            **{
                "spec__iterations": 1,
                "spec__model": {"uri": "file:model", "dtype": "float32"},
                "spec__storage__uri": "file:store",
                "spec__evaluation": None,
                **changes,
            }
        )
        path = self.root / name
        path.write_text(yaml.safe_dump(made))
        return path

    def evaluated(self, **changes: Any) -> Path:
        """The same with an evaluation: five steps."""
        task = {"name": "held-out", "data": {"uri": "file:heldout.jsonl"}}
        return self.write(spec__evaluation={"tasks": [task], "samples": 2}, **changes)

    def order(self, step: str, **orders: Any) -> None:
        """Order the fake trainer to misbehave in ``step``; without orders it does not."""
        file = self.orders / f"{step}.json"
        if orders:
            file.write_text(json.dumps(orders))
        else:
            file.unlink(missing_ok=True)

    def diary(self, event: str = "work") -> list[dict[str, Any]]:
        """What the fake trainers noted."""
        file = self.orders / "diary.jsonl"
        lines = whole_lines(file.read_text()) if file.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def worked(self) -> list[str]:
        """The steps at which a process worked, one entry for each process, in order."""
        return [entry["step"] for entry in self.diary()]

    def selfevo(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return subprocess.run(
            [*COMMAND, *args],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )

    def invoke(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, half a second faster: for verbs that start nothing."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        before = sys.argv
        sys.argv = ["selfevo", *args]
        try:
            with contextlib.chdir(self.root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = before
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())

    def drive(self, *args: str, verb: str = "run") -> subprocess.CompletedProcess[str]:
        """`selfevo run` (or `sweep`) to its end in this process; the trainers are processes all the same."""
        with (
            mock.patch.object(selfevo.local.processes, "TRAINER", selfevo_fake.TRAINER),
            mock.patch.object(selfevo.local.warm, "wanted", lambda _: False),  # the tests' process adopts no orphans
            mock.patch.object(selfevo.verbs.run, "BACKOFF", selfevo_fake.BACKOFF),
            mock.patch.dict(os.environ, self.environment, clear=True),
        ):
            return self.invoke(verb, *args)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            [*COMMAND, *args],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def recorded(self) -> SelfEvolutionRun:
        """status.json."""
        return SelfEvolutionRun.model_validate_json(self.status_file.read_bytes())

    @property
    def status_file(self) -> Path:
        return self.workdir / "runs" / "default" / "demo" / "status.json"


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
