"""What one trainer process gets as its input (PhaseConfig) and what it reports back (PhaseResult)."""

from __future__ import annotations

from itertools import takewhile
from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.artifacts import SCHEMA_VERSION, step_prefix
from selfevo_contract.base import Closed, Sha256, Wire
from selfevo_contract.phases import PHASES, BaseModelRef, Inputs, Phase
from selfevo_contract.plan import Step
from selfevo_contract.scores import SCORES
from selfevo_contract.spec.engines import Engine, ServerEngine, TransformersEngine
from selfevo_contract.spec.grpo import Grpo
from selfevo_contract.spec.judge_server import JudgeServer
from selfevo_contract.spec.names import Interval
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.storage import Storage
from selfevo_contract.spec.tracking import Tracker

Served = Literal["frozen", "policy", "judge"]
"""What servers beside a trainer serve: frozen models, the policy in training, the judge."""

CONFIG_ENV = "SELFEVO_PHASE_CONFIG"
"""Environment variable that holds a PhaseConfig as JSON."""
CONFIG_FILE_ENV = "SELFEVO_PHASE_CONFIG_FILE"
"""Environment variable that names a file with a PhaseConfig as JSON."""
SHARD_ENV = "JOB_COMPLETION_INDEX"
"""Set by an Indexed Job: the shard that this process makes."""
PROCESSES_ENV = "SELFEVO_PROCESSES"
"""Training processes that a pod starts, one a GPU; 1 when not set. All of them, and the one that the pod starts, are
`python -m selfevo_trainer`: the first one starts the others and speaks for them (docs/distributed.md)."""
NODES_ENV = "SELFEVO_NODES"
"""Pods that train together, 1 when not set."""
NODE_RANK_ENV = SHARD_ENV
"""Set by an Indexed Job: which of the pods that train together this is; 0 coordinates."""
MASTER_ADDR_ENV = "MASTER_ADDR"
"""Where pod 0 is reached; needed with more than one pod."""
MASTER_PORT_ENV = "MASTER_PORT"
MASTER_PORT_DEFAULT = 29500
"""Port at which pod 0 coordinates. torch's own rendezvous takes a free one."""
JOIN_SECONDS_ENV = "SELFEVO_JOIN_SECONDS"
"""How long pods that train together wait for each other."""
JOIN_SECONDS_DEFAULT = 1800
PROCESSES_MAX = 64
"""Most processes of a pod, and most pods."""
PARENT_ENV = "SELFEVO_PARENT_PID"
"""Process that started the phase on this machine: the phase ends when it is gone."""
PREFLIGHT_FILE_ENV = "SELFEVO_PREFLIGHT_FILE"
"""Names a file with a JSON list of inputs, those of the run's other phases: before it computes, a phase checks
whether its model can do what they will ask, too."""
RUN_ENV = "SELFEVO_RUN"
"""Holds the run that the phase is of, packed (`run_record.encoded_run`): the trainer leaves it in the store. Without it
none is left."""
SERVER_URL_ENV = "SELFEVO_SERVER_URL"
"""Where the server beside the trainer says what it serves, and where: ``http://127.0.0.1:8000``. Without it a trainer
whose engine is a server, or with a server for its judge, starts one itself."""
SERVER_TOKEN_ENV = "SELFEVO_SERVER_TOKEN"
"""The token that an endpoint asks for."""
ORACLE_TOKEN_ENV = "SELFEVO_ORACLE_TOKEN"
"""The token that the oracle's endpoint asks for."""
JUDGE_TOKEN_ENV = "SELFEVO_JUDGE_TOKEN"
"""The token that the endpoint of a judge with criteria asks for."""
PUBLISH_TOKEN_ENV = "SELFEVO_PUBLISH_TOKEN"
"""The hub's token, with which a Solver is published."""
SERVER_MODELS_ENV = "SELFEVO_SERVER_MODELS"
"""Folder of the models that the server beside the trainer serves; it leaves its log there, which the trainer keeps."""
SERVER_PORT_ENV = "SELFEVO_SERVER_PORT"
"""Where it listens."""
GRACE_SECONDS_ENV = "SELFEVO_GRACE_SECONDS"
"""How long the process has from SIGTERM to SIGKILL; as long as it takes when not set."""
WORKDIR_ENV = "SELFEVO_WORKDIR"
CACHE_ENV = "SELFEVO_CACHE_DIR"
TERMINATION_LOG_ENV = "SELFEVO_TERMINATION_LOG"
TERMINATION_LOG_DEFAULT = "/dev/termination-log"
TERMINATION_LOG_LIMIT = 4096
"""Bytes that Kubernetes keeps of a termination message."""


