"""What scores answers that nothing can check. A judge is named by its digest, and its scores with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from selfevo_contract.phases import Loading, StepModelRef
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.judge_files import fetch_judge
from selfevo_trainer.judges.base import Judge

__all__ = ["Judge", "open_judge"]


@dataclass
class _TimedJudge:
    judge: Judge
    context: Context
    digest: str

    def score(self, tasks: Sequence[str], answers: Sequence[str]) -> list[float]:
        with self.context.clock.during("judging"):
            return self.judge.score(tasks, answers)

    def close(self) -> None:
        self.judge.close()


def open_judge(
    context: Context, ref: StepModelRef, loading: Loading, max_length: int | None, name: str = "judge"
) -> Judge:
    """The judge that the verifier-train step ``ref`` stands for; its time is counted as judging. In a phase with a
    server for it, that server is asked; elsewhere this process reads it.

    Args:
        max_length: most tokens of a task and its answer.
        name: folder of the working directory for its files.

    Raises:
        InputError: there is no such judge, or it cannot be loaded.
        ServiceError: store or server cannot be reached.
    """
    assert max_length is not None  # whoever has a judge has it
    files = fetch_judge(context, ref, name)
    server = context.config.judge_server
    with context.clock.during("load"):
        if server is None:
            from selfevo_trainer.judges.scalar import ScalarJudge  # it imports torch

            found: Judge = ScalarJudge.load(files.path, loading, max_length, files.digest)
        else:
            from selfevo_trainer.judges import held, served

            found = served.ServedJudge.open(context, server, files, loading, max_length)
            if os.environ.get("LOCAL_RANK", "0") == "0":  # each pod has servers of its own
                try:
                    held.check(context, found, files, loading, max_length)
                except BaseException:
                    found.close()
                    raise
        return _TimedJudge(found, context, files.digest)
