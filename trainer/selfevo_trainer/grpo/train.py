"""GRPO by TRL's GRPOTrainer, its own way: reward functions, callbacks, ``train(resume_from_checkpoint=)``."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from selfevo_contract import reasons
from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import DataError, SelfevoError, ServiceError, Terminated
from selfevo_contract.phases import GrpoInputs, Loading
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import METRICS, UpdateRow, write_rows
from selfevo_contract.spec.grpo import Grpo
from selfevo_trainer.context import NO_DISTRIBUTION, Context
from selfevo_trainer.distributed import collective
from selfevo_trainer.distributed.layout import check_batch
from selfevo_trainer.grpo import checkpoints
from selfevo_trainer.models.loading import eos_token_ids, load_for_training
from selfevo_trainer.prompts import encode_all

RewardFunction = Callable[..., list[float]]

SHOWN = ("reward", "kl", "entropy", "completions/mean_length")
"""What a line of progress shows of TRL's metrics."""


def grpo_config(grpo: Grpo, loading: Loading, seed: int, output_dir: Path, processes: int = 1) -> GRPOConfig:
    """Our settings as TRL's.

    TRL counts optimizer updates: ``max_steps`` is maxSteps x updates a step, ``gradient_accumulation_steps`` makes one
    update's completions and ``steps_per_generation`` a step's, both in passes of perDeviceTrainBatchSize on each
    process. A step's completions are dealt out to its updates at random (`deal`), after advantages were normalised by
    group.

    Raises:
        InputError: the batch does not divide over the processes.
    """
    check_batch(grpo, processes)
    on_cpu = not torch.cuda.is_available()
    a_pass = grpo.per_device_train_batch_size * processes
    return GRPOConfig(
        output_dir=str(output_dir),
        seed=seed,
        max_steps=grpo.updates,
        per_device_train_batch_size=grpo.per_device_train_batch_size,
        gradient_accumulation_steps=grpo.completions_per_update // a_pass,
        steps_per_generation=grpo.completions_per_step // a_pass,
        num_generations=grpo.num_generations,
        num_iterations=grpo.num_iterations,
        learning_rate=grpo.learning_rate,
        lr_scheduler_type=grpo.lr_scheduler_type,
        warmup_steps=grpo.warmup_steps,
        weight_decay=grpo.weight_decay,
        adam_epsilon=grpo.adam_epsilon,
        max_grad_norm=grpo.max_grad_norm,
        beta=grpo.beta,
        epsilon=grpo.epsilon,
        epsilon_high=grpo.epsilon_high,
        delta=grpo.delta or None,
        loss_type=grpo.loss_type,
        scale_rewards=grpo.scale_rewards,
        mask_truncated_completions=grpo.mask_truncated_completions,
        gradient_checkpointing=grpo.gradient_checkpointing,
        temperature=grpo.temperature,
        top_p=grpo.top_p,
        top_k=grpo.top_k,
        max_completion_length=grpo.max_completion_length,
        # TRL's own default (True) turns the k3 estimator of the KL into another one; R-Zero's is k3 as it is
        use_bias_correction_kl=False,
        trust_remote_code=loading.trust_remote_code,  # the reference is loaded by TRL itself, from the model's folder
        shuffle_dataset=False,  # the order is ours, see `schedule`
        use_cpu=on_cpu,
        ddp_timeout=collective.TIMEOUT_S,
        bf16=not on_cpu and loading.dtype == "bfloat16",
        fp16=not on_cpu and loading.dtype == "float16",
        save_strategy="no",  # the callback below asks for saves
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not finite is to be seen, not replaced by the one before
        report_to="none",
        disable_tqdm=True,
    )


