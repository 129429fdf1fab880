"""What the settings of several kinds of trackers share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfevo_contract.rules import form

Project = Annotated[
    str, Field(min_length=1, max_length=128), form("[A-Za-z0-9_.-]+", "letters, digits, '-', '_' and '.'")
]
"""The name of a project, an entity or an experiment."""
PROJECT = "selfevo"
"""The project where none is given."""
