"""Work in shards and chunks: rows are committed a part at a time, so that a killed attempt loses one part at most.

A row has a number, counted from 0 over the whole step. A chunk is a committed directory that its numbers name
(artifacts.chunk_prefix). Which process made it, and how the step was cut when it did, matters to nobody: what a row
holds depends on its number alone. So the next attempt makes what is missing, on another number of shards too. Whoever
sees all rows makes the whole of them (docs/design.md, decision 3).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from selfevo_contract.artifacts import Manifest, chunk_prefix, chunks_prefix, committed_chunks
from selfevo_contract.errors import ServiceError, Terminated
from selfevo_contract.process import PhaseResult
from selfevo_contract.rows import R, Row, RowFile
from selfevo_store import CorruptArtifact, fetch_rows
from selfevo_store.base import in_parallel
from selfevo_trainer.context import Context

log = logging.getLogger("selfevo")

Beside = TypeVar("Beside", bound=Row)
_TRIES = 3


def share_of(total: int, shards: int, shard: int) -> range:
    """The numbers of ``shard``: as many as of any other, give or take one, and ``total`` in all.

    >>> [share_of(8, 3, shard) for shard in range(3)]
    [range(0, 3), range(3, 6), range(6, 8)]
    """
    size, over = divmod(total, shards)
    first = shard * size + min(shard, over)
    return range(first, first + size + (shard < over))


def cut(numbers: Iterable[int], size: int | None) -> Iterator[range]:
    """``numbers``, which ascend, as chunks of at most ``size`` without a gap inside; ``size`` None: as few as can be.

    >>> list(cut([0, 1, 2, 5, 6], 2))
    [range(0, 2), range(2, 3), range(5, 7)]
    """
    chunk = range(0)
    for number in numbers:
        if chunk and number == chunk.stop and len(chunk) != size:
            chunk = range(chunk.start, number + 1)
            continue
        if chunk:
            yield chunk
        chunk = range(number, number + 1)
    if chunk:
        yield chunk


class Chunks(Generic[R]):
    """What is committed of one kind of a step's rows. What was read once is not read again."""

    def __init__(self, context: Context, kind: str, file: RowFile[R]) -> None:
        self.context, self.kind, self.file = context, kind, file
        self.damaged: set[int] = set()
        """Numbers of the rows that were in damaged chunks."""
        self._known: dict[range, tuple[Manifest, list[R]]] = {}

    def covered(self) -> set[int]:
        """The numbers of which there are chunks, by their names alone: no row is read.

        Raises:
            InputError: the store refuses to be read.
            ServiceError: the store failed.
        """
        with self.context.clock.during("store"):
            return {number for chunk in self._there() for number in chunk}

    def read(self, numbers: Iterable[int]) -> dict[int, R]:
        """The rows with ``numbers`` as far as they are committed.

        A damaged chunk is passed over, which the log says, and removed, for its place is needed when it is made again.
        Nothing else is: a store that fails is for the next attempt.

        Raises:
            InputError: the store refuses to be read, a row is of no known form, or a chunk is another step's.
            ServiceError: the store failed.
        """
        wanted = set(numbers)
        with self.context.clock.during("store"):
            there = [chunk for chunk in self._there() if not wanted.isdisjoint(chunk)]
            for chunk, found in zip(there, in_parallel(self._fetch, there), strict=True):
                if isinstance(found, CorruptArtifact):
                    self._pass_over(chunk, found)
                elif found is not None:
                    self._known[chunk] = found
        rows: dict[int, R] = {}
        for chunk in there:
            if chunk in self._known:
                for number, row in zip(chunk, self._known[chunk][1], strict=True):
                    if number in wanted:
                        rows.setdefault(number, row)
        return rows

    def beside(self, file: RowFile[Beside]) -> Iterator[tuple[range, list[Beside]]]:
        """What the chunks that were read have in ``file``, which a chunk may lack, chunk by chunk.

        Yields:
            the numbers that count of the chunk, those which none before it has, and the file's rows.

        Raises:
            InputError: the store refuses to be read, or a row is of no known form.
            CorruptArtifact: the file is damaged; its chunk is passed over as in ``read``.
            ServiceError: the store failed.
        """
        first = 0
        for chunk in sorted(self._known, key=lambda chunk: (chunk.start, chunk.stop)):
            mine = range(max(first, chunk.start), chunk.stop)
            first = max(first, chunk.stop)
            manifest = self._known[chunk][0]
            if not mine or manifest.file(file.name) is None:
                continue
            with self.context.clock.during("store"):
                place = chunk_prefix(self.context.config.prefix, self.kind, chunk)
                try:
                    rows = fetch_rows(self.context.store, place, manifest, file)
                except CorruptArtifact as error:
                    self._pass_over(chunk, error)
                    raise
            yield mine, rows

    def commit(
        self,
        numbers: range,
        rows: Sequence[R],
        metrics: dict[str, float] | None = None,
        beside: Mapping[str, Path] | None = None,
    ) -> None:
        """Make ``rows`` exist, unless another process was faster; then end, if that was asked for.

        Args:
            beside: further files of the chunk, by their names.

        Raises:
            Terminated: SIGTERM came while the chunk was committed.
        """
        context = self.context
        files = {**self.file.write(context.workdir / f"{self.kind}-{numbers.start}", rows), **(beside or {})}
        place = chunk_prefix(context.config.prefix, self.kind, numbers)
        context.commit(place, files, metrics, context.lap())
        for file in files.values():
            file.unlink()
        if context.stop.requested:
            raise Terminated("stopped on request; the next attempt goes on behind the chunks that are committed")

    def timings(self) -> dict[str, float]:
        """Seconds by activity of the processes that made the chunks that were read, added up."""
        seconds: dict[str, float] = defaultdict(float)
        for manifest, _ in self._known.values():
            for name, spent in manifest.timings.items():
                seconds[name] += spent
        return dict(seconds)

    def counted(self, prefix: str) -> dict[str, float]:
        """The metrics below ``prefix`` of the chunks that were read, added up."""
        found: dict[str, float] = defaultdict(float)
        for manifest, _ in self._known.values():
            for name, value in manifest.metrics.items():
                if name.startswith(prefix):
                    found[name] += value
        return dict(found)

    def _there(self) -> list[range]:
        prefix = self.context.config.prefix
        keys = (info.key for info in self.context.store.list(chunks_prefix(prefix, self.kind)))
        return committed_chunks(prefix, self.kind, keys)

    def _fetch(self, chunk: range) -> tuple[Manifest, list[R]] | CorruptArtifact | None:
        if chunk in self._known:
            return self._known[chunk]
        place = chunk_prefix(self.context.config.prefix, self.kind, chunk)
        try:
            manifest = self.context.own_manifest(place)
            if manifest is None:
                return None  # passed over and removed by another process
            rows = fetch_rows(self.context.store, place, manifest, self.file)
        except CorruptArtifact as error:
            return error
        if len(rows) != len(chunk):
            where = self.context.store.uri_of(place)
            return CorruptArtifact(f"{where}: has {len(rows)} rows, and its name says {len(chunk)}")
        return manifest, rows

    def _pass_over(self, chunk: range, error: CorruptArtifact) -> None:
        log.warning("the %s %d to %d are passed over and made again: %s", self.kind, chunk.start, chunk.stop - 1, error)
        self.damaged.update(chunk)
        self._known.pop(chunk, None)
        self.context.store.delete_prefix(chunk_prefix(self.context.config.prefix, self.kind, chunk))


