"""Pods whose trainer starts several processes, forked from a server that has torch loaded: seconds in place of minutes.

A pod is a process that runs the trainer's ``main``; the processes that its launcher starts are forked in place of
``python -m selfevo_trainer``. All else is as it is in a pod: signals, exit codes, results, gloo between the processes.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from harness import exact, fsdp
from harness.inprocess import Ended, Phases
from harness.lines import whole_lines
from harness.processes import alive
from runs import HEAVY_MODULES
from selfevo_contract.errors import DataError, InputError
from selfevo_contract.process import (
    MASTER_ADDR_ENV,
    MASTER_PORT_ENV,
    NODE_RANK_ENV,
    NODES_ENV,
    PARENT_ENV,
    PROCESSES_ENV,
    PhaseResult,
    Progress,
)

_FORKSERVER = get_context("forkserver")
HANGS_S = 120.0
"""No healthy end takes that long."""


@dataclass(frozen=True)
class Happening:
    """Something that happens in one process while a batch of it is paid, or while a part of one is generated."""

    what: str
    """kill, sigterm, sigterm-pod, hang, data, input, crash."""
    rank: int = 1
    batch: int = 2
    """The how manieth batch of the process."""
    part: int | None = None
    """The how manieth part that it generates, if it happens there."""
    once: str = ""
    """The file that is waited for first; what is uploaded beside the training has arrived then."""


@dataclass(frozen=True)
class Script:
    """What is different in the processes of a pod."""

    happening: Happening | None = None
    record: str | None = None
    """Folder for a file of completions and rewards for each process."""
    slow_checkpoint_s: float = 0.0
    """What a checkpoint takes; then the launcher gives processes a tenth of it to end after another."""
    shards: bool = False
    """The machine is one that can shard (harness.fsdp), and each process tells its share of policy, reference and
    moments in `shares-RANK.json` of the pod's folder."""
    exact: bool = False
    """See harness.exact."""
    broken: Literal["", "loss", "moments"] = ""
    """What the trainer does wrong: the loss is twice what it is; a sharded training goes on without AdamW's moments."""


_STARTED: list[Pod] = []
"""By this process."""


class Pod:
    """One attempt of a step in one pod."""

    def __init__(
        self,
        phases: Phases,
        name: str,
        folder: Path,
        *,
        processes: int = 2,
        nodes: int = 1,
        node: int = 0,
        port: int = 0,
        script: Script = Script(),
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **phases.environment(name),
            "SELFEVO_TERMINATION_LOG": str(folder / "result.json"),
            "SELFEVO_WORKDIR": str(folder / "work"),
            PROCESSES_ENV: str(processes),
        }
        if nodes > 1:
            environment |= {
                NODES_ENV: str(nodes),
                NODE_RANK_ENV: str(node),
                MASTER_ADDR_ENV: "127.0.0.1",
                MASTER_PORT_ENV: str(port),
            }
        for old in ("result.json", "out", "err"):
            (folder / old).unlink(missing_ok=True)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the server, where torch is loaded
        _FORKSERVER.set_forkserver_preload([*HEAVY_MODULES, "harness.pods"])
        self.process = _FORKSERVER.Process(target=_be_pod, args=(environment, str(folder), script))
        self.process.start()
        _STARTED.append(self)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def reports(self) -> list[Progress]:
        """Lines of progress so far."""
        out = self.folder / "out"
        lines = whole_lines(out.read_text()) if out.exists() else []
        return [Progress.model_validate_json(line) for line in lines]

    def until(self, done: int) -> Pod:
        """Wait until so many steps are trained."""
        begun = time.monotonic()
        while not any(line.doing == "training" and line.done >= done for line in self.reports()):
            assert self.process.is_alive(), self.log()
            assert time.monotonic() - begun < HANGS_S, self.log()
            time.sleep(0.02)
        return self

    def log(self) -> str:
        return (self.folder / "err").read_text() if (self.folder / "err").exists() else ""

    def ended(self) -> Ended:
        """How it ended, in bounded time."""
        self.process.join(HANGS_S)
        if self.process.is_alive():
            together = [pod for pod in _STARTED if pod.folder.parent == self.folder.parent]
            stacks = "\n".join(pod.stacks() for pod in together)
            for pod in together:
                pod.process.kill()
            raise AssertionError(f"the pod hangs; it, and those beside it: {stacks}")
        code = self.process.exitcode
        assert code is not None
        result = PhaseResult.model_validate_json((self.folder / "result.json").read_bytes())
        return Ended(code, result, self.log(), self.reports())

    def stacks(self) -> str:
        """Its log; with where each thread of it and of its ranks stands, while it is there."""
        if self.process.is_alive():
            for pid in [*self.members(), self.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR2)
            time.sleep(2)
        return f"{self.folder} (exit code {self.process.exitcode})\n{self.log()}"

    def members(self) -> list[int]:
        """Process ids of its ranks that ever began."""
        return [int(file.read_text()) for file in self.folder.glob("rank-*.pid")]


def gone(pids: Sequence[int]) -> bool:
    """Whether all end in bounded time."""
    begun = time.monotonic()
    while any(alive(pid) for pid in pids):
        if time.monotonic() - begun > HANGS_S:
            return False
        time.sleep(0.05)
    return True


