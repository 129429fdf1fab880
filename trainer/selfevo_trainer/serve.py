"""The server beside a trainer: ``python -m selfevo_trainer.serve``, and ``--fetch`` before it.

Both read the trainer's PhaseConfig for the models that its phase asks: frozen ones, with grpo.vllmMode server the
policy in training, whose weights the trainer sends, and with verifier.server the judge.

    --fetch     brings their files into SELFEVO_SERVER_MODELS and writes `FILE` there; it has the store's credentials
    (nothing)   starts vLLM's server for each of them, one after the other (adapters on one base have one together), and
                at SELFEVO_SERVER_PORT answers

        /live        200 as soon as this process runs
        /health      200 when all serve
        /v1/models   the same with each model's addresses (``urls``), at which the trainer asks from then on
                     503: not yet. 422 and 424: it never will, with why; the trainer ends with that, by exit code 2 or 3

A server that ends after all were ready ends this process, which Kubernetes starts again; the trainer waits meanwhile,
and finds it at the same addresses.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from selfevo_contract.errors import ExitCode, InputError, SelfevoError, ServiceError
from selfevo_contract.phases import PHASES
from selfevo_contract.process import SERVER_MODELS_ENV, SERVER_PORT_ENV, PhaseConfig
from selfevo_store import open_store
from selfevo_trainer.config import read_config
from selfevo_trainer.context import Context
from selfevo_trainer.engines.vllm_command import ServedModel, together
from selfevo_trainer.engines.vllm_server import (
    NEVER_INPUT,
    NEVER_SERVICE,
    POLICY,
    WORDS,
    VllmServers,
    free_ports,
)
from selfevo_trainer.inputs.frozen import name_of
from selfevo_trainer.inputs.judge_files import fetch_judge, served_judge
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.main import failure_of, log_to_stderr
from selfevo_trainer.models import adapters
from selfevo_trainer.process import kept_log, progress
from selfevo_trainer.process.quiet import quieten
from selfevo_trainer.process.signals import StopRequest, die_with_parent

FILE = "models.json"
"""What is to be served, in the folder of the models."""
PORTS = "ports"
"""At which ports vLLM listens, in the same folder."""
POLL_S = 0.5
_models = TypeAdapter(list[ServedModel])


def main() -> int:
    """Fetch, or serve until SIGTERM; returns the exit code."""
    with kept_log.listening(os.environ) as log:
        return _main(log)


def _main(log: kept_log.KeptLog) -> int:
    started = time.time()
    quieten()
    log_to_stderr(None)
    config: PhaseConfig | None = None
    file: kept_log.LogFile | None = None
    try:
        die_with_parent()
        stop = StopRequest.install()
        config = read_config()
        _check(config)
        folder = _folder()
        if sys.argv[1:] == ["--fetch"]:
            fetch(config, folder, stop, started)
            return 0
        file = kept_log.LogFile(log, folder, started)
        serve(config, folder, _port(), file)
    except BaseException as error:
        result = failure_of(config, error)
        print(f"serve: {result.message}", file=sys.stderr)
        if file is not None:
            file.write()
        progress.write_result(result)
        return result.exit_code
    return 0


def _check(config: PhaseConfig) -> None:
    if not config.servers:
        raise InputError(
            "neither engine nor grpo.vllmMode nor verifier.server asks for a server beside the trainer; start python "
            "-m selfevo_trainer in its place"
        )


def _folder() -> Path:
    named = os.environ.get(SERVER_MODELS_ENV)
    if not named:
        raise InputError(f"{SERVER_MODELS_ENV} is not set; name a folder for the models")
    return Path(named)


def _port() -> int:
    value = os.environ.get(SERVER_PORT_ENV, "")
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise InputError(f"{SERVER_PORT_ENV} is {value!r}; set it to a port")
    return int(value)


def fetch(config: PhaseConfig, folder: Path, stop: StopRequest, started: float) -> None:
    """Bring the models of ``config`` into ``folder``.

    Raises:
        InputError: there is no such model, or it is not one that we load.
        ServiceError: store or hub cannot be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    storage = config.storage
    cache = Context.cache_dir_from_env()
    store = open_store(
        storage.uri, endpoint=storage.endpoint, region=storage.region, require_conditional_put=False, cache_dir=cache
    )
    context = Context(config, store, stop, None, started, folder, cache)
    found: dict[str, ServedModel] = {}
    phase = PHASES[config.inputs.phase]
    for role, sampling in phase.generates if config.frozen_server is not None else ():
        ref = getattr(config.inputs, role)
        if ref is None:
            continue
        name, longest = name_of(ref), _longest(config, sampling)
        if name in found:  # one model in both roles
            longest = max(found[name].longest, longest) if found[name].longest and longest else 0
        path = fetch_model(context, ref, role)
        found[name] = ServedModel(name=name, path=path, loading=config.inputs.loading, longest=longest)
    if config.policy_server is not None:
        role = phase.models[0]
        # Of an adapter the base: the trainer sends it with the adapter merged.
        path = adapters.whole(fetch_model(context, getattr(config.inputs, role), role))
        loading = config.inputs.loading
        found[POLICY] = ServedModel(name=POLICY, path=path, loading=loading, longest=0, trained=True)
    if config.judge_server is not None:
        inputs: Any = config.inputs
        judge = served_judge(fetch_judge(context, inputs.judge), inputs.loading, inputs.judge_length)
        found[judge.name] = judge
    (folder / FILE).write_bytes(_models.dump_json(list(found.values()), by_alias=True))


