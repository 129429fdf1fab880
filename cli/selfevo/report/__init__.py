"""The report: one self-contained HTML file that says what a run did, or what several runs did differently.

write_report -> collect (the store -> data) -> figures, lineage (data -> plots) -> page (all of it -> HTML)
write_comparison -> collect, a run each -> compare (data of several -> differences) -> compare_page

What it stands on is in the store, so a run that is half done, or that ran elsewhere, has a report too; that a run
failed, and why, is known on the machine that ran it.
Left out: the models themselves, and every answer's full text; both are in the store, at the paths that the page names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from selfevo_contract.errors import InputError
from selfevo_contract.plan import Plan
from selfevo_contract.run import SelfEvolutionRun

if TYPE_CHECKING:
    from selfevo_store import ObjectStore

__all__ = ["Source", "write_comparison", "write_report"]


class Source(NamedTuple):
    """A run that a page is about."""

    run: SelfEvolutionRun
    plan: Plan
    store: ObjectStore
    failure: str = ""
    """Why it failed; empty when it did not."""


def write_report(run: SelfEvolutionRun, plan: Plan, store: ObjectStore, path: Path, failure: str = "") -> None:
    """Writes the report of ``run`` to ``path``, which appears complete or not at all. ``failure``: why it failed.

    Raises:
        SelfevoError: one sentence about what is wrong with the store, a file in it, ``path``, or the installation.
    """
    with _installed():
        from selfevo.report.collect import collect
        from selfevo.report.output import write_atomically
        from selfevo.report.page import render
    write_atomically(path, render(collect(run, plan, store, failure)))


def write_comparison(sources: Sequence[Source], path: Path) -> list[str]:
    """Writes the page on several runs to ``path``, as `write_report` does. Returns its first sentences.

    Raises:
        SelfevoError: one sentence, as `write_report`'s.
    """
    with _installed():
        from selfevo.report.collect import collect
        from selfevo.report.compare import compare
        from selfevo.report.compare_page import render_comparison, sentences
        from selfevo.report.output import write_atomically
    comparison = compare([collect(*source, questions=False) for source in sources])
    write_atomically(path, render_comparison(comparison))
    return sentences(comparison)


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("plotly", "jinja2", "markupsafe"):
            raise
        raise InputError(
            f"the report needs the package {error.name}, which is not installed; pip install 'selfevo[trainer]'"
        ) from None
