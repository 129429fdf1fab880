"""An example's manifest with other settings, for benchmarks and tests: what is not overridden is what people run."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from selfevo_contract.digests import file_digest, model_digest
from selfevo_contract.plan import Step
from selfevo_contract.process import (
    CACHE_ENV,
    CONFIG_ENV,
    SHARD_ENV,
    TERMINATION_LOG_ENV,
    WORKDIR_ENV,
    phase_config,
)
from selfevo_contract.run import SelfEvolutionRun

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def merged(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: mappings are merged, everything else is replaced, None removes."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    both = {name: merged(base.get(name), over[name]) if name in over else base[name] for name in {**base, **over}}
    return {name: value for name, value in both.items() if value is not None}


def by_transformers(stem: str) -> Any:
    """examples/``stem``.yaml, all of whose texts transformers writes in the trainer's processes. The GPUs of servers
    train, too. Batches are of 64 sequences, and of 48 of the frozen Solver beside the largest model."""
    document = yaml.safe_load((EXAMPLES / f"{stem}.yaml").read_text())
    spec = document["spec"]
    for part in ("challenger", "rollout", "solver", "evaluation"):
        grpo, engine = spec[part].get("grpo", {}), spec[part].get("engine", {})
        limits = spec[part]["pods"]["resources"]["limits"]
        if grpo.get("vllmMode") == "server":
            limits["nvidia.com/gpu"] += grpo.get("vllmTensorParallelSize", 1)
        if engine.get("kind") == "server":
            limits["nvidia.com/gpu"] += engine.get("gpus", 1) * engine.get("replicas", 1)
        for name in [name for name in grpo if name == "generation" or name.startswith("vllm")]:
            del grpo[name]
        if engine:
            beside = part == "challenger" and stem == "qwen3-8b-base"
            spec[part]["engine"] = {"kind": "transformers", "batchSize": 48 if beside else 64}
    return document


def arithmetic(over: Mapping[str, Any], *, store: Path, name: str = "arithmetic") -> SelfEvolutionRun:
    """examples/arithmetic.yaml, as `example` has it."""
    return example("arithmetic", over, store=store, name=name)


def example(stem: str, over: Mapping[str, Any], *, store: Path, name: str | None = None) -> SelfEvolutionRun:
    """examples/``stem``.yaml with ``over`` laid over its spec, its files named absolutely, its store at ``store``. Its
    files are in the folder of its name, or of that up to a hyphen."""
    document = yaml.safe_load((EXAMPLES / f"{stem}.yaml").read_text())
    folder = EXAMPLES / stem.partition("-")[0]
    base, heldout = folder / "base", folder / "heldout.jsonl"
    data = {"uri": f"file://{heldout}", "digest": file_digest(heldout)}
    files = {
        "model": {"uri": f"file://{base}", "digest": model_digest(base)},
        "storage": {"uri": store.absolute().as_uri()},
        "evaluation": {"tasks": [{**document["spec"]["evaluation"]["tasks"][0], "data": data}]},
        "exclude": [data],
    }
    document["metadata"]["name"] = name or stem
    document["spec"] = merged(merged(document["spec"], files), over)
    return SelfEvolutionRun.model_validate(document)


@dataclass(frozen=True)
class Forked:
    """How a forked process ended."""

    code: int
    wall_s: float
    cpu_s: float
    """User and system time of the process and of the children that it waited for."""


HEAVY_MODULES = [
    "selfevo_trainer.engines.transformers_engine",
    *(f"selfevo_trainer.phases.{name}" for name in ("challenger_train", "solver_rollout", "solver_train", "evaluate")),
]
"""What the phases import and torch with it; no thread pool is started, so forking afterwards is safe."""


def load_heavy_modules() -> None:
    """Import them once."""
    for name in HEAVY_MODULES:
        importlib.import_module(name)


def begun(function: Callable[[], int], log: Path) -> int:
    """Call ``function`` in a process of its own that has all modules of this one loaded; its output goes to ``log``.

    Returns:
        the number of the process.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = function()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def forked(function: Callable[[], int], log: Path) -> Forked:
    """Call ``function`` as `begun` does, and wait for its end."""
    since = time.perf_counter()
    _, status, usage = os.wait4(begun(function, log), 0)
    return Forked(os.waitstatus_to_exitcode(status), time.perf_counter() - since, usage.ru_utime + usage.ru_stime)


def phase_environment(config_json: str, folder: Path, shard: int = 0) -> dict[str, str]:
    """The environment of a trainer process that works below ``folder``."""
    return {
        CONFIG_ENV: config_json,
        TERMINATION_LOG_ENV: str(folder / "result.json"),
        WORKDIR_ENV: str(folder / "work"),
        CACHE_ENV: str(folder / "cache"),
        SHARD_ENV: str(shard),
    }


def forked_phase(
    run: SelfEvolutionRun,
    step: Step,
    folder: Path,
    shard: int = 0,
    *,
    environment: Mapping[str, str] = {},
    prepare: Callable[[], None] = lambda: None,
) -> Forked:
    """``step`` as a Job runs it, in a forked process with ``environment`` beside its own; its log is log.txt below
    ``folder``.

    Args:
        prepare: is called in that process before the phase.
    """
    config = phase_config(run.spec, run.metadata.name, run.metadata.namespace, step)
    variables = phase_environment(config.model_dump_json(by_alias=True, exclude_none=True), folder, shard)

    def call() -> int:
        from selfevo_trainer.main import main

        os.environ |= {**environment, **variables}
        prepare()
        return main()

    return forked(call, folder / "log.txt")


def load_script(name: str, path: Path) -> ModuleType:
    """The script at ``path``, which is in no package, as a module of this name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def arms_parser(description: str | None, name: str, arms: Sequence[str], iterations: int) -> argparse.ArgumentParser:
    """The command line of a benchmark that runs arms over seeds and writes results/``name``.json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--iterations", type=int, default=iterations)
    parser.add_argument("--arms", nargs="+", choices=sorted(arms), default=list(arms))
    parser.add_argument("--folder", type=Path, default=Path(f"/tmp/selfevo-{name}"), help="stores; kept")
    parser.add_argument("--set", default="{}", help="JSON laid over the manifest's spec, in every arm")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"{name}.json")
    return parser


def earlier(path: Path, about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The runs that ``path`` has of the same settings and commit, by arm and seed: several calls may fill it."""
    known = json.loads(path.read_text()) if path.exists() else {}
    same = all(known.get(name) == about[name] for name in ("commit", "set", "arms"))
    runs: dict[str, dict[str, Any]] = known["runs"] if same else {}
    return runs
