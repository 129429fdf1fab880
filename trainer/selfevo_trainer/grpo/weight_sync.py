"""TRL's client of the server that generates for the policy: how weights get there, and what happens when it is gone.

The weights go by NCCL from the first training process to the server's, which both wait in the same call: where one of
them is gone, the other would wait for it for ever, and so would who asks a server that is ending. So this process
watches the server meanwhile, and ends itself.
A server that began anew has lost the weights. So nothing of this is asked a second time, and each set of weights has a
name that the server is asked for.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from trl.generation.vllm_client import VLLMClient

from selfevo_contract import reasons
from selfevo_contract.errors import SelfevoError, ServiceError
from selfevo_contract.process import PhaseConfig
from selfevo_trainer.distributed import root_cause
from selfevo_trainer.endpoints.client import one_line
from selfevo_trainer.engines.vllm_command import HOST
from selfevo_trainer.engines.vllm_server import free_ports
from selfevo_trainer.process import progress

SYNC_S = 600.0
"""Most that weights take to get there: those of 8 billion parameters are 16 GB."""
NOTICE_S = 10.0
"""What a library has to notice by itself that the server is gone, before this process is ended."""
_POLL_S = 1.0
_SILENT = 5
"""Polls without an answer, after which the server is taken for gone."""
_ARRIVAL_S = 60.0
"""Most that the requests of a step take to arrive."""
_ADDRESS_ENV = "VLLM_HOST_IP"
AGAIN = "the next attempt begins with the last checkpoint"


def gone(why: str) -> ServiceError:
    """What to say of a server that ``why`` nothing more can be had of."""
    return ServiceError(f"the server of the policy {why}, and the weights that it was given are lost; {AGAIN}")


class PolicyClient(VLLMClient):
    """TRL's client of the server at ``url``, which is ready."""

    def __init__(self, url: str) -> None:
        self.failure: ServiceError | None = None
        self.version = ""
        """The name of the weights that are being sent."""
        super().__init__(base_url=url, group_port=free_ports(1)[0])

    def check_server(self, total_timeout: float = 0.0, retry_interval: float = 2.0) -> None:
        """TRL waits here until the server is ready, which it is. What asks is set up: without TRL's further attempts,
        which would do twice what cannot be, without a proxy, and without connections that the server may close while
        the weights are trained."""
        one_each = httpx.Limits(max_keepalive_connections=0)
        timeout = httpx.Timeout(SYNC_S, connect=10.0)
        self.session: Any = httpx.Client(trust_env=False, timeout=timeout, limits=one_each)

    def get_server_info(self) -> dict[str, Any]:
        """What TRL wants to know, of a server that was started by us. vLLM's own answer has the machine's packages in
        it, by a pip that an image may not have."""
        return {"weight_transfer_config": {"backend": "nccl"}}

    def init_communicator(self, device: Any = 0) -> None:
        """Join the group in which weights are sent. Who joins unpickles what others write there, so that it is open to
        this machine alone: TRL's client takes the machine's own address, unless vLLM's variable names one."""
        before = os.environ.get(_ADDRESS_ENV)
        os.environ[_ADDRESS_ENV] = HOST
        try:
            super().init_communicator(device)
        finally:
            os.environ.pop(_ADDRESS_ENV)
            if before is not None:
                os.environ[_ADDRESS_ENV] = before

    def _post(self, url: str, **kwargs: Any) -> dict[str, Any]:
        return self._asked("POST", url, **kwargs)

    def _get(self, url: str, **kwargs: Any) -> dict[str, Any]:
        return self._asked("GET", url, **kwargs)

    def _asked(self, method: str, url: str, **kwargs: Any) -> dict[str, Any]:
        try:
            answer: Any = self.session.request(method, url, **kwargs)
        except httpx.TransportError as error:
            self.failure = gone(f"does not answer ({one_line(str(error)) or type(error).__name__})")
            raise self.failure from None
        if answer.status_code != 200:
            self.failure = gone(f"answers {answer.status_code} ({one_line(answer.text)[:300]})")
            raise self.failure
        return dict(answer.json())

    def _finish_weight_update(self) -> None:
        self._post(f"{self.base_url}/finish_weight_update", json={"weight_version": self.version})

    def reset_prefix_cache(self) -> None:
        """Forget keys and values that the weights before made."""
        if not self._post(f"{self.base_url}/reset_prefix_cache").get("success"):
            raise gone("keeps what the weights before computed")

    def longest(self) -> int:
        """Most tokens of a prompt and its completion."""
        return int(self._get(f"{self.base_url}/v1/models")["data"][0]["max_model_len"])

    def pause(self) -> None:
        """Begin no request until `resume`."""
        self._post(f"{self.base_url}/pause", params={"mode": "keep"})

    def resume_when(self, requests: int, stop: threading.Event) -> None:
        """Begin with all requests once so many have arrived: which of them are computed together then depends on their
        numbers, and not on when they arrived. Where some do not come, with those that have."""
        begun, found = time.monotonic(), 0
        while found < requests and time.monotonic() - begun < _ARRIVAL_S and not stop.wait(0.02):
            found = int(self._get(f"{self.base_url}/load")["server_load"])
        for _ in range(2):  # what has arrived goes to the engine before these do
            self._get(f"{self.base_url}/is_paused")
        self._post(f"{self.base_url}/resume")


