"""Checks on a refresh: is the planned state of a source plausible?

Belongs here: the statistics behind the checks of raw_documents, and their outcomes; all blocking unless said.
Does not belong here: policies about single documents (quarantine.py), and committing (refresh.py).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.corpus.quarantine import EXPECTED, Quarantined
from assets.corpus.refresh import RefreshPlan
from assets.corpus.screening.near_duplicates import Duplicate, clusters
from assets.corpus.screening.stage import Verdict
from assets.outcomes import CheckOutcome, great_expectations_outcome
from resources.policy_config import DETECTORS, CorpusPolicy, Policies
from resources.postgres import Connection

if TYPE_CHECKING:
    import pandas as pd

CHECKS = {
    "documents_suite": "Great Expectations on the documents: ids, paths, titles, hashes, lengths, sizes, languages.",
    "listing_not_empty": "A source that had documents still lists some.",
    "volume_drop": "The number of documents does not drop by more than the policy allows.",
    "quarantine_share": "Not too many of the documents are in quarantine.",
    "document_ids_unique": "No two documents have one identity.",
    "duplicate_content": "Few documents have the same text as another one.",
    "screening_complete": "Every document was screened under the present policy.",
    "prompt_injection_share": "Few documents hold text that addresses a model; with the trend.",
    "hidden_text_share": "Few documents hold text or characters a reader does not see; with the trend.",
    "near_duplicates": "Few documents share most of their text with an older one.",
}
NOT_BLOCKING = ("duplicate_content", "prompt_injection_share", "hidden_text_share", "near_duplicates")

#: A larger share of documents with equal text is worth a warning: they crowd out others in search results.
MAXIMUM_DUPLICATE_SHARE = 0.1
#: Rows of a table in the details of a check.
SHOWN = 20


def corpus_checks(
    plan: RefreshPlan, policies: Policies, *, evidence_stands: bool, before: Mapping[str, float] | None = None
) -> list[CheckOutcome]:
    """All declared checks on a plan, in order.

    Args:
        evidence_stands: the plan changes nothing and the suite passed on the committed revision: it is not run again.
        before: shares that the last revision's checks found, by check (``earlier_shares``).
    """
    policy, screening, before = policies.corpus, policies.screening, before or {}
    texts = [(document.path, document.text_hash) for document in plan.documents]
    paths = [path for path, _ in texts]
    return [
        _standing(plan) if evidence_stands else documents_suite(plan, policy),
        listing_not_empty(plan.before, plan.listed),
        volume_drop(plan.before, len(texts), policy.maximum_document_drop, expired=plan.expired),
        quarantine_share(len(texts), plan.quarantined, policy.maximum_quarantine_share),
        document_ids_unique({document.path: document.document_id for document in plan.documents}),
        duplicate_content(texts),
        screening_complete(paths, plan.screened, plan.screening_fingerprint),
        *(
            found_share(f"{detector}_share", detector, plan, maximum, before.get(f"{detector}_share"))
            for detector, maximum in (
                ("prompt_injection", screening.warn_injection_share),
                ("hidden_text", screening.warn_hidden_text_share),
            )
        ),
        near_duplicates(plan.source, len(paths), plan.duplicates),
    ]


def documents_suite(plan: RefreshPlan, policy: CorpusPolicy) -> CheckOutcome:
    """Great Expectations on the documents as they would be after the commit."""
    # a document a person let in may be shorter than the policy asks for
    minimum = 1 if plan.released else max(policy.minimum_characters, 1)
    return validate_documents(documents_frame(plan), minimum, minimum_rows=0 if plan.may_be_empty else 1)


def documents_frame(plan: RefreshPlan) -> "pd.DataFrame":
    """One row per document: document_id (null: it gets one), path, title, text_hash, characters, bytes, language."""
    import pandas as pd

    documents = plan.documents
    return pd.DataFrame(
        {
            "document_id": pd.array([item.document_id for item in documents], dtype="Int64"),
            "path": pd.array([item.path for item in documents], dtype="object"),
            "title": pd.array([item.title for item in documents], dtype="object"),
            "text_hash": pd.array([item.text_hash.hex() for item in documents], dtype="object"),
            "characters": pd.array([item.characters for item in documents], dtype="Int64"),
            "bytes": pd.array([item.size for item in documents], dtype="Int64"),
            "language": pd.array([item.language for item in documents], dtype="object"),
        }
    )


def validate_documents(frame: "pd.DataFrame", minimum_characters: int, minimum_rows: int = 1) -> CheckOutcome:
    """The suite itself, on a frame as ``documents_frame`` makes it."""
    from great_expectations import expectations

    gxe: Any = expectations  # its names are not declared as exported
    return great_expectations_outcome(
        "documents_suite",
        frame,
        [
            # the other expectations hold on an empty frame
            gxe.ExpectTableRowCountToBeBetween(min_value=minimum_rows),
            gxe.ExpectColumnValuesToBeUnique(column="document_id"),
            gxe.ExpectColumnValuesToNotBeNull(column="path"),
            gxe.ExpectColumnValuesToBeUnique(column="path"),
            gxe.ExpectColumnValuesToNotBeNull(column="title"),
            gxe.ExpectColumnValueLengthsToBeBetween(column="title", min_value=1),
            gxe.ExpectColumnValuesToNotBeNull(column="text_hash"),
            gxe.ExpectColumnValuesToMatchRegex(column="text_hash", regex="^[0-9a-f]{32}$"),
            gxe.ExpectColumnValuesToBeBetween(column="characters", min_value=minimum_characters),
            gxe.ExpectColumnValuesToBeBetween(column="bytes", min_value=0),
            gxe.ExpectColumnValuesToMatchRegex(column="language", regex="^[a-z]{2,3}$"),
        ],
    )


def listing_not_empty(before: int, listed: int) -> CheckOutcome:
    """A source that had documents lists none: an unmounted disk, not a deletion."""
    return CheckOutcome(
        "listing_not_empty",
        listed > 0 or before == 0,
        expected="at least one file" if before else "anything: the source had no documents",
        observed=f"{listed} files listed, {before} documents before",
    )


def volume_drop(before: int, after: int, maximum: float, *, expired: int = 0) -> CheckOutcome:
    """Share of the documents that would disappear: (before - after) / before.

    Documents that leave by their age are a decision and not a loss, so they are judged apart; by the same limit, because
    a clock that is wrong must not empty a source.
    """
    drop = (before - after - expired) / before if before else 0.0
    aged = expired / before if before else 0.0
    observed = f"{before} documents before, {after} after" + (f": a drop of {drop:.0%}" if drop > 0 else "")
    if expired:
        observed += f", and {expired} ({aged:.0%}) that are older than keep_days"
    return CheckOutcome(
        "volume_drop",
        drop <= maximum and aged <= maximum,
        expected=f"a drop of at most {maximum:.0%}" + (", and at most as many that expire" if expired else ""),
        observed=observed,
    )


def quarantine_share(documents: int, quarantined: Sequence[Quarantined], maximum: float) -> CheckOutcome:
    """Share of the documents that may not enter; files of no known format, and forgotten ones, are not counted."""
    trouble = [item for item in quarantined if item.code not in EXPECTED]
    share = len(trouble) / (documents + len(trouble)) if trouble else 0.0
    codes = Counter(item.code for item in quarantined)
    details: dict[str, Any] = {"codes": dict(sorted(codes.items()))} if codes else {}
    if share > maximum:  # nothing is committed then, so this is where they are shown
        details["quarantined"] = quarantine_rows(trouble)
    return CheckOutcome(
        "quarantine_share",
        share <= maximum,
        expected=f"at most {maximum:.0%}",
        observed=f"{len(trouble)} of {documents + len(trouble)} documents: {share:.0%}",
        details=details,
    )


def quarantine_rows(quarantined: Sequence[Quarantined]) -> list[dict[str, Any]]:
    """Path, code and reason of the first of them, for a table."""
    return [{"path": item.path, "code": item.code, "reason": item.reason} for item in quarantined[:SHOWN]]


def document_ids_unique(ids: Mapping[str, int | None]) -> CheckOutcome:
    """Path to identity; None: the commit makes a new one."""
    paths = defaultdict(list)
    for path, document in ids.items():
        if document is not None:
            paths[document].append(path)
    twice = {document: sorted(found) for document, found in paths.items() if len(found) > 1}
    return CheckOutcome(
        "document_ids_unique",
        not twice,
        expected="every identity once",
        observed="; ".join(f"document {key}: {', '.join(found)}" for key, found in sorted(twice.items())[:SHOWN])
        or f"{len(paths)} identities, {len(ids) - len(paths)} new",
    )


def duplicate_content(texts: Sequence[tuple[str, bytes]]) -> CheckOutcome:
    """Share of documents whose text another document has too; (path, text hash) of each."""
    groups = defaultdict(list)
    for path, key in texts:
        groups[key].append(path)
    equal = [sorted(paths) for paths in groups.values() if len(paths) > 1]
    share = sum(len(paths) for paths in equal) / len(texts) if texts else 0.0
    return CheckOutcome(
        "duplicate_content",
        share <= MAXIMUM_DUPLICATE_SHARE,
        expected=f"at most {MAXIMUM_DUPLICATE_SHARE:.0%} of the documents",
        observed=f"{sum(len(paths) for paths in equal)} of {len(texts)}: {share:.0%}",
        blocking=False,
        severity="WARN",
        details={"equal": [{"paths": ", ".join(paths[:5])} for paths in sorted(equal)[:SHOWN]]} if equal else {},
    )


def screening_complete(paths: Sequence[str], screened: Mapping[str, Verdict], fingerprint: str) -> CheckOutcome:
    """Whether every document that would be live has a verdict of the present policy."""
    missing = sorted(path for path in paths if path not in screened)
    return CheckOutcome(
        "screening_complete",
        not missing,
        expected=f"a verdict under policy {fingerprint[:12]} on each of {len(paths)} documents",
        observed="all" if not missing else f"{len(missing)} without one; refresh when the whole source can be read",
        details={"unscreened": [{"path": path} for path in missing[:SHOWN]]} if missing else {},
    )


def found_share(name: str, detector: str, plan: RefreshPlan, maximum: float, before: float | None) -> CheckOutcome:
    """Share of all documents, those it kept out included, in which a detector found something above its threshold."""
    found = sorted(path for path, verdict in plan.screened.items() if verdict.summary.get(detector))
    share = len(found) / len(plan.screened) if plan.screened else 0.0
    trend = "" if before is None else f", {before:.1%} before"
    return CheckOutcome(
        name,
        share <= maximum,
        expected=f"at most {maximum:.1%} of the documents",
        observed=f"{len(found)} of {len(plan.screened)}: {share:.1%}{trend}",
        blocking=False,
        severity="WARN",
        details={
            "share": round(share, 6),
            "found": [
                {"path": path, "found": _listed(plan.screened[path].summary[detector])} for path in found[:SHOWN]
            ],
        },
    )


def near_duplicates(source: str, documents: int, duplicates: Sequence[Duplicate]) -> CheckOutcome:
    """Share of documents that almost repeat an older one, and the groups they form; equal texts are counted elsewhere."""
    duplicates = [item for item in duplicates if not item.equal]
    share = len(duplicates) / documents if documents else 0.0
    groups = clusters(duplicates, source)
    return CheckOutcome(
        "near_duplicates",
        share <= MAXIMUM_DUPLICATE_SHARE,
        expected=f"at most {MAXIMUM_DUPLICATE_SHARE:.0%} of the documents",
        observed=f"{len(duplicates)} of {documents}: {share:.0%}, in {len(groups)} groups",
        blocking=False,
        severity="WARN",
        details={"groups": [{"documents": len(group), "paths": ", ".join(group[:5])} for group in groups[:SHOWN]]}
        if groups
        else {},
    )


def screening_rows(screened: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """One row per detector: documents with findings, findings, and in how many documents what was done."""
    rows = []
    for detector in DETECTORS:
        entities: Counter[str] = Counter()
        actions: Counter[str] = Counter()
        documents = 0
        for verdict in screened.values():
            summary = verdict.summary.get(detector)
            if not summary:
                continue
            documents += 1
            entities.update({entity: number for entity, (number, _) in summary.items()})
            taken = {action for _, action in summary.values()}
            actions[next(action for action in ("quarantine", "mask", "allow") if action in taken)] += 1
        rows.append(
            {
                "detector": detector,
                "documents": documents,
                "findings": sum(entities.values()),
                "quarantined": actions["quarantine"],
                "masked": actions["mask"],
                "recorded": actions["allow"],
                "kinds": ", ".join(f"{entity} {number}" for entity, number in entities.most_common()),
            }
        )
    return rows


def earlier_shares(connection: Connection, source: str) -> dict[str, float]:
    """What the checks on shares found last time, by check."""
    rows = connection.execute(
        """SELECT DISTINCT ON (check_name) check_name, (details ->> 'share')::float8 FROM evidence
           WHERE kind = 'documents' AND subject = %s AND check_name = ANY(%s) AND details ? 'share'
           ORDER BY check_name, evidence_id DESC""",
        (source, ["prompt_injection_share", "hidden_text_share"]),
    ).fetchall()
    return {name: share for name, share in rows if share is not None}


def _listed(summary: Mapping[str, tuple[int, str]]) -> str:
    return ", ".join(f"{number} {entity} ({action})" for entity, (number, action) in sorted(summary.items()))


def _standing(plan: RefreshPlan) -> CheckOutcome:
    return CheckOutcome(
        "documents_suite",
        True,
        expected="passed on the committed revision",
        observed=f"unchanged since revision {plan.base_revision}; evidence of that revision stands",
    )