def schedule(rows: int, grpo: Grpo, seed: int) -> list[int]:
    """Which row each prompt of the whole training takes: permutations of all rows, one after another.

    TRL drops what does not fill a batch and starts an epoch anew; a data set with exactly the prompts of all steps has
    one epoch and drops nothing, also when the curriculum has fewer rows than a step has prompts.

    Returns:
        row numbers, promptsPerStep for each step.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "schedule"))
    needed = grpo.max_steps * grpo.prompts_per_step
    order: list[int] = []
    while len(order) < needed:
        order += torch.randperm(rows, generator=generator).tolist()
    return order[:needed]


def deal(rows: int, updates: int, first: int, seed: int) -> list[int]:
    """The order in which a process takes its completions of a step, for several updates.

    Of each ``updates`` neighbouring completions of the whole step every update gets one, drawn at random. So an update
    has the same completions in all, however many processes there are; TRL's own shuffle is within each process.

    Args:
        rows: completions of this process; ``updates`` divides them.
        first: number of its first completion in the whole step.

    Returns:
        row numbers: the first update's ``rows / updates``, then the second's, and so on.
    """
    drawn = []
    for start in range(0, rows, updates):
        generator = torch.Generator().manual_seed(derive_seed(seed, "deal", first + start))
        drawn.append((start + torch.randperm(updates, generator=generator)).tolist())
    return [row for update in zip(*drawn, strict=True) for row in update]


class _Trainer(GRPOTrainer):
    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # TRL's own would read control tokens that a question spells.
        return encode_all(self.processing_class, prompts), None, {}

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        # As TRL's own, with `deal` in place of its shuffle. A step of one update has nothing to deal out.
        args: Any = self.args
        passes: int = args.steps_per_generation
        updates = passes // args.gradient_accumulation_steps
        if updates == 1:
            prepared: dict[str, Any] = super()._prepare_inputs(generation_batch)
            return prepared
        buffered: Any = self._buffered_inputs
        if self._step % (passes * self.num_iterations) == 0 or buffered is None:
            made = self._generate_and_score_completions(generation_batch)
            rows = len(made["completion_ids"])
            seed = derive_seed(args.seed, "step", self.state.global_step)
            order = deal(rows, updates, collective.rank() * rows, seed)
            dealt = {name: _taken(values, order) for name, values in made.items()}
            buffered = split_tensor_dict(dealt, passes)
            setattr(self, "_buffered_inputs", buffered)  # noqa: B010  TRL declares it None
        return dict(buffered[self._step % passes])


def _taken(values: Any, order: list[int]) -> Any:
    """``values`` in ``order``; what is said of all rows at once stays."""
    if isinstance(values, list):
        return [values[row] for row in order]
    return values[order] if isinstance(values, torch.Tensor) and values.ndim else values


class _Hooks(TrainerCallback):
    """Says how far training is, asks for checkpoints, stops on request."""

    def __init__(self, context: Context, grpo: Grpo, valid: Callable[[list[dict[str, Any]]], None]) -> None:
        self.context = context
        self.grpo = grpo
        self.valid = valid
        self.shown: dict[str, float] = {}
        self.stopping = False
        """Some process was asked to stop, and all of them do."""

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> TrainerControl:
        # Now: to sample from NaN on a GPU ends the process with an assertion of the device, which says nothing.
        _check_finite(model)
        # TRL's global_step counts updates. Between the updates of a step a restart could not take its completions up.
        step, within = divmod(state.global_step, self.grpo.updates_per_step)
        if within:
            return control
        # SIGTERM reaches the processes at different moments; they stop after the same step.
        self.stopping = collective.any_rank(self.context.stop.requested)
        if self.stopping:
            control.should_training_stop = True
        if step < self.grpo.max_steps and (step % self.context.config.checkpoint_every == 0 or self.stopping):
            control.should_save = True
        return control

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        # Each process has saved its random state, where it alone sees it.
        states = [(file.name, file.read_bytes()) for file in folder.glob("rng_state_*")]
        for name, data in collective.all_gather(states):
            (folder / name).write_bytes(data)
        if self.context.rank.first:
            checkpoints.save(self.context, folder, state.global_step // self.grpo.updates_per_step)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        # Who went on to its end would look like one that had failed. (Trainer sums up its flos over all processes then,
        # which is not meant to hold anybody.)
        collective.wait_for_all()

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        if self.context.rank.first:
            # What is measured once a step stays until the next one.
            self.shown |= {name: round(logs[name], 4) for name in SHOWN if isinstance((logs or {}).get(name), float)}
            if self.grpo.updates_per_step > 1:
                self.shown["update"] = float(state.global_step)
            done = state.global_step // self.grpo.updates_per_step
            self.context.progress("training", done, self.grpo.max_steps, self.shown)
        # Of the whole history, which checkpoints carry on: the verdict is the same however often training was resumed.
        self.valid(state.log_history)


def train(
    context: Context,
    inputs: GrpoInputs,
    *,
    model_dir: Path,
    tokenizer: Any,
    dataset: Dataset,
    reward: RewardFunction,
    valid: Callable[[list[dict[str, Any]]], None] = lambda history: None,
) -> tuple[dict[str, Path], list[UpdateRow]]:
    """Train the model at ``model_dir``, from the newest checkpoint if there is one.

    Args:
        tokenizer: the model's.
        dataset: one row for each prompt of the whole training, in order (`schedule`).
        valid: gets TRL's metrics of all steps so far after each; raises DataError when going on makes no sense.

    Returns:
        the files to commit (name -> path), and a row for each optimizer update. Both are empty in a process that is not
        the first.

    Raises:
        Terminated: SIGTERM came; what was done is committed as a checkpoint.
        DataError: the loss is not finite, or ``valid`` said so.
        ServiceError: training ended before its last step.
    """
    grpo, loading = inputs.grpo, inputs.loading
    with context.clock.during("load"):
        model = load_for_training(model_dir, loading)
        output = context.workdir / "trainer"
        hooks = _Hooks(context, grpo, valid)
        # TRL takes where answers end from here, and the trained model keeps it.
        model.generation_config.eos_token_id = sorted(eos_token_ids(model, tokenizer, loading))
        timed: Any = _timed(context, reward)
        trainer = _Trainer(
            model=model,
            reward_funcs=timed,
            args=grpo_config(grpo, loading, inputs.seed, output, context.rank.size),
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[hooks],
        )
        trainer.remove_callback(PrinterCallback)  # standard output carries our lines of progress and nothing else
        _time_generation(context, trainer.model)
    resume = _resume(context)
    context.resumed_from = resume[1] if resume else None
    context.progress("training", resume[1] if resume else 0, grpo.max_steps)
    # Each step looks whether it is to be the last. After the last one comes the commit, and a request is too late for
    # it: what is uploaded then is kept, within the grace that the pod has.
    context.stop.defer()
    try:
        with context.clock.during("training"):
            _train(trainer, resume[0] if resume else None)
    except DataError:
        checkpoints.clear(context)  # no attempt will go on from them
        raise
    step = trainer.state.global_step // grpo.updates_per_step
    if hooks.stopping and step < grpo.max_steps:
        raise Terminated(f"stopped on request after step {step} of {grpo.max_steps}; the checkpoint is committed")
    if step < grpo.max_steps:
        raise ServiceError(f"training ended at step {step} of {grpo.max_steps} without a reason; try again")
    history = [_row(row, grpo) for row in trainer.state.log_history if "loss" in row]
    with context.clock.during("store"):
        trainer.save_model(str(context.workdir / "model"))
    if not context.rank.first:
        return {}, []
    return _model_files(context, history), history


def _row(row: dict[str, Any], grpo: Grpo) -> UpdateRow:
    update = int(row["step"])  # as TRL counts
    return UpdateRow.model_validate({**row, "update": update, "step": grpo.step_of(update)})


def _train(trainer: GRPOTrainer, checkpoint: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (RuntimeError, ValueError) as error:
        _check_finite(trainer.model)  # a model of NaN cannot be sampled from: then that is what went wrong
        if NO_DISTRIBUTION in str(error):
            raise DataError(
                "the model in training computes NaN or infinity, from which nothing can be sampled; lower learningRate "
                "or set spec.model.dtype to float32 or bfloat16",
                reason=reasons.NOT_FINITE,
            ) from error
        raise
    _check_finite(trainer.model)


def _resume(context: Context) -> tuple[Path, int] | None:
    """The newest checkpoint, the same in all processes: the first one chooses it."""
    found = checkpoints.latest(context) if context.rank.first else None
    step = collective.broadcast(found[1] if found else None)
    return found if found or step is None else (checkpoints.at(context, step), step)


def _timed(context: Context, reward: RewardFunction) -> RewardFunction:
    def timed(*args: Any, **kwargs: Any) -> list[float]:
        with context.clock.during("reward"):
            return reward(*args, **kwargs)

    timed.__name__ = getattr(reward, "__name__", type(reward).__name__)
    return timed


def _time_generation(context: Context, model: Any) -> None:
    """TRL sends its profile to trackers only; the policy's own `generate` is where its generation time is spent."""
    generate = model.generate

    def timed(*args: Any, **kwargs: Any) -> Any:
        with context.clock.during("generation"):
            return generate(*args, **kwargs)

    model.generate = timed


