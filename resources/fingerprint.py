"""Fingerprints: one hash over everything that can change a result.

Belongs here: canonical JSON and the hashes used as cache keys and content addresses.
Does not belong here: deciding what goes into a key; that is the business of the step that owns the cache.
"""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys, no spaces and no NaN, so that equal values give equal text.

    Raises:
        ValueError: on NaN or infinity, which have no canonical form.
        TypeError: on a value JSON cannot hold.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the 32-character hexadecimal BLAKE2b-128 of the canonical JSON of ``value``."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()


def text_hash(text: str) -> bytes:
    """Return the 16-byte BLAKE2b content address of a text, as stored in ``bytea`` columns."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def content_hash(data: bytes) -> bytes:
    """Return the 32-byte SHA-256 of raw bytes: what an auditor gets from ``sha256sum``."""
    return hashlib.sha256(data).digest()
