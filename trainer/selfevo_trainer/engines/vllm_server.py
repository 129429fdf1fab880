"""vLLM's own servers as children of this process: started, watched, their log kept, ended with us.

One server serves one model, or adapters with their base (vllm_command.py), on GPUs of its own; a replica is another one
of the same. Servers of several models share the GPUs of a replica.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from selfevo_contract.errors import InputError, SelfevoError, ServiceError
from selfevo_contract.process import PARENT_ENV, SERVER_TOKEN_ENV, Served
from selfevo_contract.spec.engines import ServerEngine
from selfevo_trainer.engines.base import Frozen
from selfevo_trainer.engines.vllm_command import HOST, ServedModel, command_of
from selfevo_trainer.engines.vllm_limits import ENVIRONMENT, MEMORY, OF_A_RANK, check_split
from selfevo_trainer.models.loading import load_config

NEVER_INPUT, NEVER_SERVICE = 422, 424
"""How the server beside the trainer answers when it will never be ready: the trainer ends, by exit code 2 or 3."""
GRACE_S = 30.0
"""From SIGTERM to SIGKILL."""
_TAIL = 200
"""Lines of a server's log that are searched for why it ended."""
_ENVIRONMENT = {
    **ENVIRONMENT,
    "HF_HUB_OFFLINE": "1",  # the model is here
}
_LACKING = (("architectures", "support"), ("does not support", "--runner"), ("There is no module or parameter named",))
"""Words of lines by which vLLM says that it has no such model, or none with such a head."""
_RAISED = re.compile(r"\b([A-Z]\w*(?:Error|Exception|Exit)): (.+)")


@dataclass(frozen=True)
class Words:
    """What sentences about a server call the settings that it is started by; an engine's, when not given."""

    asked: str = "engine.kind is 'server'"
    gpus: str = "engine.gpus"
    replicas: str = "engine.replicas"
    """Empty where there is one."""
    share: str = "engine.gpuMemoryUtilization"
    larger: str = "change that share, or give it more or larger GPUs (engine.gpus)"
    startup: str = "engine.startupSeconds {}"
    slow: str = "raise it, or look at the log of the container server"
    absent: str = "name a server that runs in engine.endpoint, or choose engine.kind 'transformers'"
    other: str = "choose engine.kind 'transformers'"


POLICY = "policy"
"""The name by which the policy in training is served."""
POLICY_WORDS = Words(
    asked="grpo.vllmMode is 'server'",
    gpus="grpo.vllmTensorParallelSize",
    replicas="",
    share="a share of each GPU of",
    startup="{} s",
    slow="look at its log",
    larger="give it more or larger GPUs (grpo.vllmTensorParallelSize)",
    absent="or choose grpo.generation 'transformers'",
    other="choose grpo.generation 'transformers'",
)

JUDGE_WORDS = Words(
    asked="spec.verifier.server is given",
    gpus="spec.verifier.server.gpus",
    replicas="spec.verifier.server.replicas",
    share="spec.verifier.server.gpuMemoryUtilization",
    larger="change that share, or give it more or larger GPUs (spec.verifier.server.gpus)",
    startup="spec.verifier.server.startupSeconds {}",
    absent="or remove spec.verifier.server",
    other="remove spec.verifier.server",
)
WORDS: Mapping[Served, Words] = {"frozen": Words(), "policy": POLICY_WORDS, "judge": JUDGE_WORDS}


def of_model(weights: Frozen) -> ServedModel:
    """What an engine is given, as a server is."""
    return ServedModel(name=weights.name, path=weights.path, loading=weights.loading, longest=weights.longest)


@dataclass
class _Server:
    """One process."""

    models: Sequence[ServedModel]
    url: str
    process: subprocess.Popen[str]
    tail: deque[str]
    reader: threading.Thread
    ready: bool = False