def in_shards(
    chunks: Chunks[R],
    total: int,
    mine: Sequence[int],
    make: Callable[[list[int]], None],
    gather: Callable[[], dict[str, Path]],
    finish: Callable[[list[R], dict[str, Path]], PhaseResult],
) -> PhaseResult:
    """Make what is missing of this shard's rows, then the whole if no shard's are missing.

    Args:
        chunks: those by which the step is whole.
        total: rows of the whole step.
        mine: the numbers of this shard's rows.
        make: commits the rows with these numbers, which ascend, as ``chunks``.
        gather: files of the step from what the chunks have beside their rows. When it raises CorruptArtifact, the
            chunk that it passed over is made again.
        finish: makes the whole of all rows, in order, and of those files.

    Raises:
        ServiceError: what was committed was damaged each time that it was read.
    """
    context = chunks.context
    wanted = set(mine)
    for _ in range(_TRIES):
        missing = sorted(wanted - chunks.read(wanted).keys())
        if missing:
            make(missing)
        there = chunks.covered()
        if wanted <= there and not there.issuperset(range(total)):
            return context.result("shard", {})  # before all are there nobody needs the others' rows
        rows = chunks.read(range(total))
        # Whose shard a damaged chunk was in has perhaps ended: who sees the damage makes it good.
        if len(rows) == total:
            try:
                files = gather()
            except CorruptArtifact:
                wanted = {*mine, *chunks.damaged}
                continue
            return finish([rows[number] for number in range(total)], files)
        wanted = {*mine, *chunks.damaged}
        if wanted <= rows.keys():
            return context.result("shard", {})
    raise ServiceError(
        f"{context.store.uri_of(context.config.prefix)}: chunks are damaged as often as they are made; see the log for "
        "their names, and check the store"
    )


def seconds_of_all(context: Context, others: Mapping[str, float], *chunks: Chunks[Any]) -> dict[str, float]:
    """Seconds by activity of all processes that had a part in what is committed."""
    seconds = Counter(context.lap())
    seconds.update(others)
    for kind in chunks:
        seconds.update(kind.timings())
    return {name: round(spent, 3) for name, spent in seconds.items()}
