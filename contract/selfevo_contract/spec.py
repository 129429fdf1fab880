"""``spec`` of a SelfEvolutionRun: what a person writes. Every field has a default, a bound and a description."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from selfevo_contract.base import Closed, Sha256, Whole
from selfevo_contract.grpo import ChallengerGrpo, Grpo, Sampling
from selfevo_contract.parts import Budget, Finetune, ForkFrom, Guards, LabelName, Name, Pods, Verifier
from selfevo_contract.rules import Keyed, Rule, form
from selfevo_contract.uris import Endpoint, ModelUri, StoreUri

StopToken = Annotated[str, Field(min_length=1, max_length=256)]


class Model(Closed):
    """The base model: both roles start from it, each with weights of its own."""

    uri: ModelUri
    """Where it lies: hf://owner/model@revision, s3://bucket/prefix, file:///path, or file:path beside the manifest."""
    digest: Sha256 | None = None
    """sha256 over the model's files (`selfevo artifacts digest`); when given it is checked, and it identifies the
    model in place of the URI, so that the same weights at another place share every step."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of the weights in training and generation."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings along."""
    stop_tokens: Annotated[list[StopToken], Field(max_length=16)] | None = None
    """Tokens that end an answer beside those that the model declares, in training, rollout and evaluation. When not
    given, the chat template's end of turn where that is one token: base models often declare the end of a document
    only, and would go on with turns that nobody asked for. An empty list leaves it at what is declared."""


class Data(Closed):
    """A JSON-lines file."""

    uri: StoreUri
    """Where it lies: s3://bucket/key, file:///path, or file:path beside the manifest."""
    digest: Sha256 | None = None
    """sha256 of the file; when given it is checked, and it identifies the data in place of the URI."""


class Storage(Closed):
    """The object store that holds every output."""

    uri: StoreUri
    """s3://bucket/prefix, file:///path, or file:path beside the manifest."""
    endpoint: Endpoint | None = None
    """Address of an S3-compatible store; AWS when not given."""
    region: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Region of the bucket."""
    credentials_secret: Name | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the pod's own identity when not given."""
    require_conditional_put: bool = True
    """Refuse a store that ignores `If-None-Match: *`, because two attempts could then overwrite each other."""
    checksum: Literal["whenRequired", "whenSupported"] | None = None
    """Whether uploads to S3 carry a checksum header: whenSupported for a bucket with Object Lock, which refuses those
    without; whenRequired for a store that does not know the header. When not given, the SDK's own setting
    (AWS_REQUEST_CHECKSUM_CALCULATION), or else whenRequired."""


class Example(Closed):
    """A turn of the user and the answer to it."""

    user: Annotated[str, Field(min_length=1, max_length=65536)]
    """What was asked."""
    assistant: Annotated[str, Field(min_length=1, max_length=65536)]
    """What a good answer looks like."""


class Prompt(Closed):
    """What a role is asked. Rendered through the tokenizer's chat template where it has one."""

    system: Annotated[str, Field(max_length=65536)] = ""
    """System message; none when empty."""
    user: Annotated[str, Field(min_length=1, max_length=65536)]
    """User message; `{question}` is replaced by the question, and nothing else is."""
    examples: Annotated[list[Example], Field(max_length=32)] = []
    """Turns before the user message, word for word: a small chat model follows a format that it has seen itself use."""


class TransformersEngine(Closed):
    """Generation in the trainer's own process by transformers."""

    kind: Literal["transformers"] = "transformers"
    """Which engine."""
    batch_size: Annotated[Whole, Field(ge=1, le=65536)] = 64
    """Sequences generated at once."""


class VllmEngine(Closed):
    """Generation in the trainer's own process by vLLM."""

    kind: Literal["vllm"]
    """Which engine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the GPU's memory that vLLM may take."""


class ServerEngine(Closed):
    """Generation by an OpenAI-compatible server beside the trainer."""

    kind: Literal["server"]
    """Which engine."""
    gpus: Annotated[Whole, Field(ge=0, le=64)] = 4
    """GPUs of the server."""


Engine = Annotated[TransformersEngine | VllmEngine | ServerEngine, Field(discriminator="kind")]


