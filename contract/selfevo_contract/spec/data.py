"""A file of questions."""

from __future__ import annotations

from selfevo_contract.base import Closed, Sha256
from selfevo_contract.uris import StoreUri


class Data(Closed):
    """A JSON-lines file."""

    uri: StoreUri
    """Where it lies: s3://bucket/key, file:///path, or file:path beside the manifest."""
    digest: Sha256 | None = None
    """sha256 of the file; when given it is checked, and it identifies the data in place of the URI."""
