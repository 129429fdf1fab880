"""spec -> the steps of the run, each with its key. Pure: the whole plan is known before anything runs.

    at first:     [verifier-train(0)], [evaluate(0)]
    iteration t:  challenger-train(t) -> solver-rollout(t) -> [verifier-train(t)] -> solver-train(t) -> [evaluate(t)]
    at the end:   [publish] of the best Solver or, of each, with its iteration; [finetune -> finetune-evaluate]

The judge that verifier-train(t) leaves scores the Solver's training of t and the Challenger's training and rollout of
t+1. A judge that was not promoted is no other step: verifier-train(t) then says whose judge stays (judging.Verdict).

A run that goes on from iteration n of another one (spec.forkFrom) begins with t = n + 1; what it begins with stands in
its record (status.fork), and before that there is no plan.

It is a DAG, not a list: evaluate(t) needs solver-train(t) and the base's scores, evaluate(0), alone, and may run beside
challenger-train(t+1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfevo_contract.canonical import derive_seed
from selfevo_contract.phases import (
    CHALLENGER_TRAIN,
    EVALUATE,
    FINETUNE,
    SOLVER_ROLLOUT,
    SOLVER_TRAIN,
    VERIFIER_TRAIN,
    BaseModelRef,
    ChallengerTrainInputs,
    EvaluateInputs,
    FinetuneEvaluateInputs,
    FinetuneInputs,
    Inputs,
    Loading,
    ModelRef,
    Phase,
    SolverRolloutInputs,
    SolverTrainInputs,
    StepModelRef,
    input_key,
)
from selfevo_contract.plan_publish import guards_of, publication
from selfevo_contract.plan_steps import Plan as Plan
from selfevo_contract.plan_steps import Step as Step
from selfevo_contract.plan_steps import as_asked, chosen_of, made_by
from selfevo_contract.plan_verifier import anchors_of, curriculum_of, first_inputs, judge_of, training_inputs
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.engines import Engine
from selfevo_contract.spec.evaluation import Evaluation
from selfevo_contract.spec.rewards import CONFIDENCE
from selfevo_contract.spec.run import RunSpec
from selfevo_contract.spec.sampling import Sampling
from selfevo_contract.status import Fork, Rollback, RunStatus

QUESTION_TOP_P = 0.95
"""Top-p of the rollout's questions in R-Zero's public code, when the spec says nothing else."""


class _Builder:
    def __init__(self, spec: RunSpec, redone: Mapping[int, int]) -> None:
        self.spec = spec
        self.redone = redone
        """Iteration -> how often it is computed anew."""
        self.guards = guards_of(spec) if spec.publish is not None else None
        """What each publication says of them."""
        self.steps: list[Step] = []
        self.unscheduled: list[Step] = []
        self.base_score: StepModelRef | None = None
        """The base's evaluation."""
        self.loading = Loading(
            dtype=spec.model.dtype,
            trust_remote_code=spec.model.trust_remote_code,
            stop_tokens=spec.model.stop_tokens,
        )

    def served_by(self, engine: Engine) -> Loading:
        """How ``engine`` loads frozen weights."""
        return self.loading.model_copy(update={"quantization": getattr(engine, "quantization", None)})

    def seed(self, phase: Phase, iteration: int) -> int:
        again = self.redone.get(iteration, 0)
        return derive_seed(self.spec.seed, phase, iteration, *(("rollback", again) if again else ()))

    def add(self, inputs: Inputs, iteration: int, *needs: ModelRef | StepModelRef) -> StepModelRef:
        step = self.step(inputs, iteration, *needs)
        self.steps.append(step)
        return StepModelRef(phase=inputs.phase, key=step.key)

    def step(self, inputs: Inputs, iteration: int, *needs: ModelRef | StepModelRef) -> Step:
        wanted = {need.key for need in needs if isinstance(need, StepModelRef)}
        parents = tuple(step.name for step in self.steps if step.key in wanted)
        return Step(f"{inputs.phase}-{iteration}", iteration, inputs, input_key(inputs), parents)

    def judged(self, judge: StepModelRef | None, *, compares: bool = False) -> dict[str, Any]:
        """What a phase's inputs say of the judge; nothing in a run without one."""
        return {} if self.spec.verifier is None else judge_of(self.spec.verifier, judge, compares=compares)

    def challenger_train(
        self,
        iteration: int,
        challenger: ModelRef,
        solver: ModelRef,
        before: StepModelRef | None,
        judge: StepModelRef | None,
    ) -> ModelRef:
        """``before`` is the rollout of the iteration before."""
        spec = self.spec
        if spec.challenger.grpo.max_steps == 0:
            return challenger  # the control arm: its weights are never touched
        earlier = before if spec.challenger.reward.memory else None
        inputs = ChallengerTrainInputs(
            seed=self.seed(CHALLENGER_TRAIN.name, iteration),
            challenger=challenger,
            solver=solver,
            loading=self.served_by(spec.challenger.engine),
            prompt=spec.challenger.prompt,
            grpo=spec.challenger.grpo,
            reward=spec.challenger.reward,
            earlier=earlier.key if earlier else None,
            solver_prompt=spec.solver.prompt,
            max_prompt_length=spec.solver.max_prompt_length,
            solver_sampling=self.answer_sampling,
            well_formed=spec.rollout.well_formed or None,
            grading=spec.grading,
            exclude=self.exclude,
            held_out=self.held_out,
            contamination=spec.rollout.contamination,
            **self.judged(judge),
        )
        return self.add(inputs, iteration, challenger, solver, *(ref for ref in (earlier, judge) if ref))

    @property
    def exclude(self) -> list[Data]:
        """What the Challenger may not ask: no phase trains on the anchors' questions."""
        return [*self.spec.exclude, *anchors_of(self.spec.verifier)]

    @property
    def held_out(self) -> list[Data]:
        return [task.data for task in self.spec.evaluation.tasks] if self.spec.evaluation else []

    @property
    def question_sampling(self) -> Sampling:
        challenger = self.spec.challenger
        # R-Zero's code writes the rollout's questions at another top-p than it trains with.
        return challenger.question_sampling or challenger.grpo.sampling.model_copy(update={"top_p": QUESTION_TOP_P})

    @property
    def answer_sampling(self) -> Sampling:
        return self.spec.rollout.answer_sampling or self.spec.solver.grpo.sampling

    def rollout(
        self,
        iteration: int,
        challenger: ModelRef,
        solver: ModelRef,
        before: StepModelRef | None,
        judge: StepModelRef | None,
        other: ModelRef,
    ) -> StepModelRef:
        """``before`` is the rollout of the iteration before, ``other`` who votes beside the Solver in a committee."""
        spec = self.spec
        member = other if spec.rollout.labels == "committee" else None
        earlier = before if spec.rollout.replay else None
        inputs = SolverRolloutInputs(
            seed=self.seed(SOLVER_ROLLOUT.name, iteration),
            challenger=challenger,
            solver=solver,
            loading=self.served_by(spec.rollout.engine),
            questions=spec.rollout.questions,
            samples=spec.rollout.samples,
            shards=spec.rollout.shards,
            band=spec.rollout.band,
            min_curriculum=spec.rollout.smallest_curriculum,
            labels=spec.rollout.labels,
            member=member,
            well_formed=spec.rollout.well_formed or None,
            replay=spec.rollout.replay,
            earlier=earlier.key if earlier else None,
            oracle=spec.rollout.oracle,
            challenger_prompt=spec.challenger.prompt,
            solver_prompt=spec.solver.prompt,
            max_prompt_length=spec.solver.max_prompt_length,
            question_sampling=self.question_sampling,
            answer_sampling=self.answer_sampling,
            grading=spec.grading,
            exclude=self.exclude,
            held_out=self.held_out,
            contamination=spec.rollout.contamination,
            **self.judged(judge, compares=bool(anchors_of(spec.verifier))),
            **curriculum_of(spec.verifier),
        )
        return self.add(inputs, iteration, challenger, solver, *(ref for ref in (earlier, judge, member) if ref))

    def solver_train(
        self, iteration: int, solver: ModelRef, curriculum: StepModelRef, judge: StepModelRef | None
    ) -> ModelRef:
        spec = self.spec
        if spec.solver.grpo.max_steps == 0:
            return solver
        inputs = SolverTrainInputs(
            seed=self.seed(SOLVER_TRAIN.name, iteration),
            solver=solver,
            curriculum=curriculum.key,
            loading=self.loading,
            prompt=spec.solver.prompt,
            grpo=spec.solver.grpo,
            reward=spec.solver.reward,
            grading=spec.grading,
            well_formed=(spec.rollout.well_formed or None) if spec.solver.reward.mode == CONFIDENCE else None,
            **self.judged(judge, compares=True),
        )
        return self.add(inputs, iteration, solver, curriculum, *([judge] if judge else []))

    def first_judge(self, base: BaseModelRef) -> StepModelRef | None:
        """The judge of iteration 0; None in a run without one that is trained."""
        verifier = self.spec.verifier
        if verifier is None or not verifier.is_trained:
            return None
        return self.add(first_inputs(verifier, self._judging(0), base), 0)

    def verifier_train(
        self,
        iteration: int,
        solvers: Sequence[ModelRef],
        challenger: ModelRef,
        judges: Sequence[StepModelRef | None],
        curriculum: StepModelRef,
    ) -> StepModelRef | None:
        """``solvers`` and ``judges`` are those before this iteration's training, the newest last."""
        verifier = self.spec.verifier
        if verifier is None or not verifier.is_trained or verifier.max_steps == 0:
            return judges[-1]  # without one, or frozen
        inputs = training_inputs(verifier, self._judging(iteration), solvers, challenger, judges, curriculum.key)
        models = (inputs.solver, inputs.challenger, inputs.earlier_solver, inputs.judge, inputs.first_judge)
        return self.add(inputs, iteration, curriculum, *(ref for ref in models if ref is not None))

    def _judging(self, iteration: int) -> dict[str, Any]:
        spec = self.spec
        return {
            "seed": self.seed(VERIFIER_TRAIN.name, iteration),
            "loading": self.loading,
            "solver_prompt": spec.solver.prompt,
            "max_prompt_length": spec.solver.max_prompt_length,
            "answer_sampling": self.answer_sampling,
        }

    def evaluate(self, iteration: int, model: ModelRef) -> None:
        evaluation = self.spec.evaluation
        if evaluation is None:
            return
        # A Solver that is not trained is the base, and its evaluation the base's.
        base = self.base_score if isinstance(model, StepModelRef) else None
        inputs = EvaluateInputs.model_validate(self.asked(evaluation, model, base))
        needs = [model, base] if base else [model]
        if iteration == self.spec.iterations or iteration % evaluation.every == 0:
            added = self.add(inputs, iteration, *needs)
            self.base_score = self.base_score or added
        else:
            self.unscheduled.append(self.step(inputs, iteration, *needs))

    def asked(self, evaluation: Evaluation, model: ModelRef, base: StepModelRef | None) -> dict[str, Any]:
        """The inputs of an evaluation of ``model``, by name."""
        prompt, sampling = self.spec.solver.prompt, evaluation.sampling or self.spec.solver.grpo.sampling
        fallback: dict[str, object] = {"samples": evaluation.samples, "prompt": prompt, "sampling": sampling}
        return {
            # The same questions are answered with the same random stream by every model: scores are paired.
            "seed": self.seed(EVALUATE.name, 0),
            "model": model,
            "loading": self.served_by(evaluation.engine),
            "tasks": [as_asked(task, fallback) for task in evaluation.tasks],
            **fallback,
            "grading": self.spec.grading,
            "shards": evaluation.all_shards,
            "base": base.key if base else None,
        }

    def publish(self, what: str, number: int, model: ModelRef, *needs: str) -> None:
        """After ``needs``, where spec.publish asks for ``what``. A Solver that was never trained is the base's copy."""
        if self.spec.publish is not None and self.spec.publish.what == what and isinstance(model, StepModelRef):
            self.steps.append(publication(self.spec, self.steps, number, model, self.redone, self.guards, needs))

    def results(self) -> list[str]:
        """What the best is only all scores tell; without any, it is the last."""
        return [step.name for step in self.steps if step.type.scores or step.type.trains_solver]

    def finetune(self, solvers: Sequence[ModelRef], best: int) -> None:
        """Of Solver ``best`` and of the base. A step bears the number of what it starts from."""
        settings = self.spec.finetune
        if settings is None:
            return
        start = best if isinstance(solvers[best], StepModelRef) else 0
        last = self.results()
        for number in dict.fromkeys([start, *([0] if settings.control else [])]):
            model, by_grpo = solvers[number], settings.kind == "grpo"
            inputs = FinetuneInputs(
                seed=self.seed(FINETUNE.name, 0),
                model=model,
                kind=settings.kind,
                data=settings.data,
                answers=settings.answers,
                loading=self.loading,
                prompt=self.spec.solver.prompt,
                max_prompt_length=self.spec.solver.max_prompt_length,
                grpo=settings.training(self.spec.solver.grpo),
                reward=self.spec.solver.reward if by_grpo else None,
                grading=self.spec.grading,
                exclude=self.exclude,
                held_out=self.held_out,
                contamination=self.spec.rollout.contamination,
            )
            step = replace(self.step(inputs, number), parents=tuple(last))
            self.steps.append(step)
            tuned = StepModelRef(phase=FINETUNE.name, key=step.key)
            if self.spec.evaluation is not None and self.base_score is not None:
                asked = self.asked(self.spec.evaluation, tuned, self.base_score)
                self.add(FinetuneEvaluateInputs.model_validate(asked), number, tuned, self.base_score)


