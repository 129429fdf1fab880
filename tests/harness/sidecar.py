"""The server beside a trainer, as a pod's init containers have it, and runs whose frozen models are served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.inprocess import Phases
from harness.ports import free_port
from harness.tiny import BASE, settings, write_questions
from runs import arithmetic
from selfevo_contract.artifacts import ManifestDraft
from selfevo_contract.process import PARENT_ENV, SERVER_MODELS_ENV, SERVER_PORT_ENV, TERMINATION_LOG_ENV
from selfevo_contract.run import SelfEvolutionRun
from selfevo_store import commit
from selfevo_trainer.endpoints import client

LIMIT_S = 600.0
_TESTS = Path(__file__).resolve().parents[1]


def with_fake_vllm(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """vLLM is the stand-in; the folder, below ``folder``, where its processes leave their command lines."""
    left, fake = folder / "servers", _TESTS / "harness" / "fake_vllm"
    left.mkdir()
    monkeypatch.syspath_prepend(str(fake))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fake), str(_TESTS)]))
    monkeypatch.setenv("FAKE_VLLM_FOLDER", str(left))
    monkeypatch.setattr(client, "LONGEST_WAIT_S", 0.5)
    return left


def started(left: Path) -> list[dict[str, Any]]:
    """The command lines of the servers that were started, each with its process' number."""
    return [{"pid": int(file.stem), **json.loads(file.read_text())} for file in sorted(left.glob("*.json"))]


def with_servers(
    folder: Path,
    over: dict[str, Any],
    store: str,
    *,
    parts: Sequence[str] = ("challenger", "rollout", "evaluation"),
    **engine: Any,
) -> Phases:
    """The tiny run, the engine of ``parts`` a server with the fields of ``engine``."""
    spec = settings(over, questions=write_questions(folder / "heldout.jsonl", 4))
    document: Any = arithmetic(spec, store=folder / store).wire()
    for part in parts:
        document["spec"][part]["engine"] = {"kind": "server", **engine}
    return Phases(SelfEvolutionRun.model_validate(document), folder)


def give_model(phases: Phases, name: str, folder: Path = BASE) -> str:
    """Commit the model in ``folder`` as what the step ``name`` made; its key."""
    step = phases.step(name)
    files = {f"model/{file.name}": file for file in folder.iterdir() if file.is_file()}
    draft = ManifestDraft(key=step.key, phase=step.phase, iteration=step.iteration)
    commit(phases.store, phases.prefix(name), files, draft)
    return step.key


def give_challenger(phases: Phases) -> str:
    """Commit the base as what challenger-train-1 made; its key."""
    return give_model(phases, "challenger-train-1")


def eventually(holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """What ``holds`` returns when that is true at last."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(what)


class Sidecar:
    """The processes of a pod's init containers."""

    def __init__(self, phases: Phases, step: str, folder: Path, python: str = sys.executable) -> None:
        self.python = python
        self.port = free_port()
        self.termination = folder / "serve.termination"
        self.environment = {
            **os.environ,
            **phases.environment(step),
            SERVER_MODELS_ENV: str(folder / "served"),
            SERVER_PORT_ENV: str(self.port),
            TERMINATION_LOG_ENV: str(self.termination),
            PARENT_ENV: str(os.getpid()),
        }
        self.served = folder / "served"
        self.process: subprocess.Popen[bytes] | None = None

    def fetch(self) -> int:
        command = [self.python, "-m", "selfevo_trainer.serve", "--fetch"]
        return subprocess.run(command, env=self.environment, stderr=subprocess.DEVNULL).returncode

    def start(self, arguments: Sequence[str] = ("-m", "selfevo_trainer.serve")) -> None:
        command = [self.python, *arguments]
        self.process = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=10)
        except httpx.TransportError:
            return None

    def answers(self, path: str, status: int, limit_s: float = LIMIT_S) -> httpx.Response:
        def asked() -> httpx.Response | None:
            answer = self.get(path)
            return answer if answer is not None and answer.status_code == status else None

        found: httpx.Response = eventually(asked, f"{path} never answered {status}", limit_s)
        return found
