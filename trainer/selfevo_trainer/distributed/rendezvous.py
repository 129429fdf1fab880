"""Pods that train together: they wait for each other at the start, and end together.

Kubernetes restarts a pod that failed and leaves the others alone, which then wait in a collective for what never comes.
So each pod's launcher holds a connection to pod 0, which coordinates. One JSON object a line:

    pod k -> pod 0    {"join": {"node": k, "nodes": n, "key": ...}}
    pod 0 -> pod k    {"go": port of torch's rendezvous}       when all have joined
    either            {"end": true}                            end your processes, for one has failed
    pod k -> pod 0    {"ended": PhaseResult, "asked": ...}     how its processes ended
    pod 0 -> pod k    {"outcome": PhaseResult, "node": j}      what came of it: pod j was the cause, or all is well

A pod is successful only when pod 0 has said that the output is committed, for an index of the Job that has succeeded is
never run again and would be missing in the next attempt. A connection that breaks says that the pod is gone. Like
torch's own rendezvous this trusts whoever can reach the port: keep strangers out with a NetworkPolicy.
"""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from pydantic import ValidationError

from selfevo_contract import reasons
from selfevo_contract.errors import ExitCode, ServiceError
from selfevo_contract.process import JOIN_SECONDS_ENV, MASTER_ADDR_ENV, PhaseConfig, PhaseResult
from selfevo_trainer.distributed import root_cause
from selfevo_trainer.distributed.layout import Layout
from selfevo_trainer.process.signals import StopRequest

_LONGEST_LINE = 64 << 10
_TRY_AGAIN_S = 1.0
_LOOK_AGAIN_S = 10.0
"""Between two looks whether the output is there, while pod 0 does not answer."""
_LOOK_S = 0.1

log = logging.getLogger("selfevo")

Message = dict[str, Any]
Found = Callable[[], PhaseResult | None]


class Rendezvous(Protocol):
    """The other pods, as the launcher sees them."""

    port: int
    """Of torch's rendezvous."""
    ended: bool
    """Another pod's processes have failed, or it is gone."""

    def wait(self, seconds: float) -> None:
        """Let time pass, and hear what others say."""
        ...

    def alarm(self) -> None:
        """Tell the others that this pod's processes are about to end, so that theirs do too."""
        ...

    def agree(self, mine: PhaseResult, stop: StopRequest, patience_s: float) -> PhaseResult:
        """What this pod ends with, now that its processes have ended with ``mine``."""
        ...


@contextlib.contextmanager
def meet(config: PhaseConfig, layout: Layout, found: Found) -> Iterator[Rendezvous | PhaseResult]:
    """Wait until all pods are there.

    Yields:
        the others; or the step's result, when it turned out that its output is there already.

    Raises:
        ServiceError: some did not come in time.
    """
    if layout.nodes == 1:
        yield _Alone()
    elif layout.node == 0:
        with _Coordinator(config, layout) as coordinator:
            coordinator.gather()
            yield coordinator
    else:
        with _join(config, layout, found) as follower:
            yield follower


def free_port() -> int:
    """A port that nobody listens at now, for torch's rendezvous."""
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class _Alone:
    """There are no other pods."""

    def __init__(self) -> None:
        self.port = free_port()
        self.ended = False

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def alarm(self) -> None: ...

    def agree(self, mine: PhaseResult, stop: StopRequest, patience_s: float) -> PhaseResult:
        return mine


class _Line:
    """A connection over which objects go, one a line."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        # A machine that lost its power closes no connection: ask it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 15),
            ("TCP_KEEPINTVL", 5),
            ("TCP_KEEPCNT", 6),
            ("TCP_USER_TIMEOUT", 45000),
        ):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connection = connection
        self.open = True
        self._heard = b""

    def say(self, message: Message) -> None:
        """A few hundred bytes at a time when the other side reads: the kernel's buffer holds them."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> list[Message]:
        """What has arrived; ``open`` is false when no more will."""
        try:
            data = self.connection.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        if not data or len(self._heard) > _LONGEST_LINE:
            self.close()
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self.close()  # no launcher of ours
                break
            messages.append(message)
        return messages

    def close(self) -> None:
        self.open = False
        self.connection.close()


