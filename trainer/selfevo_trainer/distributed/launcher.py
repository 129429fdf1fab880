"""Several training processes in one pod: started, watched and ended together, with one result for all.

torch's own launcher ends with code 1 whatever its processes ended with; here the exit codes are a contract
(docs/design.md, decision 7), so the process that the pod starts is the launcher itself. It imports no torch.

    SIGTERM           goes to all processes; they agree on the step after which they stop (grpo.py)
    one fails         the others are told to end, and killed when they do not: what they wait for never comes
    the launcher dies the kernel tells its processes (signals.die_with_parent); in a container they die with it
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from selfevo_contract.process import PhaseConfig, PhaseResult
from selfevo_trainer.distributed import root_cause
from selfevo_trainer.distributed.layout import Layout, rank_environment
from selfevo_trainer.distributed.rendezvous import Rendezvous, meet
from selfevo_trainer.process.signals import StopRequest

COMMAND = (sys.executable, "-m", "selfevo_trainer")
GRACE_S = 30.0
"""What a process gets to end after another has failed."""
_LOOK_S = 0.1


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
            mine = _run(config, layout, workdir, stop, rendezvous, command, grace_s)
            return rendezvous.agree(mine, stop, patience_s=2 * grace_s)


def _run(
    config: PhaseConfig,
    layout: Layout,
    workdir: Path,
    stop: StopRequest,
    rendezvous: Rendezvous,
    command: Sequence[str],
    grace_s: float,
) -> PhaseResult:
    ranks = [
        _RankProcess(config, layout, local, rendezvous.port, workdir, command) for local in range(layout.processes)
    ]
    try:
        ending: float | None = None
        while any(rank.alive() for rank in ranks):
            if stop.requested:
                _tell(ranks, because_of_failure=False)
            done = layout.node == 0 and not ranks[0].alive() and ranks[0].succeeded()
            if ending is None and (done or rendezvous.ended or any(rank.failed() for rank in ranks)):
                ending = time.monotonic() + grace_s
                if not done:
                    rendezvous.alarm()
                    _tell(ranks, because_of_failure=True)
            if ending is not None and time.monotonic() > ending:
                _kill(ranks)
            rendezvous.wait(_LOOK_S)
    finally:
        _kill(ranks)
    if layout.node == 0 and ranks[0].succeeded():
        return ranks[0].result(asked=stop.requested)  # the output is committed, whatever another did at its end
    ends = sorted((rank for rank in ranks if not rank.succeeded()), key=lambda rank: rank.ended_at)
    if not ends:
        return ranks[0].result(asked=stop.requested)
    results = [(rank.result(asked=stop.requested), stop.requested) for rank in ends]
    return results[root_cause.find(results)][0]


def _tell(ranks: Sequence[_RankProcess], *, because_of_failure: bool) -> None:
    for rank in ranks:
        rank.tell(because_of_failure)


def _kill(ranks: Sequence[_RankProcess]) -> None:
    for rank in ranks:
        rank.kill()


class _RankProcess:
    """One training process."""

    def __init__(
        self, config: PhaseConfig, layout: Layout, local: int, port: int, workdir: Path, command: Sequence[str]
    ) -> None:
        self._config = config
        self._who = f"process {layout.node * layout.processes + local} of {layout.size}"
        self._file = workdir / f"result-{local}.json"
        self._told = self._told_of_failure = False
        self._seen_dead = 0.0
        threads = max(1, _cores() // layout.processes)
        own = rank_environment(
            layout,
            local,
            port=port,
            threads=threads,
            parent=os.getpid(),
            workdir=str(workdir),
            result=str(self._file),
        )
        if "OMP_NUM_THREADS" in os.environ:
            del own["OMP_NUM_THREADS"]
        self._process = subprocess.Popen(list(command), env={**os.environ, **own}, stdin=subprocess.DEVNULL)

    def alive(self) -> bool:
        if self._process.poll() is None:
            return True
        self._seen_dead = self._seen_dead or time.time()
        return False

    def tell(self, because_of_failure: bool) -> None:
        """SIGTERM, once."""
        if self._told or not self.alive():
            return
        self._told, self._told_of_failure = True, because_of_failure
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.alive():
            self._told_of_failure = True
            self._process.kill()
            self._process.wait()

    def failed(self) -> bool:
        return not self.alive() and not self.succeeded()

    def succeeded(self) -> bool:
        """Its result says so; where there is none (a full disk), its exit code."""
        said = self._said()
        return not self.alive() and (self._process.returncode if said is None else said.exit_code) == 0

    @property
    def ended_at(self) -> float:
        """When it said its result, or else was seen to be dead: consequences come later than causes."""
        with contextlib.suppress(OSError):
            return self._file.stat().st_mtime
        return self._seen_dead

    def result(self, *, asked: bool) -> PhaseResult:
        said = self._said()
        if said is not None:
            return said
        code = self._process.returncode
        if code == 0:
            phase = self._config.inputs.phase
            return PhaseResult(phase=phase, key=self._config.key, outcome="committed")
        return root_cause.silent_end(self._config, self._who, code, told=self._told_of_failure, asked=asked)

    def _said(self) -> PhaseResult | None:
        try:
            return PhaseResult.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
