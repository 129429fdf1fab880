"""The object store."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfevo_contract.base import Closed
from selfevo_contract.spec.names import Name
from selfevo_contract.uris import Endpoint, StoreUri

SAMPLED_QUESTIONS = 512
"""Most questions of a rollout whose answers are kept when a sample is."""


class Storage(Closed):
    """The object store that holds every output."""

    uri: StoreUri
    """s3://bucket/prefix, file:///path, or file:path beside the manifest."""
    endpoint: Endpoint | None = None
    """Address of an S3-compatible store; AWS when not given."""
    region: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Region of the bucket."""
    credentials_secret: Name | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the pod's own identity when not given."""
    require_conditional_put: bool = True
    """Refuse a store that ignores `If-None-Match: *`, because two attempts could then overwrite each other."""
    checksum: Literal["whenRequired", "whenSupported"] | None = None
    """Whether uploads to S3 carry a checksum header: whenSupported for a bucket with Object Lock, which refuses those
    without; whenRequired for a store that does not know the header. When not given, the SDK's own setting
    (AWS_REQUEST_CHECKSUM_CALCULATION), or else whenRequired."""
    keep_answers: Literal["all", "sample", "votes"] = "sample"
    """Whose full texts are stored beside the votes (texts.parquet): of all answers; of a sample of each rollout's
    questions, at most 512, with all answers to each, and of every evaluation; or of none."""
