"""Several training processes in one pod: torch's elastic agent starts and ends them; here is one result for all.

torchrun ends with code 1 whatever its processes ended with; here the exit codes are a contract (docs/design.md,
decision 7), so the process that the pod starts runs the agent itself, and tells by its ranks' results which was the
cause.

    SIGTERM           goes to all ranks; they agree on the step after which they stop (grpo/hooks.py)
    one fails         the agent tells the others to end, and kills them when they do not: what they wait for never comes
    the launcher dies the kernel tells its ranks (signals.die_with_parent); in a container they die with it
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from pydantic import ValidationError
from torch.distributed.elastic.agent.server.api import RunResult, Worker, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, LogsDest

from selfevo_contract.process import PhaseConfig, PhaseResult
from selfevo_trainer.distributed import root_cause
from selfevo_trainer.distributed.layout import Layout, rank_environment
from selfevo_trainer.distributed.rendezvous import Rendezvous, meet
from selfevo_trainer.process.signals import StopRequest

COMMAND = (sys.executable, "-m", "selfevo_trainer")
GRACE_S = 30.0
"""What a process gets to end after another has failed."""
_POLL_S = 0.1


def launch(
    config: PhaseConfig,
    layout: Layout,
    workdir: Path,
    stop: StopRequest,
    found: Callable[[], PhaseResult | None],
    *,
    command: Sequence[str] = COMMAND,
    grace_s: float = GRACE_S,
) -> PhaseResult:
    """Run the phase in ``layout.processes`` processes, together with those of the other pods.

    Args:
        found: The step's result when its output is there already: asked while pod 0 is waited for, which may be done.
    """
    with meet(config, layout, found) as rendezvous:
        if isinstance(rendezvous, PhaseResult):
            return rendezvous
        with stop.deferred():
            agent = _Agent(config, layout, workdir, stop, rendezvous, command, grace_s)
            agent.run()
            return rendezvous.agree(agent.result(), stop, patience_s=2 * grace_s)


class _Agent(LocalElasticAgent):
    """torch's agent for the ranks of a pod, which here also heeds SIGTERM and the other pods."""

    def __init__(
        self,
        config: PhaseConfig,
        layout: Layout,
        workdir: Path,
        stop: StopRequest,
        rendezvous: Rendezvous,
        command: Sequence[str],
        grace_s: float,
    ) -> None:
        # SIGTERM and SIGINT are ours (process/signals.py).
        os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGHUP"
        spec = WorkerSpec(
            role="rank",
            local_world_size=layout.processes,
            rdzv_handler=rendezvous,
            entrypoint=command[0],
            args=tuple(command[1:]),
            max_restarts=0,  # who tries again is Kubernetes
            monitor_interval=_POLL_S,
        )
        super().__init__(spec, _Environment(layout, workdir))
        self._config, self._layout, self._workdir, self._stop = config, layout, workdir, stop
        self._rendezvous_of_pods, self._grace_s = rendezvous, grace_s
        self._asked = False
        self._stopped_ranks: set[int] = set()
        """The ranks that were asked to end because of a failure."""
        self._until: float | None = None

    def result(self) -> PhaseResult:
        """What came of the ranks of this pod, which have ended."""
        if self._committed():
            return self._result(0)  # whatever another did at its end
        ends = sorted((rank for rank in self._processes() if not self._succeeded(rank)), key=self._ended_at)
        if not ends:
            return self._result(0)
        results = [(self._result(rank), self._stop.requested) for rank in ends]
        return results[root_cause.find(results)][0]

    def _assign_worker_ranks(
        self, store: Any, group_rank: int, group_world_size: int, spec: WorkerSpec
    ) -> list[Worker]:
        """Pods are alike; torch's would ask each for its number, and block when one is gone meanwhile."""
        size, first = self._layout.size, group_rank * spec.local_world_size
        return [Worker(i, first + i, first + i, size, size) for i in range(spec.local_world_size)]

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        pids: dict[int, Any] = super()._start_workers(worker_group)
        context: Any = self._pcontext
        close = context.close

        def first_close(*_: Any, **__: Any) -> None:
            del context.close  # the agent is in no circle, so that its store is closed when it goes
            self._stopped_ranks = {rank for rank, process in self._processes().items() if process.poll() is None}
            if not self._committed() and not all(self._succeeded(rank) for rank in self._processes()):
                self._rendezvous_of_pods.alarm()
            close(signal.SIGTERM, self._grace_s)

        context.close = first_close
        return pids

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        if self._stop.requested and not self._asked:
            self._asked = True
            for process in self._processes().values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
        result: RunResult = super()._monitor_workers(worker_group)
        if self._until is None and self._committed():
            self._until = time.monotonic() + self._grace_s
        over = self._until is not None and time.monotonic() > self._until
        if result.state == WorkerState.HEALTHY and (over or self._rendezvous_of_pods.failed):
            return RunResult(state=WorkerState.FAILED)
        return result

    def _exit_barrier(self) -> None:
        """Rendezvous.agree is the barrier: torch's lets all be well when a pod does not come to it in time."""

    def _processes(self) -> dict[int, Popen[bytes]]:
        context: Any = self._pcontext
        return {rank: handler.proc for rank, handler in context.subprocess_handlers.items()}

    def _committed(self) -> bool:
        return self._layout.node == 0 and self._succeeded(0)

    def _succeeded(self, rank: int) -> bool:
        """Its result says so; where there is none (a full disk), its exit code."""
        code = self._processes()[rank].poll()
        if code is None:
            return False
        result = self._reported(rank)
        return (code if result is None else result.exit_code) == 0

    def _ended_at(self, rank: int) -> float:
        """When it wrote its result: consequences come later than causes."""
        with contextlib.suppress(OSError):
            return _result_file(self._workdir, rank).stat().st_mtime
        return time.time()

    def _result(self, rank: int) -> PhaseResult:
        result, code = self._reported(rank), self._processes()[rank].returncode
        if result is not None:
            return result
        if code == 0:
            return PhaseResult(phase=self._config.inputs.phase, key=self._config.key, outcome="committed")
        who = f"process {self._layout.node * self._layout.processes + rank} of {self._layout.size}"
        stopped = rank in self._stopped_ranks
        return root_cause.silent_end(self._config, who, code, peer_failed=stopped, asked=self._stop.requested)

    def _reported(self, rank: int) -> PhaseResult | None:
        try:
            return PhaseResult.model_validate_json(_result_file(self._workdir, rank).read_bytes())
        except (OSError, ValidationError):
            return None


class _Environment(DefaultLogsSpecs):
    """The environment of each rank beside torch's names; its output goes where the launcher's goes."""

    def __init__(self, layout: Layout, workdir: Path) -> None:
        super().__init__(log_dir=str(workdir))
        self._layout, self._workdir = layout, workdir

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        for rank, environment in envs.items():
            # For torch on the CPU, unless the pod says otherwise: then torch's agent has handed that on.
            environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // self._layout.processes)))
            environment |= rank_environment(
                parent=os.getpid(),
                workdir=str(self._workdir),
                result=str(_result_file(self._workdir, rank)),
            )
        return super().reify(envs)


def _result_file(workdir: Path, rank: int) -> Path:
    return workdir / f"result-{rank}.json"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