def rollbacks_of(spec: RunSpec, recorded: Sequence[Rollback], fork: Fork | None = None) -> list[Rollback]:
    """Those of the ``recorded`` rollbacks that are about a run of ``spec``: of another one, its manifest was edited."""
    kept: list[Rollback] = []
    for rollback in recorded:
        keys = {step.key for step in plan(spec, kept, fork).steps}
        if not keys & set(rollback.abandoned.values()):
            break
        kept.append(rollback)
    return kept


def plan_of(spec: RunSpec, record: RunStatus | None) -> Plan:
    """The plan of a run with its record, without which a fork, and a run that went back or fine-tunes its best, have
    another one, or none."""
    return plan(spec) if record is None else plan(spec, *decided(record))


def decided(record: RunStatus) -> tuple[Sequence[Rollback], Fork | None, int | None]:
    """All of a record that a plan depends on, as `plan` takes it."""
    return record.rollbacks, record.fork, chosen_of(record)


def is_outdated(steps: Plan, record: RunStatus) -> bool:
    """Whether ``record`` tells of a rollback, or of a choice of the best, that is not in ``steps``."""
    chosen = chosen_of(record)
    return (chosen is not None and chosen != steps.best) or len(record.rollbacks) > steps.rollbacks


def sketch(spec: RunSpec, fork: Fork | None = None) -> Plan:
    """The plan, also where it is not known yet what a fork begins with: then the keys are those of none."""
    if fork is None and spec.fork_from is not None:
        fork = Fork(run=spec.fork_from.run, iteration=spec.fork_from.iteration)
    return plan(spec, (), fork)


