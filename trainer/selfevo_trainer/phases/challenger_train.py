"""challenger-train: GRPO on Challenger(t-1) while the frozen Solver(t-1) answers (docs/method.md, iteration step 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

from datasets import Dataset

from selfevo_contract import reasons
from selfevo_contract.artifacts import failed_prefix
from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import DataError, SelfevoError
from selfevo_contract.phases import ChallengerTrainInputs
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import QUESTIONS, InvalidCompletion, Tally
from selfevo_contract.rows_between import MEMORY
from selfevo_contract.spec.challenger import Memory
from selfevo_trainer.answers.extraction import normalise_question
from selfevo_trainer.contamination import HeldOutQuestions
from selfevo_trainer.context import Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.engines import Engine
from selfevo_trainer.grpo.dealing import schedule
from selfevo_trainer.grpo.train import TrainRequest, commit_training, train
from selfevo_trainer.inputs import preflight
from selfevo_trainer.inputs.data import held_out_questions
from selfevo_trainer.inputs.frozen import open_frozen
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.judges.rubric import totals
from selfevo_trainer.judges.scoring import open_scorer
from selfevo_trainer.memory import remembered, rows_of
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.prompts import completion_text, encode, for_trainer, messages, shown
from selfevo_trainer.ratings import ByJudge, ByVotes, Rater, Rating
from selfevo_trainer.rewards import challenger_rewards
from selfevo_trainer.rewards.repetition import near_share, repetition_share

log = logging.getLogger("selfevo")

SUMMARY = (
    "reward",
    "uncertainty",
    "repetition",
    "memory",
    "similar",
    "valid",
    "majority_share",
    "score",
    "score_spread",
    "distinct",
    "answers/unboxed",
    "answers/truncated",
    "answers/timed_out",
    "answers/crashed",
    "answers/ill_formed",
    "kl",
    "entropy",
    "completions/mean_length",
    "completions/clipped_ratio",
)
KEPT = 20
"""Completions that are kept in the store when none was valid."""
SHOWN = 3
"""Those of them that the message shows."""
PART = 64
"""Questions of a part of a step, in each process: the answers to so many are lost at most when it ends meanwhile."""
PART_OF_BATCHING = 512
"""The same with an engine that batches by itself: at a part's end it waits for the longest answer with few others."""
_PATIENCE = 3
"""Batches without a single valid question after which training is given up."""


