"""The policy's own generation by a vLLM server beside the trainer: TRL's vllm_mode="server".

TRL gathers the weights, one at a time also where they are sharded, and its client sends them by vLLM's weight transfer
before a step's completions are drawn. What is ours: each process asks the server for its own completions, one a
request with a seed of its own, so that they are those of the mode colocate and of a repeated training; and what happens
when the server is gone (`weight_sync`).
"""

from __future__ import annotations

import os
import resource
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from trl.generation.vllm_generation import VLLMGeneration

from selfevo_contract import reasons
from selfevo_contract.errors import DataError, InputError, SelfevoError, ServiceError
from selfevo_contract.phases import GrpoInputs
from selfevo_contract.process import SERVER_URL_ENV
from selfevo_contract.spec.engines import ServerEngine
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.endpoints.client import BadAnswer, Client, Words
from selfevo_trainer.endpoints.in_parallel import in_parallel
from selfevo_trainer.engines.drawing import stream, vllm_seed
from selfevo_trainer.engines.server_engine import never_ready
from selfevo_trainer.engines.vllm_command import ServedModel
from selfevo_trainer.engines.vllm_process import library
from selfevo_trainer.engines.vllm_server import POLICY, POLICY_WORDS, VllmServers, served_at
from selfevo_trainer.grpo import weight_sync

REQUEST_S = 7200.0
"""Most that a completion takes, the wait for a place at the server included."""
STEP_S = 24 * 3600.0
"""Most that the completions of a step take."""
PATIENCE_S = 5.0
"""How long a server may give no answer: one that began anew has lost the weights, so that it helps nobody to wait."""
AT_ONCE = 1024
"""Requests under way, of all processes together: vLLM lets those wait that it has no place for. A step of no more
completions is computed in the same batches each time, so that logits are rounded alike."""


