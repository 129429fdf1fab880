"""A judge in a server: vLLM's, beside the trainer in its pod, or started here (spec.verifier.server).

Answers travel as token ids, encoded as `encoding` does it, so that neither the server's tokenizer nor its chat template
has a say; what comes back is the one output of the score head, without an activation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from selfevo_contract.errors import InputError, SelfevoError
from selfevo_contract.phases import PHASES, Loading
from selfevo_contract.process import SERVER_URL_ENV
from selfevo_contract.spec.judge_server import JudgeServer
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.endpoints.client import BadAnswer, Client, Words
from selfevo_trainer.endpoints.in_parallel import in_parallel
from selfevo_trainer.engines.server_engine import TOO_LONG, never_ready
from selfevo_trainer.engines.vllm_command import ServedModel
from selfevo_trainer.engines.vllm_server import JUDGE_WORDS, VllmServers, served_at
from selfevo_trainer.inputs.judge_files import JudgeFiles, served_judge
from selfevo_trainer.judges.encoding import Encoder
from selfevo_trainer.judges.scalar import not_a_number
from selfevo_trainer.models.loading import load_tokenizer

FIELD = "spec.verifier.server"
ROWS = 16
"""Answers in one request."""
AT_ONCE = 16
"""Requests under way at each server, of one trainer process."""
_URLS = "judge-server"
"""The file in which the process that starts servers writes where they are."""
_BESIDE, _OURS = "the server beside the trainer", "the judge's server that this process started"
_WORDS = Words(timeout=f"{FIELD}.requestTimeout", patience=f"or raise {FIELD}.startupSeconds")


class ServedJudge:
    """See `Judge`. A client of servers that all serve ``model``."""

    def __init__(
        self,
        client: Client,
        model: ServedModel,
        digest: str,
        *,
        replicas: int = 1,
        servers: VllmServers | None = None,
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``interruptible``: the server is waited for within it."""
        tokenizer = load_tokenizer(model.path, model.loading)
        self.digest = digest
        self._client, self._model, self._servers, self._interruptible = client, model.name, servers, interruptible
        self.replicas, self._at_once = replicas, AT_ONCE * replicas
        self._encode, self._pad = Encoder(tokenizer, model.longest), tokenizer.pad_token_id

    @classmethod
    def open(
        cls, context: Context, settings: JudgeServer, files: JudgeFiles, loading: Loading, longest: int
    ) -> ServedJudge:
        """The judge in ``files``; it waits until the server is ready.

        Raises:
            InputError: the server serves something else, or cannot serve this.
            ServiceError: it does not become ready.
        """
        model = served_judge(files, loading, longest)
        servers: VllmServers | None = None
        name, beside = _BESIDE, os.environ.get(SERVER_URL_ENV, "")
        try:
            if beside:
                with closing(_client(settings, name, [beside])) as front:
                    urls = front.ask(
                        "/v1/models", None, lambda answer: _beside(answer, model.name), refused=never_ready
                    )
            else:
                name = _OURS
                urls, servers = _ours(context, settings, model)
            client = _client(settings, name, urls, servers)
            return cls(
                client,
                model,
                files.digest,
                replicas=len(urls),
                servers=servers,
                # Several processes agree before they end: others wait for this one's scores.
                interruptible=lambda: nullcontext() if collective.grouped() else context.stop.raised(),
            )
        except BaseException:
            if servers is not None:
                servers.close()
            raise

    def score(self, tasks: Sequence[str], answers: Sequence[str], *, server: int | None = None) -> list[float]:
        """See `Judge.score`.

        Args:
            server: which of them is asked; all in turn when it is None.

        Raises:
            InputError: a score is no number; the server has no room for an answer, or refuses what it is asked.
            ServiceError: the server does not answer.
        """
        rows = [self._row(task, answer) for task, answer in zip(tasks, answers, strict=True)]
        parts = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]

        def ask(number: int) -> list[float]:
            return self._ask(number if server is None else server, parts[number])

        with self._interruptible():
            found = in_parallel(ask, len(parts), self._at_once)
        return [score for part in found for score in part]

    def _row(self, task: str, answer: str) -> list[int]:
        """The tokens up to the one whose hidden state transformers' classifiers score: the last that is no padding.
        vLLM scores the last of all, and a tokenizer may be padded with the token that ends an answer."""
        row = self._encode(task, answer)
        while len(row) > 1 and row[-1] == self._pad:
            row.pop()
        return row

    def _ask(self, number: int, rows: Sequence[Sequence[int]]) -> list[float]:
        body = {"model": self._model, "input": rows, "use_activation": False, "add_special_tokens": False}
        return self._client.ask(
            "/classify",
            body,
            lambda answer: _scores(answer, len(rows)),
            number=number,
            refused=lambda status, text: _refused(status, text, max(map(len, rows))),
        )

    def close(self) -> None:
        """Ask no more; end the server if it was started here."""
        self._client.close()
        if self._servers is not None:
            self._servers.close()


