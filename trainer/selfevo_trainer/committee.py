"""The second vote of a committee (`rollout.labels: committee`; docs/method.md, "Committee").

It is taken before the Solver answers, and committed in chunks of its own, so that each model is loaded once and what is
lost with a killed attempt is a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from selfevo_contract.canonical import derive_seed
from selfevo_contract.phases import SolverRolloutInputs
from selfevo_contract.rows import InvalidCompletion, WrittenQuestion
from selfevo_contract.rows_between import SecondedQuestion
from selfevo_trainer.chunks import Chunks, cut
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.frozen import open_frozen
from selfevo_trainer.inputs.model_files import fetch_model
from selfevo_trainer.models.loading import load_tokenizer
from selfevo_trainer.process.pace import Pace
from selfevo_trainer.prompts import encode, messages
from selfevo_trainer.ratings import voted

SecondedRow = SecondedQuestion | InvalidCompletion


def second(
    context: Context,
    inputs: SolverRolloutInputs,
    questions: Mapping[int, WrittenQuestion | InvalidCompletion],
    seconded: Chunks[SecondedRow],
) -> None:
    """The committee's other Solver votes on ``questions``, as far as its votes are not committed.

    Its random streams are its own: where it is the Solver itself, it votes anew.
    """
    missing = sorted(set(questions) - seconded.read(questions).keys())
    if not missing:
        return
    assert inputs.member is not None
    seed, done, total, pace = derive_seed(inputs.seed, "committee"), 0, len(missing) * inputs.samples, Pace()
    context.progress("asking the committee", done, total)
    with closing(open_frozen(context, inputs, "member", [inputs.answer_sampling], inputs.max_prompt_length)) as engine:
        with context.clock.during("load"):
            tokenizer = load_tokenizer(fetch_model(context, inputs.member, "member"), inputs.loading)
        with context.grader(inputs.grading) as grader:
            for numbers in cut(missing, context.config.chunk_questions):
                prompts = {
                    number: messages(inputs.solver_prompt, row.question)
                    for number in numbers
                    if isinstance(row := questions[number], WrittenQuestion)
                }
                asked = [
                    n for n, prompt in prompts.items() if len(encode(tokenizer, prompt)) <= inputs.max_prompt_length
                ]
                answers = engine.generate(
                    [prompts[number] for number in asked], inputs.answer_sampling, inputs.samples, seed, asked
                )
                with context.clock.during("grading"):
                    texts = [questions[number].question or "" for number in asked]
                    found = voted(inputs.well_formed, texts, answers, grader)
                votes = {number: vote for number, (_, vote, _) in zip(asked, found, strict=True)}
                rows: list[SecondedRow] = []
                for number in numbers:
                    row, vote = questions[number], votes.get(number)
                    if isinstance(row, InvalidCompletion):
                        rows.append(row)
                        continue
                    answer, share = (None, 0.0) if vote is None else (vote.answer, vote.share)
                    rows.append(
                        SecondedQuestion(
                            question=row.question, proposed=row.proposed, second=answer, second_share=share
                        )
                    )
                seconded.commit(numbers, rows, {"questions": float(len(rows))})
                pace.add([completion for group in answers for completion in group])
                done += len(numbers) * inputs.samples
                context.progress("asking the committee", done, total, pace=pace)
