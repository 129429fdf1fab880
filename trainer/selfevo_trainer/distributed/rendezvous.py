"""Where pods that train together meet: torch's static rendezvous, its TCPStore at pod 0, with what torch leaves out.

torch's rendezvous lets in whoever comes, blocks until all are there, and does not say that a pod has failed or is gone;
Kubernetes restarts a pod that failed and leaves the others alone, which then wait in a collective for what never comes.
So each pod's launcher keeps a watch over the store. Its keys:

    pod/K       id of the launcher that last came as pod K
    beat/ID     counts up for as long as that launcher lives
    go          the ids that train together: a launcher that is not among them waits for the next attempt
    alarm       a pod's ranks have failed: end yours
    end/K       how the ranks of pod K ended
    outcome     what pod 0 makes of it: which pod was the cause, or that all is well
    left/K      the launcher of pod K reads no more

A pod succeeds only when pod 0 has reported that the output is committed, for an index of the Job that has succeeded is
never run again and would be missing in the next attempt. Whoever can reach the port is trusted: keep strangers out with
a NetworkPolicy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from selfevo_contract import reasons
from selfevo_contract.errors import ExitCode, ServiceError
from selfevo_contract.process import JOIN_SECONDS_ENV, MASTER_ADDR_ENV, PhaseConfig, PhaseResult
from selfevo_trainer.distributed import root_cause
from selfevo_trainer.distributed.layout import Layout
from selfevo_trainer.process.signals import StopRequest

LOST_S = 45.0
"""A pod that is not heard of for so long is gone: the store does not say that a connection broke off."""
_TRY_AGAIN_S = 1.0
_REPORTED_S = 60.0
"""Between two lines of the log that say who is waited for."""
_RECHECK_S = 10.0
"""Between two checks whether the output is there, while pod 0 does not answer."""
_POLL_S = 0.2

Found = Callable[[], PhaseResult | None]
log = logging.getLogger("selfevo")


@contextlib.contextmanager
def meet(config: PhaseConfig, layout: Layout, found: Found) -> Iterator[Rendezvous | PhaseResult]:
    """Wait until all pods are there.

    Yields:
        the others; or the step's result, when it turned out that its output is there already.

    Raises:
        ServiceError: some did not come in time.
    """
    with contextlib.closing(Rendezvous(config, layout)) as rendezvous:
        if layout.node == 0:
            rendezvous.gather()
            yield rendezvous
        else:
            yield rendezvous.join(found) or rendezvous


class Rendezvous(StaticTCPRendezvous):
    """The other pods, as the launcher sees them; and the store at which all ranks meet, as the elastic agent does."""

    def __init__(self, config: PhaseConfig, layout: Layout) -> None:
        super().__init__(layout.master, layout.port, layout.node, layout.nodes, config.key[:16], int(layout.join_s))
        self._config, self._layout = config, layout
        self._id = uuid.uuid4().hex
        self._ids: list[str] = []
        self._alarmed = self._broken = self._closing = False
        self._outbox: deque[tuple[str, str]] = deque()
        self._beats: dict[str, tuple[int, float]] = {}
        self._ends: dict[int, tuple[PhaseResult, bool]] = {}
        """By pod, in order of arrival: how its ranks ended, and whether they were asked to."""
        self._outcome: tuple[int, PhaseResult] | None = None
        self._heard = time.monotonic()
        self._watch = threading.Thread(target=self._keep_watch, name="rendezvous", daemon=True)

    @property
    def failed(self) -> bool:
        """Another pod's ranks have failed, or it is gone."""
        return self._alarmed or self._broken or self._lost

    @property
    def _lost(self) -> bool:
        silent = self._broken or time.monotonic() - self._heard > LOST_S
        return self._layout.node > 0 and self._outcome is None and silent

    def alarm(self) -> None:
        """Tell the others that this pod's ranks are about to end, so that theirs do too."""
        self._outbox.append(("alarm", ""))

    def agree(self, mine: PhaseResult, stop: StopRequest, patience_s: float) -> PhaseResult:
        """What this pod ends with, now that its ranks have ended with ``mine``."""
        if self._layout.node == 0:
            return self._judge(mine, stop, patience_s)
        return self._await_outcome(mine, stop, patience_s)

    def close(self) -> None:
        """Leave; at pod 0 nothing listens any more."""
        self._closing = True
        if self._watch.is_alive():
            self._watch.join(_RECHECK_S)
        self._store = None

    # Pod 0.

    def gather(self) -> None:
        """Wait until all have joined, and tell them to go."""
        layout = self._layout
        try:
            port = layout.port if layout.nodes > 1 else 0
            self._store = TCPStore("localhost", port, None, True, self.timeout, wait_for_workers=False)
        except RuntimeError as error:
            raise ServiceError(
                f"port {layout.port}, at which pod 0 waits for the others, is not to be had: "
                f"{str(error).rpartition('message: ')[2]}; set MASTER_PORT to another",
                reason=reasons.PEERS_MISSING,
            ) from None
        self.master_port = self._store.port
        store, waiting = self._keys(), _Waiting(layout.join_s)
        others = range(1, layout.nodes)
        while missing := [str(node) for node in others if not self._here(store, node)]:
            names = ", ".join(missing)
            if waiting.over(f"pods {names} (of {layout.nodes})"):
                raise ServiceError(
                    f"{len(missing)} of {layout.nodes} pods did not join within {layout.join_s:g} s "
                    f"(missing: {names}); see whether they are scheduled, queue the run so "
                    f"that its pods start together (spec.queue), or raise pods.joinSeconds ({JOIN_SECONDS_ENV})",
                    reason=reasons.PEERS_MISSING,
                )
            time.sleep(_POLL_S)
        self._ids = [self._id, *(store.get(f"pod/{node}").decode() for node in others)]
        store.set("go", json.dumps(self._ids))
        if layout.nodes > 1:
            self._begin_watch()

    def _here(self, store: PrefixStore, node: int) -> bool:
        return store.check([f"pod/{node}"]) and self._beating(store, store.get(f"pod/{node}").decode())

    def _beating(self, store: PrefixStore, launcher: str) -> bool:
        count, now = store.add(f"beat/{launcher}", 0), time.monotonic()
        if launcher not in self._beats or self._beats[launcher][0] != count:
            self._beats[launcher] = (count, now)
        return now - self._beats[launcher][1] < LOST_S

    def _judge(self, mine: PhaseResult, stop: StopRequest, patience_s: float) -> PhaseResult:
        """What pod 0 has committed is committed; else the cause is searched for among all."""
        others, node, result = range(1, self._layout.nodes), 0, mine
        store = self._keys()
        if mine.exit_code != 0:
            self.alarm()
            _wait(lambda: len(self._ends) == len(others), patience_s)
            # What is heard of others before has happened before; of what says as little, theirs is the cause.
            failed = [(node, *end) for node, end in self._ends.items() if end[0].exit_code != 0]
            ends = [*failed, (0, mine, stop.requested)]
            node, result, _ = ends[root_cause.find([(result, asked) for _, result, asked in ends])]
        store.set("outcome", json.dumps({"result": result.wire(), "node": node}))
        _wait(lambda: all(self._gone(k) or store.check([f"left/{k}"]) for k in others), patience_s)
        return mine if mine.exit_code == 0 else self._own_or(mine, result, node)

    def _gone(self, node: int) -> bool:
        return node in self._ends and self._ends[node][0] == self._without_a_word()

    # The other pods.

    def join(self, found: Found) -> PhaseResult | None:
        """Wait until pod 0 says to go; or until the output is there."""
        layout = self._layout
        waiting, recheck_at = _Waiting(layout.join_s), time.monotonic() + _RECHECK_S
        why = "it does not answer"
        while not waiting.over(f"pod 0 at {layout.master}:{layout.port} ({why})"):
            try:
                socket.create_connection((layout.master, layout.port), timeout=_RECHECK_S).close()
                wait = timedelta(seconds=_RECHECK_S)
                self._store = TCPStore(layout.master, layout.port, None, False, wait, wait_for_workers=False)
                why = "others are missing"
                if self._let_in(self._keys(), waiting):
                    self._begin_watch()
                    return None
                why = why if waiting.over() else "it did not let this pod in"
            except (OSError, RuntimeError) as error:
                why = getattr(error, "strerror", None) or str(error).splitlines()[0]
            if time.monotonic() > recheck_at:
                # Pod 0 may be done: then it does not come again.
                recheck_at = time.monotonic() + _RECHECK_S
                result = found()
                if result is not None:
                    return result
            time.sleep(_TRY_AGAIN_S)
        raise ServiceError(
            f"pod 0 at {layout.master}:{layout.port} ({MASTER_ADDR_ENV}) did not begin within {layout.join_s:g} s "
            f"({why}); see whether all pods are scheduled, queue the run so that they start together (spec.queue), or "
            f"raise pods.joinSeconds ({JOIN_SECONDS_ENV})",
            reason=reasons.PEERS_MISSING,
        )

    def _let_in(self, store: PrefixStore, waiting: _Waiting) -> bool:
        store.set(f"pod/{self._layout.node}", self._id)
        while not store.check(["go"]):
            if waiting.over("the other pods; pod 0 is there"):
                return False
            store.add(f"beat/{self._id}", 1)
            time.sleep(_POLL_S)
        return self._id in json.loads(store.get("go"))

    def _await_outcome(self, mine: PhaseResult, stop: StopRequest, patience_s: float) -> PhaseResult:
        """Well ended is what pod 0 has committed, however long that takes."""
        self._outbox.append((f"end/{self._layout.node}", json.dumps({"result": mine.wire(), "asked": stop.requested})))
        until = time.monotonic() + patience_s
        while self._outcome is None and not self._lost:
            if mine.exit_code == 0 and not self.failed and stop.requested:
                return root_cause.failure(
                    self._config,
                    ExitCode.TERMINATED,
                    reasons.TERMINATED,
                    "stopped on request while pod 0 commits the output",
                )
            if (mine.exit_code != 0 or self.failed) and time.monotonic() > until:
                break
            time.sleep(_POLL_S)
        if self._outcome is not None:
            node, result = self._outcome
            return result if result.exit_code == 0 else self._own_or(mine, result, node)
        if mine.exit_code != 0 and root_cause.weight(mine, stop.requested) <= 2:
            return mine
        return root_cause.bystander(self._config, 0, self._without_a_word())

    # All.

    def _begin_watch(self) -> None:
        self._heard = time.monotonic()  # pod 0 has let this pod in, however long that was waited for
        self._watch.start()

    def _keep_watch(self) -> None:
        """Say and hear, in a thread of its own: the store of a machine that lost its power never answers."""
        store, node = self._keys(own_connection=True), self._layout.node
        try:
            while self._outcome is None and not (self._closing and not self._outbox):
                while self._outbox:
                    store.set(*self._outbox.popleft())
                store.add(f"beat/{self._id}", 1)
                self._alarmed = self._alarmed or store.check(["alarm"])
                if node == 0:
                    self._hear_ends(store)
                elif store.check(["outcome"]):
                    outcome = json.loads(store.get("outcome"))
                    self._outcome = outcome["node"], PhaseResult.model_validate(outcome["result"])
                    self._alarmed = self._alarmed or self._outcome[1].exit_code != 0
                self._heard = time.monotonic()
                time.sleep(_POLL_S)
            store.set(f"left/{node}", "")
        except (RuntimeError, ValueError):  # pod 0 is gone, or what it says is none of ours
            self._broken = True

    def _hear_ends(self, store: PrefixStore) -> None:
        for node, launcher in enumerate(self._ids):
            if node == 0 or node in self._ends:
                continue
            if store.check([f"end/{node}"]):
                end = json.loads(store.get(f"end/{node}"))
                self._ends[node] = PhaseResult.model_validate(end["result"]), end["asked"]
            elif not self._beating(store, launcher) or store.check([f"left/{node}"]):
                self._ends[node] = self._without_a_word(), False
            else:
                continue
            self._alarmed = self._alarmed or self._ends[node][0].exit_code != 0

    def _keys(self, own_connection: bool = False) -> PrefixStore:
        """Those of this step, divided over so many pods."""
        store: Any = self._store
        prefix = f"selfevo/{self._config.key}/{self._layout.nodes}"
        return PrefixStore(prefix, store.clone() if own_connection else store)

    def _without_a_word(self) -> PhaseResult:
        return root_cause.failure(self._config, ExitCode.SERVICE, reasons.PROCESS_LOST, "it is gone without a word")

    def _own_or(self, mine: PhaseResult, cause: PhaseResult, there: int) -> PhaseResult:
        alike = mine.exit_code == cause.exit_code == ExitCode.TERMINATED and mine.reason == cause.reason
        return mine if self._layout.node == there or alike else root_cause.bystander(self._config, there, cause)


class _Waiting:
    """For the other pods. It is silent for as long as pods take that are started together, then in the log."""

    def __init__(self, join_s: float) -> None:
        self._join_s, self._begun = join_s, time.monotonic()
        self._report_at = self._begun + _REPORTED_S

    def over(self, whom: str = "") -> bool:
        """Whether the time is up; ``whom``: who is missing."""
        now = time.monotonic()
        if whom and now > self._report_at:
            self._report_at = now + _REPORTED_S
            log.info("waiting for %s; %.0f s of %g (pods.joinSeconds)", whom, now - self._begun, self._join_s)
        return now > self._begun + self._join_s


def _wait(done: Callable[[], bool], patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while not done() and time.monotonic() < until:
        time.sleep(_POLL_S)
