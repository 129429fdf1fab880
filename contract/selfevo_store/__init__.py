"""The object store: s3:// and file:// behind one interface, commit by manifest, reads that check every digest.

open_store, open_storage          whole objects under keys                      base.py file.py s3.py
commit, read_manifest             a directory exists when its manifest does     committed.py probe.py
upload_part, commit_parts         the same by several processes together       committed.py
read_own_manifest                 the same, and another step's is refused      committed.py
fetch, read_file, download_tree   only what the manifest names, checked         reading.py cache.py
fetch_rows                        a file of typed rows                          reading.py
verify                            what is damaged, for people                   reading.py
leave_record, known_records, read_record   what a run leaves of itself          run_records.py

Left out: deleting what nobody refers to, and a bound on the cache, which lives as long as the volume it is on.
"""

from __future__ import annotations

from pathlib import Path

from selfevo_contract.errors import InputError
from selfevo_contract.spec.storage import Storage
from selfevo_store.base import Checksum, ObjectInfo, ObjectStore
from selfevo_store.committed import (
    CommitResult,
    commit,
    commit_parts,
    new_write_id,
    read_manifest,
    read_own_manifest,
    remove_parts,
    upload_part,
)
from selfevo_store.probe import probe_conditional_put
from selfevo_store.problems import CorruptArtifact, ObjectNotFound
from selfevo_store.reading import Problem, download_tree, fetch, fetch_rows, read_file, verify
from selfevo_store.run_records import known_records, leave_record, read_record

__all__ = [
    "CommitResult",
    "CorruptArtifact",
    "ObjectInfo",
    "ObjectNotFound",
    "ObjectStore",
    "Problem",
    "commit",
    "commit_parts",
    "download_tree",
    "fetch",
    "fetch_rows",
    "known_records",
    "leave_record",
    "new_write_id",
    "open_storage",
    "open_store",
    "probe_conditional_put",
    "read_file",
    "read_manifest",
    "read_own_manifest",
    "read_record",
    "remove_parts",
    "upload_part",
    "verify",
]


def open_store(
    uri: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    require_conditional_put: bool = True,
    checksum: Checksum | None = None,
    cache_dir: Path | None = None,
) -> ObjectStore:
    """The store at ``uri``. Nothing is asked of it yet: a wrong address shows at the first use.

    Args:
        uri: ``s3://bucket/prefix`` or ``file:///absolute/path``.
        endpoint: Address of an S3-compatible store, which is then used with path-style addressing; AWS when None.
        region: Of the bucket; the store's default when None.
        require_conditional_put: Refuse a store that ignores ``If-None-Match: *``.
        checksum: Whether uploads carry a checksum header (``storage.checksum``); the SDK's setting when None.
        cache_dir: Keep what ``fetch`` reads here, by digest; no cache when None.

    Raises:
        InputError: when ``uri`` is neither, or endpoint, region or the credentials' profile are malformed.
    """
    # Imported here: boto3 is needed for s3:// only, and neither for `import selfevo_store`.
    if uri.startswith("s3://"):
        from selfevo_store.s3 import S3Store

        return S3Store(
            uri,
            endpoint=endpoint,
            region=region,
            require_conditional_put=require_conditional_put,
            checksum=checksum,
            cache_dir=cache_dir,
        )
    if uri.startswith("file://"):
        from selfevo_store.file import FileStore

        return FileStore(uri, require_conditional_put=require_conditional_put, cache_dir=cache_dir)
    raise InputError(f"storage.uri {uri!r} is neither s3://<bucket>/<prefix> nor file:///<absolute path>")


def open_storage(storage: Storage, *, cache_dir: Path | None = None) -> ObjectStore:
    """The store that ``spec.storage`` names, as `open_store` opens it."""
    return open_store(
        storage.uri,
        endpoint=storage.endpoint,
        region=storage.region,
        require_conditional_put=storage.require_conditional_put,
        checksum=storage.checksum,
        cache_dir=cache_dir,
    )