class PhaseConfig(Wire):
    """Everything that a trainer process needs to know."""

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    run: str
    """Name of the run, for logs."""
    namespace: str
    step: str
    """Name of the step, for logs."""
    iteration: int
    key: Sha256
    attempt: str = ""
    """Name of the Job or process, recorded in the manifest."""
    storage: Storage
    inputs: Inputs
    engine: Engine = TransformersEngine()
    checkpoint_every: Interval = "10m"
    base: BaseModelRef | None = None
    """The run's base model, where roles are adapters on it."""
    chunk_questions: Annotated[int, Field(ge=1)] | None = None
    """Of a phase that commits in chunks: questions in one."""
    tracking: list[Tracker] | None = None
    """Where it can be watched; left out where nowhere."""
    judge_server: JudgeServer | None = None
    """The server of the judge that scores in this phase; left out where the phase reads the judge itself, or asks
    none."""

    @property
    def frozen_server(self) -> ServerEngine | None:
        """The server of frozen models that is beside the trainer in its pod; None where there is none, and in a phase
        that asks no frozen model."""
        if not isinstance(self.engine, ServerEngine) or not PHASES[self.inputs.phase].generates:
            return None
        return self.engine if self.engine.endpoint is None else None

    @property
    def policy_server(self) -> ServerEngine | None:
        """The server of the policy in training; None where there is none."""
        grpo = getattr(self.inputs, "grpo", None)
        return grpo.policy_server if isinstance(grpo, Grpo) else None

    @property
    def servers(self) -> dict[Served, ServerEngine]:
        """Those beside the trainer in its pod, by what they serve. Each has GPUs of its own; on one machine the first
        ones take the last GPUs."""
        of_judge = None if self.judge_server is None else self.judge_server.engine
        kinds: dict[Served, ServerEngine | None] = {
            "frozen": self.frozen_server,
            "policy": self.policy_server,
            "judge": of_judge,
        }
        return {kind: server for kind, server in kinds.items() if server is not None}

    def gpus_of_servers(self, *, before: Served | None = None) -> int:
        """Of all servers; with ``before``, of those that take theirs before the one that serves that."""
        servers = self.servers.items()
        return sum(each.gpus_in_all for kind, each in takewhile(lambda item: item[0] != before, servers))

    @property
    def prefix(self) -> str:
        """Where the step's output lies, relative to storage.uri."""
        return step_prefix(self.namespace, self.inputs.phase, self.key)


class Progress(Wire):
    """One line of JSON on a trainer's standard output: how far it is. All else that it says goes to standard error."""

    event: Literal["progress"] = "progress"
    phase: Phase
    step: str
    """Name of the step."""
    doing: str
    """What it is doing, for people: ``training``, ``writing questions``, ..."""
    done: int = 0
    total: int = 0
    metrics: dict[str, float] = {}
    """Newest figures, e.g. {"reward": 0.41}."""
    tokens_per_second: float | None = None
    """Tokens that this process generates a second."""
    truncated_share: float | None = None
    """Share of its completions so far that ended at their limit."""
    seconds_left: float | None = None
    """Seconds until it is done, by its pace so far."""
    shard: int | None = None
    resumed_from: int | None = None


class PhaseResult(Wire):
    """The termination message: at most 4 KiB of JSON."""

    phase: Phase
    key: Sha256
    outcome: Literal["committed", "found", "shard", "failed", "terminated"]
    """`found`: the output was there already. `shard`: a shard is committed, others are missing."""
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    metrics: dict[str, float] = {}
    timings: dict[str, float] = {}
    resumed_from: int | None = None
    """Step of the checkpoint that the process went on from."""
    tokens: Annotated[int, Field(ge=0)] | None = None
    """Tokens that this process has generated, of one that ended well; with several processes in a pod, all of them."""

    def message_bytes(self) -> bytes:
        """JSON of at most TERMINATION_LOG_LIMIT bytes: first the message, then timings and metrics give way."""
        result = self
        ordered = sorted(self.metrics.items(), key=lambda item: _place(item[0]))
        steps: list[dict[str, object]] = [{}, {"message": self.message[:512]}, {"timings": {}}]
        steps += [{"metrics": dict(ordered[:count])} for count in (64, 48, 32, 24, 16, 8, 0)]
        for shorter in steps:
            result = result.model_copy(update=shorter)
            data = result.model_dump_json(by_alias=True, exclude_none=True).encode()
            if len(data) <= TERMINATION_LOG_LIMIT:
                return data
        result = result.model_copy(update={"message": "", "reason": self.reason[:64]})
        return result.model_dump_json(by_alias=True, exclude_none=True).encode()


def _place(name: str) -> tuple[int, int, str]:
    """Where a metric stands among those that may have to give way: totals, then scores of tasks, then the rest."""
    last = name.rpartition("/")[2]
    return name.count("/"), SCORES.index(last) if last in SCORES else len(SCORES), name


def part_of(spec: RunSpec, phase: Phase) -> Closed | None:
    """The part of the spec that says how ``phase`` runs: its engine, its pods, its checkpoints."""
    part: Closed | None = getattr(spec, PHASES[phase].part)
    return part


def phase_config(spec: RunSpec, run: str, namespace: str, step: Step, attempt: str = "") -> PhaseConfig:
    """The configuration of the process of ``step``. Pure."""
    role = part_of(spec, step.phase)
    return PhaseConfig(
        run=run,
        namespace=namespace,
        step=step.name,
        iteration=step.iteration,
        key=step.key,
        attempt=attempt,
        storage=spec.storage,
        inputs=step.inputs,
        engine=getattr(role, "engine", TransformersEngine()),
        checkpoint_every=getattr(role, "checkpoint_every", "10m"),
        base=BaseModelRef(uri=spec.model.uri, digest=spec.model.digest) if spec.has_adapters else None,
        chunk_questions=getattr(role, "chunk_questions", None),
        tracking=spec.tracking or None,
        judge_server=judge_server_of(spec, step),
    )


def judge_server_of(spec: RunSpec, step: Step) -> JudgeServer | None:
    """The server by which the judge scores in ``step``; None where there is none, or no judge."""
    asks = step.type.judged and getattr(step.inputs, "judge", None) is not None
    return spec.verifier.server if spec.verifier is not None and asks else None