class PolicyByServer(VLLMGeneration):
    """TRL's client side of the server, in one training process."""

    def __init__(self, context: Context, trainer: Any, inputs: GrpoInputs, longest_prompt: int) -> None:
        self._context, self._trainer, self._inputs = context, trainer, inputs
        self._servers: VllmServers | None = None
        self._sender: weight_sync.PolicyClient | None = None
        self._room = longest_prompt + inputs.grpo.max_completion_length
        self._sent = 0
        super().__init__(trainer.model, trainer.accelerator, trainer.processing_class, mode="server")

    def _init_vllm(self) -> None:
        library("grpo.generation")
        _more_files()
        url = ""
        try:
            if self._context.rank.first:
                url = self._started() if not (beside := os.environ.get(SERVER_URL_ENV)) else self._beside(beside)
                self.vllm_client = self._sender = client = weight_sync.PolicyClient(url)
                if client.longest() < self._room:
                    raise InputError(
                        f"the server of the policy has room for {client.longest()} tokens of a prompt and its "
                        f"completion, and {self._room} are needed; lower grpo.maxCompletionLength, or give "
                        f"it more or larger GPUs ({POLICY_WORDS.gpus})"
                    )
                with self._context.stop.deferred(), self._watched():
                    client.init_communicator(device=self.accelerator.device)
            self._url, self._name = collective.broadcast((url, secrets.token_hex(4)))
        except BaseException:
            self.close()
            raise
        self._client = Client(
            "the server of the policy",
            [self._url],
            timeout=REQUEST_S,
            patience=PATIENCE_S,
            words=Words(timeout=f"{REQUEST_S:.0f} s", patience=f"and try again: {weight_sync.AGAIN}"),
        )

    def _started(self) -> str:
        """Start a server here, on the machine's last GPUs but for those of a frozen model's; its address."""
        settings, config, on_gpus = self._settings(), self._context.config, torch.cuda.is_available()
        before = config.gpus_of_servers(before="policy") if on_gpus else 0
        others = config.gpus_of_servers() - settings.gpus_in_all if on_gpus else 0
        check_gpus(settings, others + self._context.rank.size)
        model = ServedModel(
            name=POLICY,
            path=Path(str(self.model.name_or_path)),
            loading=self._inputs.loading,
            longest=self._room,
            trained=True,
        )
        self._servers = servers = VllmServers.start(settings, model, POLICY_WORDS, before=before)
        servers.wait()
        return servers.urls_of(POLICY)[0]

    def _beside(self, url: str) -> str:
        """The address of the server in the pod, once it is ready."""

        def find(answer: Any) -> str:
            if urls := served_at(answer, POLICY):
                return urls[0]
            raise InputError("the server beside the trainer serves no policy; start it with the trainer's own settings")

        patience = self._settings().startup_seconds
        client = Client("the server beside the trainer", [url], timeout=60, patience=patience)
        try:
            return client.ask("/v1/models", None, find, refused=never_ready)
        finally:
            client.close()

    def _settings(self) -> ServerEngine:
        settings = self._inputs.grpo.policy_server
        assert settings is not None
        return settings

    def _watched(self, limit_s: float = weight_sync.SYNC_S) -> Any:
        client, servers = self._sender, self._servers
        if client is None:
            return nullcontext()
        check_alive = (lambda: None) if servers is None else servers.check
        return weight_sync.watched(client, check_alive, weight_sync.ends_process(self._context.config), limit_s)

    def _iter_named_params(self) -> Iterator[tuple[str, torch.Tensor]]:
        """See VLLMGeneration; in the dtype that the server computes in: half of the bytes where that has 16 bits."""
        dtype = getattr(torch, self._inputs.loading.dtype)
        for name, parameter in super()._iter_named_params():  # type: ignore[no-untyped-call]
            yield name, parameter.to(dtype)

    def sync_weights(self) -> None:
        """See VLLMGeneration; the time counts as generation. A request to stop waits: the server would wait in vain for
        the rest."""
        stop = self._context.stop
        self._sent += 1
        if self._sender is not None:
            self._sender.version = self._version
        with self._context.clock.during("generation"):
            with stop.deferred(), self._watched():
                super().sync_weights()  # type: ignore[no-untyped-call]
            collective.wait_for_all()
        if not collective.grouped():
            with stop.raised():
                pass

    @property
    def _version(self) -> str:
        """The name of the weights that were sent last, the same in all processes."""
        return f"{self._name}-{self._sent}"

    def generate(
        self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[float]]], None]:
        """See VLLMGeneration.generate; a row for each completion of this process.

        A completion's random numbers belong to its number among all of the step, so that a resumed step draws the same.
        """
        seed, step = self._inputs.seed, self._trainer.state.global_step
        first = collective.rank() * len(prompts)
        at_once = max(1, AT_ONCE // self._context.rank.size)
        with self._context.clock.during("generation"), profiler or nullcontext():
            try:
                with self._watched(STEP_S), self._together(len(prompts) * self._context.rank.size):
                    made = in_parallel(
                        lambda row: self._complete(first + row, prompts[row], stream(seed, step, first + row)),
                        len(prompts),
                        at_once,
                    )
                weight_sync.check_version(self._url, self._version)
            except ServiceError:
                if self._servers is not None:
                    self._servers.check()  # which says how it ended
                raise
        tokens = [row for row, _ in made]
        self._context.clock.tokens += sum(map(len, tokens))
        return prompts, tokens, [[[each] for each in row] for _, row in made], None

    @contextmanager
    def _together(self, requests: int) -> Iterator[None]:
        """Within it so many requests are made by all processes, and the server begins with all of them at once."""
        if requests > AT_ONCE:
            yield
            return
        done = Event()
        if (sender := self._sender) is not None:
            sender.pause()
        collective.wait_for_all()
        if sender is not None:
            Thread(target=_resumed, args=(sender, requests, done), daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def _complete(self, number: int, ids: list[int], own: int) -> tuple[list[int], list[float]]:
        sampling = self._inputs.grpo.sampling
        body = {
            "model": POLICY,
            "prompt": ids,
            "max_tokens": sampling.max_completion_length,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop_token_ids": sorted(self.model.generation_config.eos_token_id),
            "seed": vllm_seed(own),
            "priority": number,
            "return_token_ids": True,
            "logprobs": 0,
        }
        return self._client.ask("/v1/completions", body, _completion, number=number, refused=_refused)

    def close(self) -> None:
        """Leave the server; end it if it was started here."""
        if self._sender is not None:
            self._sender.close_communicator()  # type: ignore[no-untyped-call]
            self._sender = None
        if self._servers is not None:
            self._servers.close()
            self._servers = None


def _resumed(sender: weight_sync.PolicyClient, requests: int, done: Event) -> None:
    with suppress(ServiceError):  # which those who wait for their answers find, too
        sender.resume_when(requests, done)


def _more_files() -> None:
    """A connection is a file; many systems begin with 1024 for a process, and let it have more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * AT_ONCE if hard == resource.RLIM_INFINITY else min(4 * AT_ONCE, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_gpus(settings: ServerEngine, others: int) -> None:
    """Raises InputError when this machine has not the server's GPUs beside ``others``: NCCL takes none twice."""
    count = torch.cuda.device_count()
    if count and settings.gpus_of_replica + others > count:
        raise InputError(
            f"grpo.vllmMode is 'server', whose {settings.gpus_of_replica} GPUs (vllmTensorParallelSize) are beside "
            f"{others} that train or answer, and there are {count} here; choose vllmMode 'colocate', or a machine with "
            "more"
        )


def _completion(answer: Any) -> tuple[list[int], list[float]]:
    """Tokens and their log-probabilities."""
    try:
        [choice] = answer["choices"]
        tokens, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        if tokens and len(tokens) == len(logprobs):
            return [int(each) for each in tokens], [float(each) for each in logprobs]
    except (KeyError, TypeError, ValueError):
        pass
    raise BadAnswer("gave an answer without its tokens and their log-probabilities")


def _refused(status: int, text: str) -> SelfevoError | None:
    if "Out of range float" in text:  # JSON has no NaN
        return DataError(
            "the model in training computes NaN or infinity, from which nothing can be sampled; lower learningRate or "
            "set spec.model.dtype to float32 or bfloat16",
            reason=reasons.NOT_FINITE,
        )
    return None