class ChallengerReward:
    """TRL reward function: uncertainty of the Solver, or what a judge finds wanting, less repetition. Shapes:
    B completions in, B rewards out. It is one `InParts`."""

    __name__ = "challenger"

    def __init__(
        self,
        inputs: ChallengerTrainInputs,
        engine: Engine,
        rater: Rater,
        held_out: HeldOutQuestions,
        length: Callable[[str], int] = len,
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
        earlier: Sequence[str] = (),
        part: int | None = None,
    ) -> None:
        """``length`` gives the tokens of the Solver's prompt with a question; it answers within ``interruptible``;
        ``earlier`` are questions of earlier iterations; ``part`` is PART when not given."""
        self.inputs = inputs
        self.engine = engine
        self.rater = rater
        self.held_out = held_out
        self.length = length
        self.interruptible = interruptible
        self.earlier = earlier
        self.part = part or PART
        self.parts: list[dict[str, Any]] = []
        self.between_parts: Callable[[], None] = lambda: None
        self.samples: list[str] = []
        """A few of the newest completions, for people to see what was no valid question."""

    def __call__(self, completions: list[Any], trainer_state: Any, log_metric: Any = None, **_: Any) -> list[float]:
        reward = self.inputs.reward
        texts = [completion_text(completion) for completion in completions]
        self.samples = texts[:KEPT]
        questions = [self._question(text) for text in texts]
        known = [part["spent"] for part in self.parts]
        self.rater.goes_on([*getattr(trainer_state, "log_history", []), *known])
        # All processes see the whole batch: |C|/B is over it, and each answers its share of all questions, so that none
        # waits for one whose completions were all valid.
        texts_B = collective.all_gather(questions)
        asked_of = [i for i, text in enumerate(texts_B) if text is not None]
        done = self._rated(texts_B, asked_of, trainer_state.global_step)
        ratings = {i: rating for i, rating in done if rating.valid}
        # An invalid completion enters as the empty string.
        batch = [((text or "") if i in ratings else "", ratings.get(i)) for i, text in enumerate(texts_B)]
        asked_B = [text for text, _ in batch]
        repetition_B = repetition_share(asked_B, reward.repetition.distance)
        memory = reward.memory or Memory()
        memory_B = near_share(asked_B, self.earlier, memory.distance)
        shares_B = [None if rating is None else rating.share for _, rating in batch]
        rewards = challenger_rewards(
            reward.mode, shares_B, repetition_B, reward.repetition.weight, memory_B, memory.weight
        )
        if log_metric is not None:  # TRL takes the mean over the processes, of what is the same in all
            asked = [(text, rating) for text, rating in batch if rating is not None]
            log_metric("valid", len(asked) / len(batch))
            log_metric("repetition", float(repetition_B.mean()))
            if reward.memory is not None:
                log_metric("memory", float(memory_B.mean()))
                if self.earlier and ratings:  # of the valid questions, near which one of earlier iterations lies
                    log_metric("similar", sum(near > 0 for near in memory_B) / len(ratings))
            log_metric("distinct", len({normalise_question(text) for text, _ in asked}) / len(batch))
            for name, share in sum((rating.counts for _, rating in done), Tally()).shares("answers/").items():
                log_metric(name, share)
            if asked:
                log_metric("uncertainty", sum(item.uncertainty for item in rewards if item.valid) / len(asked))
                for name in dict.fromkeys(name for _, rating in asked for name in rating.figures):
                    found = [rating.figures[name] for _, rating in asked if name in rating.figures]
                    log_metric(name, sum(found) / len(found))
            for name, value in self._spent().items():  # of this process alone
                log_metric(name, value)
        self.parts = []
        first = collective.rank() * len(questions)
        return [item.total for item in rewards[first : first + len(questions)]]

    def _rated(self, texts_B: list[str | None], asked_of: list[int], step: int) -> list[tuple[int, Rating]]:
        """(number, rating) of the questions ``asked_of``, part by part; of what is known already none is asked."""
        done = [(number, Rating.of(wire)) for part in self.parts for number, wire in part["ratings"]]
        known = {number for number, _ in done}
        width, begun = self.part * collective.size(), False
        for start in range(0, len(asked_of), width):
            part = [i for i in asked_of[start : start + width] if i not in known]
            if not part:
                continue
            if begun:
                self.between_parts()
            begun = True
            rated = collective.dealt_out(part, lambda mine: self._rate(texts_B, mine, step))
            wires = [[number, rating.wire()] for number, rating in rated]
            self.parts.append({"ratings": wires, "spent": self.rater.spent()})
            done += rated
        return done

    def _spent(self) -> dict[str, float]:
        """What rating the step has cost in this process, in earlier attempts too."""
        spent = self.rater.spent()
        for part in self.parts:
            for name, value in part["spent"].items():
                spent[name] = spent.get(name, 0.0) + value
        return spent

    def _rate(self, texts_B: list[str | None], mine: list[int], step: int) -> list[tuple[int, Rating]]:
        """(number, rating) of the questions ``mine``. Random streams go by the number in the batch."""
        prompts = [messages(self.inputs.solver_prompt, texts_B[i] or "") for i in mine]
        samples, seed = self.inputs.reward.solver_samples, derive_seed(self.inputs.seed, "answers", step)
        with self.interruptible():
            answers = self.engine.generate(prompts, self.inputs.solver_sampling, samples, seed, mine)
        return list(zip(mine, self.rater.rate([texts_B[i] or "" for i in mine], answers), strict=True))

    def _question(self, text: str) -> str | None:
        question = self.rater.question(text, self.held_out)
        return None if question is None or self.length(question) > self.inputs.max_prompt_length else question

    def check(self, history: list[dict[str, Any]]) -> None:
        """Raises DataError when the Challenger has not written one valid question in its first steps."""
        grpo = self.inputs.grpo
        shares = [row["valid"] for row in history if isinstance(row.get("valid"), int | float)]
        if len(shares) >= min(_PATIENCE, grpo.max_steps) and not any(shares):
            raise DataError(
                f"the Challenger wrote no valid question in {len(shares) * grpo.completions_per_step} "
                f"completions ({self.rater.form}); change spec.challenger.prompt, raise "
                "spec.challenger.grpo.maxCompletionLength, or start from a model that follows the format. "
                f"It wrote: {shown(self.samples[:SHOWN])}",
                reason=reasons.NO_VALID_QUESTION,
            )