def check_version(url: str, wanted: str) -> None:
    """Raises ServiceError when the server at ``url`` has other weights than those that were sent last."""
    try:
        found = httpx.get(f"{url}/weight_info", trust_env=False, timeout=60).json()["weight_version"]
    except (httpx.TransportError, ValueError, KeyError) as error:
        raise gone(f"does not say which weights it has ({one_line(str(error)) or type(error).__name__})") from None
    if found != wanted:
        raise ServiceError(
            f"the server of the policy has the weights {found!r}, and {wanted!r} were sent: it began anew meanwhile; "
            f"{AGAIN}",
            reason=reasons.OTHER_WEIGHTS_SERVED,
        )


@contextlib.contextmanager
def watched(
    client: PolicyClient, check_alive: Callable[[], None], end: Callable[[SelfevoError], None], limit_s: float
) -> Iterator[None]:
    """Within it this process waits for the server: ``end`` is called when that is gone, and what runs inside does not
    notice.

    Args:
        check_alive: raises the error of a server that this process started and that has ended.
    """
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(client, check_alive, end, limit_s, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def _watch(
    client: PolicyClient,
    check_alive: Callable[[], None],
    end: Callable[[SelfevoError], None],
    limit_s: float,
    done: threading.Event,
) -> None:
    begun, silent = time.monotonic(), 0
    while not done.wait(_POLL_S):
        silent = 0 if _answers(client.base_url) else silent + 1
        error: SelfevoError | None = client.failure
        if error is None and silent >= _SILENT:
            error = gone("does not answer")
        if error is None and time.monotonic() - begun > limit_s:
            error = gone(f"was not done within {limit_s:.0f} s")
        try:
            check_alive()
        except SelfevoError as ended:
            error = ended
        if error is not None and not done.wait(NOTICE_S):
            end(error)
            return


def _answers(url: str) -> bool:
    """Whether the server is there; one that is too busy to say so is."""
    try:
        return httpx.get(f"{url}/health", trust_env=False, timeout=5).status_code == 200
    except httpx.ReadTimeout:
        return True
    except httpx.TransportError:
        return False


def ends_process(config: PhaseConfig) -> Callable[[SelfevoError], None]:
    """What `watched` takes to end this process: its main thread waits in NCCL, which nothing interrupts."""

    def end(error: SelfevoError) -> None:
        result = root_cause.failure(config, error.exit_code, error.reason, str(error))
        print(f"{result.phase}: {result.message}", file=sys.stderr, flush=True)
        progress.write_result(result)
        os._exit(result.exit_code)

    return end