class _Coordinator:
    """Pod 0's side."""

    def __init__(self, config: PhaseConfig, layout: Layout) -> None:
        self.port = 0
        self.ended = False
        self._config = config
        self._layout = layout
        self._joined: dict[int, _Line] = {}
        self._results: list[tuple[int, PhaseResult, bool]] = []
        """Pod, how its processes ended, whether it was asked to: in order of arrival."""

    def __enter__(self) -> _Coordinator:
        try:
            self._server = socket.create_server(("", self._layout.port), backlog=128)
        except OSError as error:
            raise ServiceError(
                f"port {self._layout.port}, at which pod 0 waits for the others, is not to be had: {error.strerror}; "
                "set MASTER_PORT to another",
                reason=reasons.PEERS_MISSING,
            ) from None
        self._server.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        for line in self._joined.values():
            line.close()

    def gather(self) -> None:
        """Wait until all have joined, and tell them to go."""
        until = time.monotonic() + self._layout.join_s
        others = set(range(1, self._layout.nodes))
        while set(self._joined) != others:
            if time.monotonic() > until:
                missing = ", ".join(str(node) for node in sorted(others - set(self._joined)))
                raise ServiceError(
                    f"{len(others) - len(self._joined)} of {self._layout.nodes} pods did not join within "
                    f"{self._layout.join_s:g} s (missing: {missing}); see whether they are scheduled, queue the run so "
                    f"that its pods start together (spec.queue), or raise pods.joinSeconds ({JOIN_SECONDS_ENV})",
                    reason=reasons.PEERS_MISSING,
                )
            self._accept()
            self.wait(_LOOK_S)
            # Whoever went away while waiting may come again.
            self._joined = {node: line for node, line in self._joined.items() if line.open}
            self.ended, self._results = False, []
        self.port = free_port()
        self._say({"go": self.port})

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._server.accept()
                line = _Line(connection)
                node = self._greeted(line)
                if node is None:
                    line.close()
                else:
                    self._joined[node] = line

    def _greeted(self, line: _Line) -> int | None:
        """Which pod it is; None when it is none of ours, or one whose earlier attempt has not ended yet."""
        with selectors.DefaultSelector() as selector:
            selector.register(line.connection, selectors.EVENT_READ)
            messages = line.hear() if selector.select(_TRY_AGAIN_S) else []
        said = messages[0].get("join") if messages else None
        expected = {"nodes": self._layout.nodes, "key": self._config.key}
        if not isinstance(said, dict) or {name: said.get(name) for name in expected} != expected:
            log.warning("something that is no pod of this step connected to port %d", self._layout.port)
            return None
        node = said.get("node")
        if not isinstance(node, int) or not 0 < node < self._layout.nodes or node in self._joined:
            return None
        return node

    def wait(self, seconds: float) -> None:
        """See Rendezvous."""
        for node, line, messages in _listen(self._joined, seconds):
            for message in messages:
                self.ended = self.ended or "end" in message
                result = _result(message.get("ended"))
                if result is not None:
                    self._results.append((node, result, message.get("asked") is True))
                    self.ended = self.ended or result.exit_code != 0
            if not line.open and not self._has_ended(node):
                self.ended = True
                gone = root_cause.failure(
                    self._config, ExitCode.SERVICE, reasons.PROCESS_LOST, "it is gone without a word"
                )
                self._results.append((node, gone, False))

    def _has_ended(self, node: int) -> bool:
        return any(ended == node for ended, _, _ in self._results)

    def alarm(self) -> None:
        """See Rendezvous."""
        self._say({"end": True})

    def agree(self, mine: PhaseResult, stop: StopRequest, patience_s: float) -> PhaseResult:
        """See Rendezvous. What pod 0 has committed is committed; else the cause is looked for among all."""
        if mine.exit_code == 0:
            self._say({"outcome": mine.wire(), "node": 0})
            return mine
        self.alarm()
        until = time.monotonic() + patience_s
        while not all(self._has_ended(node) for node in self._joined) and time.monotonic() < until:
            self.wait(_LOOK_S)
        # What is heard of others before has happened before; of what says as little, theirs is the cause.
        ends = [end for end in (*self._results, (0, mine, stop.requested)) if end[1].exit_code != 0]
        node, result, _ = ends[root_cause.find([(result, asked) for _, result, asked in ends])]
        self._say({"outcome": result.wire(), "node": node})
        return _own_or(self._config, mine, 0, result, node)

    def _say(self, message: Message) -> None:
        for line in self._joined.values():
            line.say(message)