def run(context: Context, inputs: ChallengerTrainInputs) -> PhaseResult:
    """Train, commit, clear the checkpoints."""
    preflight.check(context, inputs)
    model_dir = fetch_model(context, inputs.challenger, "challenger")
    solver_dir = fetch_model(context, inputs.solver, "solver")
    held_out = held_out_questions(context, inputs)
    tokenizer = load_tokenizer(model_dir, inputs.loading)
    prompt = for_trainer(tokenizer, messages(inputs.prompt))
    dataset = Dataset.from_list([{"prompt": prompt} for _ in schedule(1, inputs.grpo, inputs.seed)])
    solver_tokenizer = load_tokenizer(solver_dir, inputs.loading)
    earlier = remembered(context, inputs)
    engine = open_frozen(context, inputs, "solver", [inputs.solver_sampling], inputs.max_prompt_length)
    with open_rater(context, inputs) as rater:
        reward = ChallengerReward(
            inputs,
            engine,
            rater,
            held_out,
            lambda question: len(encode(solver_tokenizer, messages(inputs.solver_prompt, question))),
            context.stop.raised,
            earlier,
            PART if context.config.engine.kind == "transformers" else PART_OF_BATCHING,
        )
        request = TrainRequest(
            inputs=inputs,
            model_dir=model_dir,
            tokenizer=tokenizer,
            dataset=dataset,
            reward=reward,
            check_history=reward.check,
        )
        try:
            files, history = train(context, request)
        except DataError as error:
            if error.reason == reasons.NO_VALID_QUESTION:
                keep(context, reward.samples)
            raise
        if earlier and context.rank.first:
            files = {**files, **MEMORY.write(context.workdir, rows_of(earlier))}
        spent = totals([row.metrics for row in history], context.rank.size)
        return commit_training(context, files, history, SUMMARY, spent)


@contextmanager
def open_rater(context: Context, inputs: ChallengerTrainInputs) -> Iterator[Rater]:
    """What tells how well the Solver does: the judge of a run with a Verifier, else votes."""
    if inputs.judge is not None or inputs.rubric is not None:
        with closing(open_scorer(context, inputs, inputs.reward.mode, share=1 / context.rank.size)) as judge:
            yield ByJudge(judge)
        return
    with context.grader(inputs.grading) as grader:
        yield ByVotes(inputs.well_formed, inputs.reward.unboxed, grader)


def keep(context: Context, samples: list[str]) -> None:
    """Commit completions without a valid question beside the step, for people, in the rows of a rollout's questions."""
    if context.rank.first:
        rows = map(InvalidCompletion.of, samples)
        try:
            files = QUESTIONS.write(context.workdir, rows)
            context.commit(failed_prefix(context.config.prefix), files)
        except SelfevoError as error:  # that no question was valid is the error to report
            log.warning("what the Challenger wrote is not kept: %s", error)
    collective.wait_for_all()  # who ended now would have the first one killed before its commit
