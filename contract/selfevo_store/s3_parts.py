"""Large objects in parts: how their bytes go between the connections and memory, where boto3's own way takes more CPU
(docs/decisions/0017)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

from selfevo_contract import reasons
from selfevo_contract.errors import InputError

PARTS_AT_ONCE = 4
"""Requests for parts of one file that are under way."""
_PIECE = 128 << 10
"""Bytes that are sent at once. A piece has to be sent within the connection's timeout, so it cannot be a whole part."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

T = TypeVar("T")
R = TypeVar("R")


class Part(NamedTuple):
    """A range of an object, read."""

    data: bytes
    whole: int
    """Size of the object."""
    etag: str | None
    """Which object it is of; None where the store does not say, or a proxy has made it a weak one, which If-Match never
    matches (RFC 9110, 13.1.1)."""

    @classmethod
    def of(cls, response: Mapping[str, Any], start: int, size: int, uri: str) -> Self:
        """Reads the answer to GetObject for ``size`` bytes from ``start`` on.

        Raises:
            InputError: when the store has answered something else.
        """
        body, answered = response["Body"], response.get("ContentRange")
        data, more = body.read(size), body.read(1)  # the last read raises when fewer bytes came than were announced
        found = _CONTENT_RANGE.fullmatch(answered or "")
        begun, whole = (int(found[1]), int(found[2])) if found else (0, len(data))
        if more or bool(answered) != bool(found) or begun != start or len(data) != min(size, whole - start):
            raise InputError(
                f"{uri}: the store answers a request for bytes {start} to {start + size - 1} with "
                f"{'more than ' if more else ''}{len(data)} bytes ({answered or 'no Content-Range'}); use a store that "
                "honours Range, or go around the proxy before it",
                reason=reasons.STORE_INVALID,
            )
        etag: str = response.get("ETag") or "W/"
        return cls(data, whole, None if etag.startswith("W/") else etag)


def read_ahead(read: Callable[[T], R], items: Iterable[T]) -> Generator[R]:
    """``read(item) for item in items``, in their order, PARTS_AT_ONCE of them under way."""
    items = iter(items)
    pool = ThreadPoolExecutor(max_workers=PARTS_AT_ONCE, thread_name_prefix="part")
    try:
        waiting = deque(pool.submit(read, item) for item in islice(items, PARTS_AT_ONCE))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(read, item) for item in islice(items, 1))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_larger_pieces(params: dict[str, Any], **_: Any) -> None:
    """A handler of botocore's event ``before-call``: a body that is a file is sent by `_Pieces`."""
    if hasattr(params["body"], "read"):
        params["body"] = _Pieces(params["body"])


class _Pieces:
    """A body that gives more than it is asked for: http.client asks for 16 KiB at a time, 65,536 times a GiB."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self._data = memoryview(body.read())
        self._position = 0

    def __len__(self) -> int:
        return len(self._data)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, len(self._data))[whence])
        return self._position

    def read(self, size: int | None = None) -> memoryview:
        """``size`` bytes or more, without copying them."""
        self._body.read(0)  # raises what has ended the transfer meanwhile
        end = None if size is None or size < 0 else self._position + max(size, _PIECE)
        piece = self._data[self._position : end]
        self._position += len(piece)
        return piece

    def readinto(self, buffer: memoryview) -> int:
        """What fits into ``buffer``: for awscrt, by which botocore signs where it is installed."""
        piece = self._data[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