class VllmServers:
    """The servers of one pod."""

    def __init__(
        self,
        settings: ServerEngine,
        kinds: int,
        words: Words = Words(),
        *,
        before: int = 0,
        ports: Callable[[int], list[int]] | None = None,
    ) -> None:
        """
        Args:
            kinds: lists of models (`together`) that share the GPUs.
            before: GPUs of the machine's last that are other servers': these take those before them.
            ports: gives so many; those that are free when it is None.
        """
        self._settings, self._kinds, self._words, self._before = settings, kinds, words, before
        self._ports = ports or free_ports
        self._servers: list[_Server] = []
        self._begun = time.monotonic()

    @classmethod
    def start(
        cls, settings: ServerEngine, model: ServedModel, words: Words = Words(), *, before: int = 0
    ) -> VllmServers:
        """Those of ``model``."""
        servers = cls(settings, 1, words, before=before)
        servers.begin([model])
        return servers

    def begin(self, models: Sequence[ServedModel]) -> None:
        """Start the servers of ``models``, which are `together`, each on a port of its own. They are not ready yet.

        Raises:
            InputError: vLLM is not installed, there are fewer GPUs, the model cannot be split over as many, or an
                adapter has too large a rank.
        """
        if importlib.util.find_spec("vllm") is None:
            raise InputError(
                f"{self._words.asked}, and vLLM is not installed here; install selfevo[vllm], {self._words.absent}"
            )
        if not self._servers:
            self._begun = time.monotonic()
        model, share = models[0], self._settings.memory_share / self._kinds
        for replica, port in enumerate(self._ports(self._settings.replicas or 1)):
            devices = _devices(self._settings, replica, self._words, self._before)
            if len(devices) > 1:
                check_split(self._words.gpus, len(devices), load_config(model.path, model.loading).get_text_config())
            command = command_of(models, port, self._settings, len(devices), share)
            self._servers.append(_spawn(models, command, f"http://{HOST}:{port}", devices))

    def urls_of(self, name: str) -> list[str]:
        """Where the model is served."""
        return [server.url for server in self._servers if any(model.name == name for model in server.models)]

    def check(self) -> None:
        """Raises the error of a server that has ended."""
        for server in self._servers:
            code = server.process.poll()
            if code is not None:
                server.reader.join(timeout=10)
                raise ended(names_of(server.models), code, list(server.tail), self._settings, self._words)

    def ready(self) -> bool:
        """Whether all that were started answer."""
        for server in self._servers:
            if not server.ready:
                with contextlib.suppress(httpx.HTTPError):
                    answer = httpx.get(f"{server.url}/health", timeout=5, trust_env=False)
                    server.ready = answer.status_code == 200
        return all(server.ready for server in self._servers)

    def wait(self, report: Callable[[], None] = lambda: None, poll_s: float = 0.5) -> None:
        """Until all that were started answer; ``report`` is called at each poll.

        Raises:
            SelfevoError: one has ended, or there was none of its answers within the settings' startupSeconds.
        """
        while not self.ready():
            report()
            self.check()
            if time.monotonic() - self._begun > self._settings.startup_seconds:
                names = ", ".join(names_of(server.models) for server in self._servers if not server.ready)
                raise ServiceError(
                    f"the server of {names} was not ready within "
                    f"{self._words.startup.format(self._settings.startup_seconds)}; {self._words.slow}"
                )
            time.sleep(poll_s)

    def close(self) -> None:
        """End them, and wait until they have ended."""
        for server in self._servers:
            _signal(server.process, signal.SIGTERM)
        for server in self._servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(GRACE_S)
            _signal(server.process, signal.SIGKILL)  # its own children too, if it left some
            server.process.wait()
            server.reader.join(timeout=10)
        self._servers.clear()


def _devices(settings: ServerEngine, replica: int, words: Words = Words(), before: int = 0) -> list[str]:
    """The GPUs of a replica, the machine's last, for a trainer takes the first; none for a server on the processors.

    Raises:
        InputError: there are not as many.
    """
    import torch

    count = torch.cuda.device_count()
    if settings.gpus_of_replica == 0 or (settings.gpus is None and count == 0):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    all_of_them = named.split(",") if named else list(map(str, range(count)))
    wanted = settings.gpus_in_all
    if wanted + before > count:
        number = f"{words.gpus} {settings.gpus_of_replica}"
        if words.replicas:
            number += f" x {words.replicas} {settings.replicas or 1} are {wanted} GPUs"
        others = f" beside the {before} of other servers" if before else ""
        raise InputError(f"{number}{others}, and there are {count} here; lower them")
    first = count - before - wanted + replica * settings.gpus_of_replica
    return all_of_them[first : first + settings.gpus_of_replica]


def _spawn(models: Sequence[ServedModel], command: list[str], url: str, devices: list[str]) -> _Server:
    environment = {**os.environ, **_ENVIRONMENT, PARENT_ENV: str(os.getpid())}
    for name in (*OF_A_RANK, SERVER_TOKEN_ENV):
        environment.pop(name, None)
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if models[0].trained:
        environment["VLLM_SERVER_DEV_MODE"] = "1"  # else the paths by which weights arrive are not there
    print(f"{names_of(models)}: {' '.join(command)}", file=sys.stderr, flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "selfevo_trainer.process.tied", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=_TAIL)
    log = sys.stderr  # of now: a test may take another one's place

    def keep() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            with contextlib.suppress(OSError, ValueError):
                print(line, end="", file=log, flush=True)

    reader = threading.Thread(target=keep, daemon=True)
    reader.start()
    return _Server(models, url, process, tail, reader)


def served_at(answer: Any, name: str) -> list[str]:
    """Where the model ``name`` is served, in what `selfevo_trainer.serve` answers at /v1/models; empty where it is
    not."""
    listed = answer.get("data") if isinstance(answer, dict) else None
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, dict) and each.get("id") == name and isinstance(each.get("urls"), list):
            return [str(url) for url in each["urls"]]
    return []


def names_of(models: Sequence[ServedModel]) -> str:
    """What sentences call the models of a server."""
    return ", ".join(model.name for model in models)


def ended(names: str, code: int, tail: Sequence[str], settings: ServerEngine, words: Words = Words()) -> SelfevoError:
    """The error of the server of ``names`` that has ended with ``code`` and whose log ends with ``tail``. Pure."""
    raised = [found for line in tail if (found := _RAISED.search(line))]
    # The first that tells of a cause: what is raised because of it comes after.
    lines = [f"{found[1]}: {found[2]}" for found in raised] or [line for line in tail if line.strip()][-1:]
    memory = next((line for line in lines if any(word in line for word in MEMORY)), None)
    if memory is not None:
        return InputError(
            f"the memory is too small for a server of {names} with {words.share} {settings.memory_share:g} "
            f"({memory[:200]}); {words.larger}"
        )
    adapted = next((line for line in lines if "not support LoRA" in line), None)
    if adapted is not None:
        return InputError(f"vLLM does not compute adapters of the model {names} ({adapted[:200]}); {words.other}")
    architecture = next(
        (line for line in lines if any(all(part in line for part in parts) for parts in _LACKING)), None
    )
    if architecture is not None:
        return InputError(f"vLLM does not support the model {names} ({architecture[:200]}); {words.other}")
    why = f" ({lines[0][:200]})" if lines else ""
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return ServiceError(f"the server of {names} {how}{why}; its log above may say more")


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def free_ports(count: int) -> list[int]:
    """So many ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