class Repetition(Closed):
    """Penalty on questions that resemble others of the batch: |C|/B by BLEU clusters (docs/method.md)."""

    distance: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Clusters are cut at this average BLEU distance."""
    weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Factor of the share (lambda in the paper); 0 turns the penalty off."""


class ChallengerReward(Closed):
    """What the Challenger is paid for."""

    mode: Literal["paper", "code"] = "paper"
    """Formulas of the paper (arXiv 2508.05004) or of its public code, where they differ."""
    solver_samples: Annotated[Whole, Field(ge=2, le=1024)] = 10
    """Answers that the frozen Solver gives to each question."""
    repetition: Repetition = Repetition()
    """The repetition penalty."""
    unboxed: Literal["counts", "drops"] = "counts"
    """Answers without a box in the majority share: `counts` divides by all answers, so that they make a question look
    hard (R-Zero's reward); `drops` by those with a box, as R-Zero's code does where it labels."""


class SolverReward(Closed):
    """What the Solver is paid for."""

    mode: Literal["paper", "code"] = "paper"
    """`paper`: 1 for the label, else 0. `code`: 0.9 x accuracy + 0.1 x format."""


CHALLENGER_SYSTEM = (
    "You set problems for mathematics competitions. First think in private: choose a field at random (algebra, "
    "geometry, number theory, combinatorics, prealgebra, probability, statistics, calculus) and invent one new "
    "problem that challenges advanced high-school students, can be solved without pictures, and has exactly one answer "
    "that can be checked. Revise it until it is precise and hard. Then, outside of your private thoughts and with "
    "nothing after it, write exactly these two parts:\n"
    "<question>\nthe full statement of the problem on one or more lines\n</question>\n\n"
    "\\boxed{final answer}\n"
    "Keep the tags as they are, and do not show the solution."
)
CHALLENGER_USER = "Write one new, challenging problem now. Keep to the format exactly."
SOLVER_SYSTEM = "Reason step by step, and put your final answer within \\boxed{}."


class Challenger(Closed):
    """The role that writes questions."""

    prompt: Prompt = Prompt(system=CHALLENGER_SYSTEM, user=CHALLENGER_USER)
    """What it is asked; R-Zero's request in our words."""
    grpo: ChallengerGrpo = ChallengerGrpo()
    """Its training."""
    reward: ChallengerReward = ChallengerReward()
    """What it is paid for."""
    question_sampling: Sampling | None = None
    """Sampling of the rollout's questions; when not given, that of its training with topP 0.95, which is the code's."""
    engine: Engine = TransformersEngine()
    """How the frozen Solver answers while the Challenger trains."""
    checkpoint_every: Annotated[Whole, Field(ge=1, le=1_000_000)] = 1
    """Steps between two checkpoints in the store."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""


class Band(Closed):
    """Questions enter the curriculum when min <= majority share <= max (paper 0.25..0.75, code 0.3..0.8)."""

    min: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Smallest majority share."""
    max: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Largest majority share."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.min <= self.max",
            lambda band: band.min <= band.max,
            "min is above max; no question could enter, so swap or widen them",
            lambda band: f"min {band.min} is above max {band.max}; no question could enter, so swap or widen them",
        ),
    )

    def side(self, share: float) -> Literal["below", "in", "above"]:
        """Where a majority share lies; the bounds are in the band."""
        return "below" if share < self.min else "above" if share > self.max else "in"


class ArithmeticTruth(Closed):
    """`a + b` and `a - b` in decimal digits, computed exactly."""

    kind: Literal["arithmetic"]
    """Which source of truth."""