def plan(spec: RunSpec, rollbacks: Sequence[Rollback] = (), fork: Fork | None = None, best: int | None = None) -> Plan:
    """The steps of a run; whoever has its record asks `plan_of`.

    ``rollbacks`` are those of its status, in their order: an iteration that is computed anew has another seed, so that
    its steps and all that follow from them have other keys. ``fork`` is what its status says of spec.forkFrom: as long
    as that is not known, nothing is planned. ``best`` is the iteration of its status whose Solver is the best.

    A valid spec has a plan. What is not built yet is refused by `selfevo_contract.run.refuse_what_is_not_built`.
    """
    base = BaseModelRef(uri=spec.model.uri, digest=spec.model.digest)
    if spec.fork_from is None:
        fork = None
    elif fork is None:
        return Plan((), (base,), (base,), (), len(rollbacks))
    builder = _Builder(spec, Counter(rollback.iteration for rollback in rollbacks))
    start = fork.iteration if fork else 0
    challengers, solvers = list[ModelRef]([base] * (start + 1)), list[ModelRef]([base] * (start + 1))
    judges = [builder.first_judge(base)] * (start + 1)
    curriculum = None
    builder.evaluate(0, base)
    if fork is not None and start > 0:
        challengers[-1] = made_by(CHALLENGER_TRAIN.name, fork.challenger) or base
        solvers[-1] = made_by(SOLVER_TRAIN.name, fork.solver) or base
        judges[-1] = (made_by(VERIFIER_TRAIN.name, fork.verifier) if spec.verifier else None) or judges[0]
        curriculum = made_by(SOLVER_ROLLOUT.name, fork.curriculum)
        builder.evaluate(start, solvers[-1])
    for t in range(start + 1, spec.iterations + 1):
        challenger = builder.challenger_train(t, challengers[-1], solvers[-1], curriculum, judges[-1])
        # Of a fork, the Solver before the one that it begins with is not known.
        other = solvers[-2] if t == 2 or t - 2 >= max(start, 1) else solvers[-1]
        curriculum = builder.rollout(t, challenger, solvers[-1], curriculum, judges[-1], other)
        judges.append(builder.verifier_train(t, solvers, challenger, judges, curriculum))
        solver = builder.solver_train(t, solvers[-1], curriculum, judges[-1])
        builder.evaluate(t, solver)
        builder.publish("each", t, solver)
        challengers.append(challenger)
        solvers.append(solver)
    chosen = spec.iterations if best is None else min(best, spec.iterations)
    builder.publish("best", chosen, solvers[chosen], *builder.results())
    builder.finetune(solvers, chosen)
    unscheduled = tuple(builder.unscheduled)
    return Plan(tuple(builder.steps), tuple(solvers), tuple(challengers), unscheduled, len(rollbacks), start, best)
