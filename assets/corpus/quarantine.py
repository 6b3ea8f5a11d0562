"""Quarantine: what was listed but may not enter, with the reason and a way back.

Belongs here: the policies about single documents, releases, refusal of forgotten documents, and the table.
Does not belong here: gates about the whole refresh (checks.py) and parsing itself.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from resources.errors import PermanentError
from resources.policy_config import DETECTORS, CorpusPolicy
from resources.postgres import Connection

#: Policy, not inability: a person may let exactly this content in (``genaiops quarantine release``).
RELEASABLE = (
    "too_large",
    "too_short",
    "licence",
    "expired",
    "screening:failed",
    *(f"screening:{detector}" for detector in DETECTORS),
)
#: Refused by design rather than by trouble, so these do not count towards the quarantine share.
EXPECTED = ("unsupported", "forgotten", "expired")


@dataclass(frozen=True)
class Quarantined:
    """A document that may not enter; ``reason`` is a sentence without any of its text."""

    path: str
    code: str
    reason: str
    size: int | None = None
    content_hash: bytes | None = None


@dataclass(frozen=True)
class QuarantineState:
    """What the database says about refusals when a refresh begins.

    Attributes:
        released: path to the content a person let in; None: whatever is found there first (it was never read).
        forgotten_paths: erased on request, in this source.
        forgotten_contents: hashes of erased contents, of any source.
    """

    released: Mapping[str, bytes | None]
    forgotten_paths: Collection[str]
    forgotten_contents: Collection[bytes]

    def is_released(self, path: str, content: bytes) -> bool:
        """Whether a person let this content in at this path."""
        return path in self.released and self.released[path] in (None, content)


def read_state(connection: Connection, source: str) -> QuarantineState:
    """Read releases and erasures that a refresh of ``source`` has to respect."""
    released = connection.execute(
        "SELECT path, content_hash FROM quarantine WHERE source = %s AND released_by IS NOT NULL AND code = ANY(%s)",
        (source, list(RELEASABLE)),
    ).fetchall()
    forgotten = connection.execute(
        # a document erased in one shard stays erased when the number of shards moves it to another
        "SELECT CASE WHEN split_part(source, '.', 1) = split_part(%s, '.', 1) THEN path END, content_hash FROM forgotten",
        (source,),
    ).fetchall()
    return QuarantineState(
        released=dict(released),
        forgotten_paths={path for path, _ in forgotten if path is not None},
        forgotten_contents={content for _, content in forgotten if content is not None},
    )


def judge_size(path: str, size: int, policy: CorpusPolicy, content: bytes | None = None) -> Quarantined | None:
    """Refuse a document above the size limit."""
    if size <= policy.maximum_bytes:
        return None
    reason = f"{size:,} bytes, allowed are {policy.maximum_bytes:,}"
    return Quarantined(path, "too_large", reason, size, content)


def judge_document(
    path: str, size: int, content: bytes, characters: int, licence: str | None, policy: CorpusPolicy
) -> Quarantined | None:
    """Refuse a parsed document that is too short or under a licence that is not allowed."""
    if characters < policy.minimum_characters:
        reason = f"{characters} characters, at least {policy.minimum_characters} are asked for"
        return Quarantined(path, "too_short", reason, size, content)
    if policy.allowed_licences != "any" and not licence_allowed(licence, policy.allowed_licences):
        stated = f"the licence {licence!r} is not among those allowed" if licence else "no licence is stated"
        reason = f"{stated}: {', '.join(policy.allowed_licences)}"
        return Quarantined(path, "licence", reason, size, content)
    return None


def judge_age(path: str, changed: Collection[datetime | None], oldest: datetime | None) -> Quarantined | None:
    """Refuse a document that was last changed before ``oldest``; one that states no time is kept.

    Args:
        changed: when the document says so, and when its source does; the earlier of the two counts, because copying a
            file makes it look new.
    """
    known = [moment for moment in changed if moment is not None]
    if oldest is None or not known or min(known) >= oldest:
        return None
    # no hash: what is not kept needs no cached text either
    return Quarantined(path, "expired", f"last changed on {min(known):%Y-%m-%d}; the source keeps less (keep_days)")


def licence_allowed(licence: str | None, allowed: Sequence[str]) -> bool:
    """Whether an SPDX expression is covered: one side of an OR suffices, both sides of an AND are needed."""
    known = {name.casefold() for name in allowed}
    if not licence:
        return False
    if licence.casefold() in known:
        return True
    expression = " ".join(licence.replace("(", " ").replace(")", " ").split()).casefold()
    return any(all(part.strip() in known for part in side.split(" and ")) for side in expression.split(" or "))


@dataclass(frozen=True)
class QuarantineRow:
    """A row of the table; ``released_by``: a person let exactly this content in, for ``released_reason``."""

    source: str
    path: str
    code: str
    reason: str
    size: int | None
    first_seen: datetime
    released_by: str | None
    released_reason: str | None = None


def list_quarantined(connection: Connection, source: str | None = None) -> list[QuarantineRow]:
    """Everything in quarantine, releases included, of one source or of all."""
    rows = connection.execute(
        """SELECT source, path, code, reason, bytes, first_seen, released_by, released_reason FROM quarantine
           WHERE %(source)s::text IS NULL OR source = %(source)s ORDER BY source, path""",
        {"source": source},
    ).fetchall()
    return [QuarantineRow(*row) for row in rows]


def release(connection: Connection, source: str, path: str, *, by: str, why: str | None = None) -> None:
    """Let the content that is in quarantine now enter at the next refresh; other content at that path stays refused.

    What a policy masks is still masked in released content.

    Args:
        by: who decided.
        why: the reason, kept with the decision and shown in the list.

    Raises:
        PermanentError: the document is not in quarantine, or for a reason that no decision can lift.
    """
    row = connection.execute(
        "SELECT code, reason FROM quarantine WHERE source = %s AND path = %s FOR UPDATE", (source, path)
    ).fetchone()
    if row is None:
        known = [item.path for item in list_quarantined(connection, source)]
        nearest = difflib.get_close_matches(path, known, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise PermanentError(f"{source}/{path} is not in quarantine.{hint}")
    if row[0] not in RELEASABLE:
        raise PermanentError(f"{source}/{path} cannot be released, because it is there for {row[0]}: {row[1]}")
    connection.execute(
        "UPDATE quarantine SET released_by = %s, released_reason = %s WHERE source = %s AND path = %s",
        (by, why, source, path),
    )


def write(
    connection: Connection,
    source: str,
    run_id: str,
    quarantined: Sequence[Quarantined],
    released: Mapping[str, bytes],
) -> None:
    """Make the table say what this refresh found: rows of resolved documents go, releases in use stay.

    Args:
        quarantined: every document refused now.
        released: path to content of the documents that entered by a release.
    """
    connection.execute(
        "DELETE FROM quarantine WHERE source = %s AND path <> ALL(%s)",
        (source, [*released, *(item.path for item in quarantined)]),
    )
    if released:
        connection.execute(
            """UPDATE quarantine SET content_hash = entered.content_hash, last_seen = now()
               FROM unnest(%s::text[], %s::bytea[]) entered (path, content_hash)
               WHERE quarantine.source = %s AND quarantine.path = entered.path""",
            (list(released), list(released.values()), source),
        )
    rows = sorted(quarantined, key=lambda item: item.path)
    connection.execute(
        # a release that came while this refresh ran is kept for the next one
        """INSERT INTO quarantine (source, path, content_hash, code, reason, bytes, run_id)
           SELECT %s, path, content_hash, code, reason, bytes, %s
           FROM unnest(%s::text[], %s::bytea[], %s::text[], %s::text[], %s::bigint[])
                found (path, content_hash, code, reason, bytes)
           ON CONFLICT (source, path) DO UPDATE SET
               content_hash = EXCLUDED.content_hash, code = EXCLUDED.code, reason = EXCLUDED.reason,
               bytes = EXCLUDED.bytes, run_id = EXCLUDED.run_id, last_seen = now(),
               first_seen = CASE WHEN quarantine.code = EXCLUDED.code
                                  AND quarantine.content_hash IS NOT DISTINCT FROM EXCLUDED.content_hash
                                 THEN quarantine.first_seen ELSE now() END,
               released_by = CASE WHEN EXCLUDED.code = ANY(%s)
                                   AND quarantine.content_hash IS NOT DISTINCT FROM EXCLUDED.content_hash
                                  THEN quarantine.released_by END,
               released_reason = CASE WHEN EXCLUDED.code = ANY(%s)
                                       AND quarantine.content_hash IS NOT DISTINCT FROM EXCLUDED.content_hash
                                      THEN quarantine.released_reason END""",
        (
            source,
            run_id,
            [item.path for item in rows],
            [item.content_hash for item in rows],
            [item.code for item in rows],
            [item.reason for item in rows],
            [item.size for item in rows],
            list(RELEASABLE),
            list(RELEASABLE),
        ),
    )