class Rollout(Closed):
    """How a curriculum is made: the Challenger writes, the Solver answers, the majority labels."""

    questions: Annotated[Whole, Field(ge=1, le=10_000_000)] = 8000
    """Questions that the Challenger writes."""
    samples: Annotated[Whole, Field(ge=2, le=1024)] = 10
    """Answers that the Solver gives to each question."""
    band: Band = Band()
    """Majority shares that enter the curriculum."""
    min_curriculum: Annotated[Whole, Field(ge=1, le=10_000_000)] | None = None
    """Smallest curriculum that is trained on: with fewer questions the run stops with EmptyCurriculum, because training
    would go over the same few again and again. One in a hundred of the questions when not given, and at least one: a
    healthy rollout leaves many times that."""
    shards: Annotated[Whole, Field(ge=1, le=1024)] = 1
    """Parts that are generated independently, each by a pod of its own."""
    min_shards: Annotated[Whole, Field(ge=1, le=1023)] | None = None
    """With how many shards at a time a Kueue queue may start that has no room for all; all or none when not given. A
    rollout that was started in part can be evicted once only: Kueue refuses the second time (docs/queues.md)."""
    answer_sampling: Sampling | None = None
    """Sampling of the answers; the Solver's own (solver.grpo) when not given."""
    labels: Literal["majority", "random", "truth"] = "majority"
    """Where labels come from. `random` and `truth` are the control arms of an experiment."""
    truth: ArithmeticTruth | None = None
    """A source of true answers, for measuring label accuracy; training never sees it unless labels is `truth`."""
    engine: Engine = TransformersEngine()
    """How both roles generate."""
    pods: Pods = Pods()
    """Pods of the phase, over spec.pods."""
    queue: LabelName | None = None
    """Another Kueue LocalQueue for this phase, whose pods are many and small; spec.queue when not given."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.labels != 'truth' || has(self.truth)",
            lambda rollout: rollout.labels != "truth" or rollout.truth is not None,
            "labels 'truth' needs truth, for example {kind: arithmetic}",
        ),
        Rule(
            "self.shards <= self.questions",
            lambda rollout: rollout.shards <= rollout.questions,
            "shards is above questions; lower shards",
            lambda rollout: f"shards {rollout.shards} is above questions {rollout.questions}; lower shards",
        ),
        Rule(
            "!has(self.minShards) || self.minShards < self.shards",
            lambda rollout: rollout.min_shards is None or rollout.min_shards < rollout.shards,
            "minShards is not below shards; lower it, or remove it",
            lambda rollout: (
                f"minShards {rollout.min_shards} is not below shards {rollout.shards}; lower it, or remove it"
            ),
        ),
        Rule(
            "!has(self.minCurriculum) || self.minCurriculum <= self.questions",
            lambda rollout: (rollout.min_curriculum or 1) <= rollout.questions,
            "minCurriculum is above questions; lower minCurriculum",
            lambda rollout: (
                f"minCurriculum {rollout.min_curriculum} is above questions {rollout.questions}; lower minCurriculum"
            ),
        ),
    )

    @property
    def smallest_curriculum(self) -> int:
        """Questions that a curriculum must have: minCurriculum, or one in a hundred of the questions."""
        return self.min_curriculum or max(1, self.questions // 100)


class Solver(Closed):
    """The role that answers."""

    prompt: Prompt = Prompt(system=SOLVER_SYSTEM, user="{question}")
    """What it is asked, in training, rollout and evaluation."""
    max_prompt_length: Annotated[Whole, Field(ge=1, le=1_000_000)] = 2048
    """Longest prompt in tokens, the question in it. A longer question is worth nothing to the Challenger, is not
    answered in the rollout, and is dropped there as `too_long`."""
    grpo: Grpo = Grpo()
    """Its training."""
    reward: SolverReward = SolverReward()
    """What it is paid for."""
    engine: Engine = TransformersEngine()
    """How it generates in its phase."""
    checkpoint_every: Annotated[Whole, Field(ge=1, le=1_000_000)] = 1
    """Steps between two checkpoints in the store."""
    pods: Pods = Pods()
    """Pods of its phase, over spec.pods."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.prompt.user.contains('{question}')",
            lambda solver: "{question}" in solver.prompt.user,
            "prompt.user never shows the question; put {question} into it",
        ),
    )