def _check_finite(model: Any) -> None:
    names, parameters = zip(*model.named_parameters(), strict=True)
    # The device is waited for once, not for each of hundreds of parameters: this is asked after each update.
    finite = torch.stack([torch.isfinite(parameter).all() for parameter in parameters]).tolist()
    if not all(finite):
        name = names[finite.index(False)]
        raise DataError(
            f"training made {name} infinite or NaN; lower learningRate or maxGradNorm", reason=reasons.NOT_FINITE
        )


def _model_files(context: Context, history: Sequence[UpdateRow]) -> dict[str, Path]:
    files = {f"model/{name}": file for name, file in checkpoints.kept_files(context.workdir / "model").items()}
    files[METRICS.name] = write_rows(context.workdir / METRICS.name, history)
    return files


def summary(history: Sequence[UpdateRow], names: Sequence[str]) -> dict[str, float]:
    """First and last value of each metric, for the manifest."""
    found: dict[str, float] = {}
    for name in names:
        values = [row.metrics[name] for row in history if name in row.metrics]
        if values:
            found[f"{name}_first"], found[f"{name}_last"] = float(values[0]), float(values[-1])
    return found


def commit_training(
    context: Context, files: dict[str, Path], history: Sequence[UpdateRow], names: Sequence[str]
) -> PhaseResult:
    """Commit what training made, with a summary of the metrics ``names``, and clear the checkpoints.

    Of several processes the first one does; what the others return here is read by nobody.
    """
    if not context.rank.first:
        return context.result("committed", {})
    committed = context.commit(context.config.prefix, files, summary(history, names))
    with contextlib.suppress(SelfevoError):  # who finds the output clears them, too
        checkpoints.clear(context)
    return context.result("committed" if committed.won else "found", committed.manifest.metrics)
