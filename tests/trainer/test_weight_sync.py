"""A policy's server that is gone while weights go to it, and machines that have not the GPUs for both."""

from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from harness.inprocess import process_state
from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.spec.engines import ServerEngine
from selfevo_trainer.process.clock import Clock
from selfevo_trainer.process.signals import Interrupted, StopRequest

pytestmark = pytest.mark.slow  # torch and TRL are a worker's first ten seconds


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server whose every answer has ``status``; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = b'{"weight_version": "abc-1"}'
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "failure", "alive", "limit_s", "says"),
    [
        (
            503,
            None,
            None,
            60,
            "the server of the policy does not answer, and the weights that it was given are lost; the",
        ),
        (200, "answers 500 (boom)", None, 60, "the server of the policy answers 500 (boom), and the weights that it"),
        (200, None, "the server of policy ended with code 9", 60, "the server of policy ended with code 9"),
        (200, None, None, 0, "the server of the policy was not done within 0 s, and the weights that it"),
    ],
)
def test_who_waits_for_a_server_that_is_gone_is_ended(
    monkeypatch: pytest.MonkeyPatch, status: int, failure: str | None, alive: str | None, limit_s: float, says: str
) -> None:
    from selfevo_trainer.grpo import weight_sync

    monkeypatch.setattr(weight_sync, "_POLL_S", 0.01)
    monkeypatch.setattr(weight_sync, "NOTICE_S", 0.01)
    ended: list[SelfevoError] = []
    seen = threading.Event()

    def end(error: SelfevoError) -> None:
        ended.append(error)
        seen.set()

    def check_alive() -> None:
        if alive:
            raise ServiceError(alive)

    with answering(status) as url:
        client: Any = SimpleNamespace(base_url=url, failure=failure and weight_sync.gone(failure))
        with weight_sync.watched(client, check_alive, end, limit_s):
            assert seen.wait(60)  # as NCCL does
    assert str(ended[0]).startswith(says) and ended[0].exit_code == 3


def test_a_server_that_is_well_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfevo_trainer.grpo import weight_sync

    monkeypatch.setattr(weight_sync, "_POLL_S", 0.01)
    ended: list[SelfevoError] = []
    polls = threading.Semaphore(0)
    with answering(200) as url:
        client: Any = SimpleNamespace(base_url=url, failure=None)
        with weight_sync.watched(client, polls.release, ended.append, 60):
            assert all(polls.acquire(timeout=60) for _ in range(3))
    assert ended == []


def test_other_weights_than_were_sent_are_noticed() -> None:
    from selfevo_trainer.grpo.weight_sync import check_version

    with answering(200) as url:
        check_version(url, "abc-1")
        with pytest.raises(
            ServiceError, match="has the weights 'abc-1', and 'abc-2' were sent: it began anew"
        ) as error:
            check_version(url, "abc-2")
    assert error.value.reason == "OtherWeightsServed"
    with pytest.raises(ServiceError, match="does not say which weights it has"):
        check_version(url, "abc-2")


def test_a_request_to_stop_waits_until_the_weights_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.generation.vllm_generation import VLLMGeneration

    from selfevo_trainer.grpo.vllm_served import PolicyByServer

    arrived = []

    def sent(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        arrived.append("weights")

    monkeypatch.setattr(VLLMGeneration, "sync_weights", sent)
    policy: Any = object.__new__(PolicyByServer)
    with process_state():
        stop = StopRequest.install()
        policy._context = SimpleNamespace(stop=stop, clock=Clock())
        policy._sent, policy._sender, policy._servers, policy._name = 0, None, None, "abc"
        with stop.deferred(), stop.raised(), pytest.raises(Interrupted):  # as a step is generated
            policy.sync_weights()
    assert arrived == ["weights"]
    assert policy._version == "abc-1"


def test_a_machine_without_gpus_for_both_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from selfevo_trainer.grpo.vllm_served import check_gpus

    server = ServerEngine.model_validate({"kind": "server"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_gpus(server, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        InputError, match=r"whose 1 GPUs .* are beside 1 that train or answer, and there are 1 here; ch"
    ):
        check_gpus(server, 1)


def test_an_answer_without_its_log_probabilities_is_of_no_use() -> None:
    from selfevo_trainer.endpoints.client import BadAnswer
    from selfevo_trainer.grpo.vllm_served import _completion, _refused

    def answer(tokens: Any, logprobs: Any) -> Any:
        return {"choices": [{"token_ids": tokens, "logprobs": {"token_logprobs": logprobs}}]}

    assert _completion(answer([5, 1], [-0.5, 0])) == ([5, 1], [-0.5, 0.0])
    useless: list[Any] = [{}, answer([5], []), answer([], []), answer(None, None), answer([5], [None]), {"choices": []}]
    for bad in useless:
        with pytest.raises(BadAnswer):
            _completion(bad)
    refused = _refused(500, "Out of range float values are not JSON compliant")
    assert refused is not None and refused.reason == "NotFinite"
    assert _refused(500, "another") is None