class Task(Closed):
    """One held-out set of questions with answers."""

    name: Annotated[
        str,
        Field(max_length=40),
        form(
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?", "lower-case letters, digits and '-', with a letter or digit at both ends"
        ),
    ]
    """Name in metrics and reports."""
    data: Data
    """JSON lines with the columns question and answer."""
    answers: Literal["math", "choice", "number", "text"] | None = None
    """What its answers are; math when not given. `math`: compared as in training. `choice`: a letter, also as `B. 42`,
    `B) 42`, `(B)` or formatted; several letters are none. `number`: a number, grouped or not, with or without a unit or
    currency; of GSM8K's solutions, what follows `####`. `text`: words, without regard to case, blanks and formatting.
    The last three are compared by rules alone; math-verify is never asked."""

    @property
    def answer_kind(self) -> Literal["math", "choice", "number", "text"]:
        """What its answers are. (A default in the schema of a list's items would be a difference to every manifest.)"""
        return self.answers or "math"


class Evaluation(Closed):
    """Scores of the base and of every iteration's Solver on held-out tasks."""

    tasks: Annotated[list[Task], Field(min_length=1, max_length=32), Keyed("name")]
    """What is asked."""
    samples: Annotated[Whole, Field(ge=1, le=1024)] = 8
    """Answers sampled for each question, beside the greedy one."""
    sampling: Sampling | None = None
    """Sampling of the answers; the Solver's own (solver.grpo) when not given."""
    metric: Literal["mean", "greedy"] = "mean"
    """What «best» goes by: the mean over samples, or greedy accuracy; averaged over tasks."""
    every: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    """Evaluate every so many iterations, and the last."""
    engine: Engine = TransformersEngine()
    """How the Solver answers."""
    pods: Pods = Pods()
    """Pods of the phase, over spec.pods."""


class Grading(Closed):
    """How answers are compared."""

    method: Literal["math-verify", "exact"] = "math-verify"
    """`math-verify`: mathematically equal answers are equal. `exact`: equal by the rules that come before it
    (numbers, units, choices, words), without a process; formulas only in one form."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Hard limit of one symbolic comparison, which runs in a process that can be killed."""
    memory_mebibytes: Annotated[Whole, Field(ge=256, le=1_048_576)] = 2048
    """Memory of one such process."""
    batch_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """Limit of all symbolic comparisons of one batch together, by the clock: no process waits long for another's.
    What is not decided then counts as unequal."""


class RunSpec(Closed):
    """One self-evolution run."""

    iterations: Annotated[Whole, Field(ge=1, le=1000)] = 3
    """Rounds of Challenger and Solver training; may be raised later."""
    seed: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of every random choice."""
    suspend: bool = False
    """Hold the run: no new step starts, running ones stop at a checkpoint."""
    model: Model
    """The base model."""
    storage: Storage
    """Where outputs go."""
    challenger: Challenger = Challenger()
    """The role that writes questions."""
    rollout: Rollout = Rollout()
    """How the curriculum is made."""
    solver: Solver = Solver()
    """The role that answers."""
    verifier: Verifier | None = None
    """The third role, for tasks without a checkable answer."""
    evaluation: Evaluation | None = None
    """Held-out scores."""
    exclude: Annotated[list[Data], Field(max_length=32)] = []
    """Data whose questions the Challenger may not ask: worth nothing to it, and never in a curriculum."""
    finetune: Finetune | None = None
    """Training on labelled data after the last iteration."""
    grading: Grading = Grading()
    """How answers are compared."""
    guards: Guards | None = None
    """When a run that goes wrong is stopped."""
    budget: Budget | None = None
    """What a run may cost."""
    parallel_steps: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Steps that may run at once, where the plan allows it."""
    backoff_limit: Annotated[Whole, Field(ge=0, le=100)] = 3
    """Times that a step is tried again after an external service failed."""
    pods: Pods = Pods()
    """Pods of every phase."""
    queue: LabelName | None = None
    """A Kueue LocalQueue that the run's Jobs wait in."""
    priority_class: LabelName | None = None
    """A Kueue WorkloadPriorityClass of the run's Jobs; it orders the queue, and leaves the pods' own priority alone."""
    ttl_seconds_after_finished: Annotated[Whole, Field(ge=60, le=31_536_000)] = 86_400
    """Seconds that an ended Job, its pods and their logs are kept."""
    fork_from: ForkFrom | None = None
    """Start from an iteration of another run."""