def _be_pod(environment: dict[str, str], folder: str, script: Script) -> None:
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    from selfevo_trainer.distributed import launcher, rendezvous
    from selfevo_trainer.main import main

    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    os.environ |= environment
    faulthandler.register(signal.SIGUSR2)

    class Forked(ForkedRank):
        def __init__(self, args: Sequence[str], env: Mapping[str, str], **_: Any) -> None:
            super().__init__(env, folder, script)

    module: Any = launcher
    of_torch: Any = subprocess_handler
    of_torch.Popen = Forked
    rendezvous.LOST_S = 15
    if script.slow_checkpoint_s:
        module.launch.__kwdefaults__["grace_s"] = script.slow_checkpoint_s / 10
    if environment[PROCESSES_ENV] == "1" and NODES_ENV not in environment:
        _install(script, folder)
    sys.exit(main())


class ForkedRank:
    """As much of a Popen as the launcher and torch's elastic agent use."""

    def __init__(self, env: Mapping[str, str], folder: str, script: Script) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be_rank(env, folder, script)
        with suppress(OSError):
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self, timeout: float) -> int | None:
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a rank", timeout)
            time.sleep(0.02)
        return self.returncode

    def _waited(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _be_rank(env: Mapping[str, str], folder: str, script: Script) -> None:
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        logging.getLogger().handlers.clear()
        os.environ.clear()
        os.environ.update(env)
        assert os.environ[PARENT_ENV] == str(os.getppid())
        Path(folder, f"rank-{os.environ['RANK']}-{os.getpid()}.pid").write_text(str(os.getpid()))
        _install(script, folder)
        from selfevo_trainer.main import main

        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _install(script: Script, folder: str) -> None:
    """Put the script's differences into this process."""
    if script.shards:
        fsdp.on_the_cpu()
        _tell_shares(folder)
    from selfevo_trainer.phases.challenger_train import ChallengerReward
    from selfevo_trainer.solver_rewards import SolverReward

    rank = int(os.environ.get("RANK", "0"))
    for kind in (ChallengerReward, SolverReward):
        _watch(kind, rank, script)
    if script.happening is not None and (script.happening.rank, script.happening.part is None) == (rank, False):
        _watch_generation(script.happening)
    if script.broken:
        _break(script.broken)
    if script.slow_checkpoint_s:
        _slow_checkpoints(script.slow_checkpoint_s)
    if script.exact:
        exact.completions(rank)
        exact.answers(rank, script.record)


def _watch(kind: Any, rank: int, script: Script) -> None:
    real, seen = kind.__call__, []

    def paid(self: Any, *args: Any, **kwargs: Any) -> list[float]:
        seen.append(1)
        happening = script.happening
        if happening is not None and (happening.rank, happening.batch, happening.part) == (rank, len(seen), None):
            while happening.once and not Path(happening.once).exists():
                time.sleep(0.01)
            _happen(happening.what)
        rewards: list[float] = real(self, *args, **kwargs)
        if script.record is not None:
            row = {"completions": [each[0]["content"] for each in kwargs["completions"]], "rewards": rewards}
            with Path(script.record, f"{rank}.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        return rewards

    kind.__call__ = paid


def _watch_generation(happening: Happening) -> None:
    from transformers.generation.utils import GenerationMixin

    real, seen = GenerationMixin.generate, []

    def generates(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["generation_config"].do_sample:  # else it is a fingerprint's
            seen.append(1)
            if len(seen) == happening.part:
                _happen(happening.what)
        return real(self, *args, **kwargs)

    setattr(GenerationMixin, "generate", generates)  # noqa: B010  mypy refuses an assignment


def _happen(what: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    elif what == "sigterm-pod":
        os.kill(os.getppid(), signal.SIGTERM)
    elif what == "hang":
        while True:
            time.sleep(1)
    elif what == "data":
        raise DataError("the data of process 1 went bad; look at it", reason="WentBad")
    elif what == "input":
        raise InputError("spec.x is 'y'; write z")
    elif what == "crash":
        raise OSError("the node lost its memory")


def _break(what: str) -> None:
    from selfevo_trainer.grpo import dealing, sharding

    if what == "moments":
        vars(sharding)["load_optimizer"] = lambda *_: None
        return
    of_ours: Any = dealing.DealingTrainer
    real = of_ours.compute_loss
    of_ours.compute_loss = lambda *args, **kwargs: 2 * real(*args, **kwargs)


def _slow_checkpoints(seconds: float) -> None:
    from selfevo_trainer.grpo import checkpoints

    save = checkpoints.save

    def slowly(*args: Any) -> int:
        time.sleep(seconds)
        return save(*args)

    module: Any = checkpoints
    module.save = slowly


def _tell_shares(folder: str) -> None:
    from selfevo_trainer.grpo import hooks

    begins = hooks.Hooks.on_step_end

    def tell(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        trainer = self.checkpointer.trainer
        moments = [each["exp_avg"] for each in trainer.optimizer.state.values()]
        shares = {"policy": fsdp.share_of(model.parameters()), "moments": fsdp.share_of(moments)}
        if trainer.ref_model is not None:
            shares["reference"] = fsdp.share_of(trainer.ref_model.parameters())
        Path(folder, f"offloaded-{os.environ['RANK']}.json").write_text(
            json.dumps([fsdp.offloaded(each) for each in (model, trainer.ref_model) if each is not None])
        )
        Path(folder, f"shares-{os.environ['RANK']}.json").write_text(json.dumps(shares))
        return begins(self, args, state, control, model=model, **kwargs)

    of_ours: Any = hooks.Hooks
    of_ours.on_step_end = tell
