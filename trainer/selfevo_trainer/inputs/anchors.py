"""Anchors: pairs with a known order, by which judges are measured. Those that are sealed no phase trains on."""

from __future__ import annotations

import json
from dataclasses import dataclass

from selfevo_contract.canonical import derive_seed
from selfevo_contract.errors import InputError
from selfevo_contract.spec.data import Data
from selfevo_contract.spec.verifier import Verifier
from selfevo_trainer.answers.extraction import normalise_question
from selfevo_trainer.context import Context
from selfevo_trainer.inputs.data import read_columns

FIELD = "spec.verifier.anchors.data"
_PARTS = 1 << 20


@dataclass(frozen=True)
class Anchor:
    """A pair whose order is known."""

    question: str
    chosen: str
    rejected: str
    maker: str = ""
    """The maker of pairs that made it, where the data says so."""
    agrees: bool = True
    """Whether that maker puts it in the order that is known."""


@dataclass(frozen=True)
class Anchors:
    """A run's anchors."""

    beginning: tuple[Anchor, ...]
    """Those by which a fresh score head begins."""
    sealed: tuple[Anchor, ...]


def read_anchors(context: Context, settings: Verifier) -> Anchors:
    """The anchors of ``settings``. Without a reward model a part of their questions is where a fresh head begins.

    Raises:
        InputError: they cannot be read, one has no order, or too few are sealed or begin.
    """
    data, begin = settings.sealed.data, settings.sealed.begin
    anchors = read_pairs(context, data)
    fresh = settings.model is None
    begins = [fresh and _begins(anchor.question, begin) for anchor in anchors]
    split = Anchors(
        tuple(anchor for anchor, first in zip(anchors, begins, strict=True) if first),
        tuple(anchor for anchor, first in zip(anchors, begins, strict=True) if not first),
    )
    if len(split.sealed) < 2 or (fresh and not split.beginning):
        raise InputError(
            f"{FIELD}.uri is {data.uri!r}, of whose {len(anchors)} pairs {len(split.sealed)} are sealed and "
            f"{len(split.beginning)} are for the score head to begin with (spec.verifier.anchors.begin is "
            f"{begin}); add pairs with other questions, or name a reward model as spec.verifier.model"
        )
    return split


def read_pairs(context: Context, data: Data) -> list[Anchor]:
    """All pairs of ``data``, in order.

    Raises:
        InputError: they cannot be read, or one has no order.
    """
    rows = read_columns(context, data, FIELD, ("question", "chosen", "rejected"), optional=("maker", "agrees"))
    return [_anchor(row, number, data.uri) for number, row in enumerate(rows, 1)]


def _anchor(row: tuple[str, ...], number: int, uri: str) -> Anchor:
    question, chosen, rejected, maker, agrees = row
    if chosen.strip() == rejected.strip():
        raise InputError(
            f"{FIELD}.uri is {uri!r}, whose row {number} has {json.dumps(chosen)[:40]} as chosen and as rejected; "
            "give it an order, or remove it"
        )
    if agrees not in ("", "true", "false"):
        raise InputError(
            f"{FIELD}.uri is {uri!r}, whose row {number} has {json.dumps(agrees)[:40]} in column 'agrees'; write "
            '"true" or "false"'
        )
    return Anchor(question, chosen, rejected, maker, agrees != "false")


def _begins(question: str, share: float) -> bool:
    """By its question alone: no question is on both sides, and it is on the same one in every run, forks too."""
    return derive_seed(0, "anchors", normalise_question(question)) % _PARTS < share * _PARTS
