"""What several checks have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

After = Annotated[str, Field(min_length=1, max_length=200)]
"""A mark in the question, behind whose last occurrence the part lies that an answer is compared with."""