def _client(settings: JudgeServer, name: str, urls: Sequence[str], servers: VllmServers | None = None) -> Client:
    return Client(
        name,
        urls,
        timeout=settings.request_timeout,
        patience=settings.startup_seconds,
        check_alive=(lambda: None) if servers is None else servers.check,
        words=_WORDS,
    )


def _ours(context: Context, settings: JudgeServer, model: ServedModel) -> tuple[list[str], VllmServers | None]:
    """Addresses of servers that one of this machine's processes has started; and the servers, in that process."""
    if context.rank.size == 1:
        servers = _started(context, settings, model)
        return servers.urls_of(model.name), servers
    mine: list[VllmServers] = []

    def start(file: Path) -> Path:
        mine.append(_started(context, settings, model))
        file.write_text("\n".join(mine[0].urls_of(model.name)))
        return file

    # The others read a file: those of a training on GPUs have no group yet.
    urls = context.once_per_pod(_URLS, start).read_text().split()
    return urls, mine[0] if mine else None


def _started(context: Context, settings: JudgeServer, model: ServedModel) -> VllmServers:
    """Servers here, on the machine's last GPUs but for those of the phase's other servers.

    Raises:
        InputError: there are not as many beside those that other models are on.
    """
    config, count, own = context.config, torch.cuda.device_count(), settings.engine.gpus_in_all
    before = config.gpus_of_servers(before="judge") if count else 0
    asks_only = config.frozen_server is not None and not PHASES[config.inputs.phase].distributed
    here = int(os.environ.get("LOCAL_WORLD_SIZE", context.rank.size))
    used = before + (0 if asks_only else here)
    if count and own and used + own > count:
        raise InputError(
            f"{FIELD} asks for {own} GPUs (gpus x replicas) beside the {used} of this machine that other models are "
            f"on, and there are {count} here; remove {FIELD}, or take a machine with more"
        )
    servers = VllmServers.start(settings.engine, model, JUDGE_WORDS, before=before)
    try:
        servers.wait()
    except BaseException:
        servers.close()
        raise
    return servers


def _beside(answer: Any, name: str) -> list[str]:
    urls = served_at(answer, name)
    if not urls:
        raise InputError(f"{_BESIDE} does not serve {name}; start it with the trainer's own settings")
    return urls


def _scores(answer: Any, count: int) -> list[float]:
    """One number for each of ``count`` rows, in order."""
    data = answer.get("data") if isinstance(answer, dict) else None
    try:
        outputs = {each["index"]: [float(of) for of in each["probs"]] for each in data or []}
        found = [score for number in range(count) for [score] in [outputs[number]]]
    except (KeyError, TypeError, ValueError):
        raise BadAnswer("gave an answer without one score for each row") from None
    if not all(map(math.isfinite, found)):
        raise not_a_number()
    return found


def _refused(status: int, text: str, longest: int) -> SelfevoError | None:
    if "Out of range float" in text:  # JSON has no NaN
        return not_a_number()
    if status in (400, 413, 422) and any(words in text for words in TOO_LONG):
        return InputError(
            f"the judge's server has no room for {longest} tokens of a task and its answer ({text}); lower "
            f"spec.verifier.maxLength, or remove {FIELD}"
        )
    return None
