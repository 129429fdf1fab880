"""An answer composed of parts that were answered one by one, over one written at once.

Source: J-Zero, arXiv 2608.26582.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfevo_trainer.pairs.base import Made, Part, Sources

SPLIT = (
    "Here is a task.\n\n{task}\n\nDo not do it yet. Split it into 3 to 5 smaller parts that together are the whole "
    "task. Write each part on a line of its own that begins with '- ', and nothing else."
)
DO = "Here is a task.\n\n{task}\n\nDo only this part of it: {part}"
COMPOSE = (
    "{task}\n\nThese are drafts of its parts:\n\n{drafts}\n\nMake one answer to the whole task of them. It is not "
    "longer than it must be."
)
LEAST, MOST = 2, 5
"""The least number of parts with which a task is decomposed, and the most that are read."""
_LINE = re.compile(r"^[ \t]*(?:[-*•]|[0-9]{1,2}[.)])[ \t]+(\S.*)$", re.MULTILINE)


def make(sources: Sources) -> list[Made]:
    """Every task that the Solver splits into parts."""
    split = sources.solver([SPLIT.replace("{task}", task) for task in sources.tasks], "split")
    parts = {i: found for i, text in enumerate(split) if len(found := parts_of(text)) >= LEAST}
    asked = [(i, part) for i, found in parts.items() for part in found]
    done = sources.solver([_fill(DO, task=sources.tasks[i], part=part) for i, part in asked], "parts")
    answered: dict[int, list[Part]] = {i: [] for i in parts}
    for (i, part), answer in zip(asked, done, strict=True):
        answered[i].append(Part(part, answer))
    composed = sources.solver(
        [_fill(COMPOSE, task=sources.tasks[i], drafts=_drafts(found)) for i, found in answered.items()], "compose"
    )
    return [
        Made(i, whole, sources.answers[i], tuple(found))
        for (i, found), whole in zip(answered.items(), composed, strict=True)
    ]


def parts_of(text: str) -> list[str]:
    r"""The parts that ``text`` lists, at most five of them.

    >>> parts_of("Sure:\n- the hero\n2) the end\nno part")
    ['the hero', 'the end']
    """
    return [part.strip() for part in _LINE.findall(text)][:MOST]


def _drafts(parts: Sequence[Part]) -> str:
    return "\n\n".join(f"{part.question}\n{part.answer}" for part in parts)


def _fill(template: str, **values: str) -> str:
    # All at once: what is put in may hold another one's name.
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)
