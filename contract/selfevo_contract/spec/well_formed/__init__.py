"""Label-free checks of an answer against its question: the settings of each kind, one kind a file.

An answer that fails a check has no vote. A kind is a file beside this one, a name in `Check`, and a file of its name in
`selfevo_trainer.well_formed`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.spec.well_formed.alphabet import AlphabetCheck
from selfevo_contract.spec.well_formed.choice import ChoiceCheck
from selfevo_contract.spec.well_formed.expression import ExpressionCheck
from selfevo_contract.spec.well_formed.length import LengthCheck
from selfevo_contract.spec.well_formed.number import NumberCheck

__all__ = ["AlphabetCheck", "Check", "ChoiceCheck", "ExpressionCheck", "LengthCheck", "NumberCheck"]

Check = Annotated[
    AlphabetCheck | ChoiceCheck | ExpressionCheck | LengthCheck | NumberCheck, Field(discriminator="kind")
]