class _Follower:
    """Another pod's side."""

    def __init__(self, config: PhaseConfig, layout: Layout, line: _Line) -> None:
        self.port = 0
        self.ended = False
        self._config = config
        self._node = layout.node
        self._line = line
        self._outcome: tuple[int, PhaseResult] | None = None

    def wait(self, seconds: float) -> None:
        """See Rendezvous."""
        if not self._line.open:
            time.sleep(seconds)
            return
        for _, line, messages in _listen({0: self._line}, seconds):
            for message in messages:
                port, node, result = message.get("go"), message.get("node"), _result(message.get("outcome"))
                if isinstance(port, int):
                    self.port = port
                self.ended = self.ended or "end" in message
                if result is not None and isinstance(node, int):
                    self._outcome = (node, result)
                    self.ended = self.ended or result.exit_code != 0
            if not line.open and self._outcome is None:
                self.ended = True

    def alarm(self) -> None:
        """See Rendezvous."""
        self._line.say({"end": True})

    def agree(self, mine: PhaseResult, stop: StopRequest, patience_s: float) -> PhaseResult:
        """See Rendezvous. Well ended is what pod 0 has committed, however long that takes."""
        self._line.say({"ended": mine.wire(), "asked": stop.requested})
        until = time.monotonic() + patience_s
        while self._outcome is None and self._line.open:
            if mine.exit_code == 0 and not self.ended and stop.requested:
                return root_cause.failure(
                    self._config,
                    ExitCode.TERMINATED,
                    reasons.TERMINATED,
                    "stopped on request while pod 0 commits the output",
                )
            if (mine.exit_code != 0 or self.ended) and time.monotonic() > until:
                break
            self.wait(_LOOK_S)
        if self._outcome is not None:
            node, result = self._outcome
            return result if result.exit_code == 0 else _own_or(self._config, mine, self._node, result, node)
        if mine.exit_code != 0 and root_cause.weight(mine, stop.requested) <= 2:
            return mine
        gone = root_cause.failure(self._config, ExitCode.SERVICE, reasons.PROCESS_LOST, "it is gone without a word")
        return root_cause.bystander(self._config, 0, gone)


def _own_or(config: PhaseConfig, mine: PhaseResult, here: int, cause: PhaseResult, there: int) -> PhaseResult:
    if here == there or (mine.exit_code == cause.exit_code == ExitCode.TERMINATED and mine.reason == cause.reason):
        return mine
    return root_cause.bystander(config, there, cause)


@contextlib.contextmanager
def _join(config: PhaseConfig, layout: Layout, found: Found) -> Iterator[Rendezvous | PhaseResult]:
    until = time.monotonic() + layout.join_s
    look_again = time.monotonic() + _LOOK_AGAIN_S
    why = "it does not answer"
    while time.monotonic() < until:
        try:
            connection = socket.create_connection((layout.master, layout.port), timeout=_LOOK_AGAIN_S)
        except OSError as error:
            why = error.strerror or str(error)
        else:
            line = _Line(connection)
            try:
                follower = _Follower(config, layout, line)
                line.say({"join": {"node": layout.node, "nodes": layout.nodes, "key": config.key}})
                while not follower.port and line.open and time.monotonic() < until:
                    follower.wait(_LOOK_S)
                if follower.port:
                    yield follower
                    return
                why = "it did not let this pod in" if not line.open else "others are missing"
            finally:
                line.close()
        if time.monotonic() > look_again:
            # Pod 0 may be done: then it does not come again.
            look_again = time.monotonic() + _LOOK_AGAIN_S
            result = found()
            if result is not None:
                yield result
                return
        time.sleep(_TRY_AGAIN_S)
    raise ServiceError(
        f"pod 0 at {layout.master}:{layout.port} ({MASTER_ADDR_ENV}) did not begin within {layout.join_s:g} s ({why}); "
        f"see whether all pods are scheduled, queue the run so that they start together (spec.queue), or raise "
        f"pods.joinSeconds ({JOIN_SECONDS_ENV})",
        reason=reasons.PEERS_MISSING,
    )


def _listen(lines: dict[int, _Line], seconds: float) -> Iterator[tuple[int, _Line, list[Message]]]:
    with selectors.DefaultSelector() as selector:
        for node, line in lines.items():
            if line.open:
                selector.register(line.connection, selectors.EVENT_READ, node)
        for key, _ in selector.select(seconds):
            yield key.data, lines[key.data], lines[key.data].hear()


def _result(content: object) -> PhaseResult | None:
    try:
        return None if content is None else PhaseResult.model_validate(content)
    except ValidationError:
        return None