def _longest(config: PhaseConfig, sampling: str) -> int:
    inputs: Any = config.inputs
    return inputs.max_prompt_length + getattr(inputs, sampling).max_completion_length if sampling else 0


@dataclass
class State:
    """What the front answers by; the main thread writes it."""

    ready: bool = False
    failed: SelfevoError | None = None
    urls: dict[str, list[str]] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and content for ``path``."""
        if path == "/live":
            return 200, {}
        if path not in ("/health", "/v1/models"):
            return 404, {"error": {"message": f"there is nothing at {path}"}}
        if self.failed is not None:
            status = NEVER_INPUT if self.failed.exit_code == ExitCode.INPUT else NEVER_SERVICE
            return status, {"error": {"message": str(self.failed)}}
        if not self.ready:
            return 503, {"error": {"message": "the model is being loaded"}}
        return 200, {"object": "list", "data": [{"id": name, "urls": urls} for name, urls in self.urls.items()]}


def _servers(
    config: PhaseConfig, models: Sequence[ServedModel], ports: Callable[[int], list[int]]
) -> Iterator[tuple[VllmServers, list[list[ServedModel]]]]:
    """The servers, not yet begun, and which of ``models`` each of them serves."""
    for kind, settings in config.servers.items():
        if own := together([model for model in models if model.kind == kind]):
            before = config.gpus_of_servers(before=kind)
            yield VllmServers(settings, len(own), WORDS[kind], before=before, ports=ports), own


class _Ports:
    """Ports that are the same in the next process of this container: the trainer asks there again. ``file`` has
    them."""

    def __init__(self, file: Path) -> None:
        self._file, self._given = file, 0
        with contextlib.suppress(OSError, ValueError):
            self._known = [int(port) for port in file.read_text().split()]
            return
        self._known = []

    def __call__(self, count: int) -> list[int]:
        """The next ``count``."""
        first, self._given = self._given, self._given + count
        self._known += free_ports(max(0, self._given - len(self._known)))
        self._file.write_text(" ".join(map(str, self._known)))
        return self._known[first : self._given]


def serve(config: PhaseConfig, folder: Path, port: int, log: kept_log.LogFile) -> None:
    """Serve the models in ``folder`` until SIGTERM; what is logged meanwhile is in ``log``, too.

    Raises:
        InputError: nothing has been fetched.
        ServiceError: a server has ended, after all were ready.
    """
    try:
        fetched = _models.validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError):
        raise InputError(f"{folder / FILE} is not there or is not ours; run it with --fetch first") from None
    state = State()
    kinds = list(_servers(config, fetched, _Ports(folder / PORTS)))
    with _front(state, port):
        try:
            try:
                for servers, own in kinds:
                    for models in own:  # the second measures what the first leaves of the memory
                        servers.begin(models)
                        servers.wait(log.write, POLL_S)
                        state.urls |= {model.name: servers.urls_of(model.name) for model in models}
                state.ready = True
            except SelfevoError as error:
                # Not the end of this process: it would be started again, and the trainer would never learn why.
                print(f"serve: {error}", file=sys.stderr, flush=True)
                log.write()  # the trainer ends once it knows
                state.failed = error
                for servers, _ in kinds:
                    servers.close()
            while True:
                time.sleep(POLL_S)
                log.write()
                for servers, _ in kinds:
                    servers.check()
        finally:
            state.ready = False
            for servers, _ in kinds:
                servers.close()


@contextlib.contextmanager
def _front(state: State, port: int) -> Iterator[None]:
    """What answers at ``port``: Kubernetes' probes come from outside of the pod's own addresses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = state.answer(self.path)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

        def server_bind(self) -> None:
            if self.address_family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    try:
        server = Server(("", port), Handler)
    except OSError as error:
        raise ServiceError(
            f"{SERVER_PORT_ENV} is {port}, where nothing can listen: {error.strerror}; free it"
        ) from None
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
