"""The stage: screens what was parsed before any of it is stored, and remembers what came out.

Belongs here: what has to be looked at again and what not, the order of things in one batch, and the two tables.
Does not belong here: detecting, judging and masking (the modules beside), parsing, and admission (refresh.py).

What is kept of a document depends on the verdict: of an allowed one its text, of a masked one only the masked text, of
a refused one nothing but findings. A masked text is a parse result of its own: its key is made of the parser's
fingerprint and of what was masked, so that a policy that changes nothing about a document leaves its version alone.
Findings and verdicts are kept apart, so that a policy is judged anew without looking at any text; a detector with other
settings looks alone.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from assets.corpus import parse_cache
from assets.corpus.documents import LiveDocument
from assets.corpus.headings import Heading
from assets.corpus.parse_cache import CachedParse, Failed, Key, Parsed, ParseWork, Unparsed
from assets.corpus.parsing import ParsedDocument
from assets.corpus.screening.detectors import Inspection, detectors_of, inspect, joined
from assets.corpus.screening.findings import Detector, Finding, View
from assets.corpus.screening.judging import Judgement, Summary, judge, masked
from resources.fingerprint import canonical_json, fingerprint, text_hash
from resources.platform import Platform
from resources.policy_config import ScreeningPolicy
from resources.postgres import Connection, Lease
from resources.source_config import SourceConfig

#: Raised by hand when judging or masking would make something else of the same findings.
CODE_VERSION = "1"
#: A detector that fails on a document leaves it unjudged: it stays out, and a person may let it in.
FAILED = "screening:failed"


@dataclass(frozen=True)
class Verdict:
    """What screening says of one content under a policy.

    Attributes:
        action: ``allow``, ``mask`` or ``quarantine``.
        code: of the quarantine.
        reason: of the quarantine.
        result_fingerprint: of the parse result that may enter, or None.
        summary: {detector: {entity: (findings, what they lead to)}}.
    """

    action: str
    code: str | None
    reason: str | None
    result_fingerprint: str | None
    summary: Summary


@dataclass(frozen=True)
class Screened:
    """A parse result that may be judged further: of an allowed or masked text, of a failure, or of a refusal."""

    parsed: CachedParse
    fingerprint: str
    verdict: Verdict | None = None


@dataclass
class ScreenWork:
    """Work done so far.

    Attributes:
        screened: texts that some detector looked at.
        judged: verdicts reached.
        characters: of the texts looked at.
        seconds: by detector.
    """

    screened: int = 0
    judged: int = 0
    characters: int = 0
    seconds: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Outcome:
    """Of one parsed document: what is written, and what is stored under which key."""

    key: Key
    text_hash: bytes
    inspection: Inspection
    verdict: Verdict
    stored: tuple[Key, Parsed] | None


class Screening:
    """Screening of one source during one refresh.

    Args:
        live: the committed documents of the source.
    """

    def __init__(
        self,
        platform: Platform,
        source: SourceConfig,
        run_id: str,
        lease: Lease,
        live: Collection[LiveDocument] = (),
    ) -> None:
        self.policy: ScreeningPolicy = platform.config.policies.screening
        self.work = ScreenWork()
        self._platform = platform
        self._source = source
        self._run_id = run_id
        self._lease = lease
        self._live = {(item.content_hash, item.parser_fingerprint): item for item in live}

    @cached_property
    def detectors(self) -> dict[str, Detector]:
        """The detectors the policy asks for, by name."""
        return detectors_of(self.policy)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that can change a verdict: the policy, the detectors, and this code."""
        return screening_fingerprint(self.policy, self.detectors)

    def _policy_key(self, released: bool) -> str:
        return fingerprint([self.fingerprint, "released"]) if released else self.fingerprint

    # --- what is known ------------------------------------------------------------------------------------

    @cached_property
    def _standing(self) -> dict[tuple[bytes, str, bool], Verdict]:
        """Verdicts of the present policy on the live documents: (content, fingerprint of the result, released)."""
        if not self._live:
            return {}
        both = {self._policy_key(False): False, self._policy_key(True): True}
        with self._platform.database.connect() as connection:
            rows = connection.execute(
                """SELECT v.content_hash, v.result_fingerprint, v.screening_fingerprint, v.parser_fingerprint, v.action,
                          v.summary
                   FROM document_version d
                   JOIN screening_verdict v ON v.content_hash = d.content_hash
                        AND v.result_fingerprint = d.parser_fingerprint AND v.screening_fingerprint = ANY(%s)
                   WHERE d.source = %s AND d.rev_to = 2147483647""",
                (list(both), self._source.name),
            ).fetchall()
        self._parsers = {(row[0], row[1]): row[3] for row in rows}
        return {(row[0], row[1], both[row[2]]): Verdict(row[4], None, None, row[1], _summary(row[5])) for row in rows}

    def standing(self, document: LiveDocument, parser_fingerprint: str, *, released: bool) -> Verdict | None:
        """The verdict under which a live document may stay as it is.

        None where it was made by another parser, or was not screened under the present policy.
        """
        verdict = self._standing.get((document.content_hash, document.parser_fingerprint, released))
        if verdict is None or self._parsers[document.content_hash, document.parser_fingerprint] != parser_fingerprint:
            return None
        return verdict

    def known(self, wanted: Collection[tuple[Key, bool]]) -> dict[tuple[Key, bool], Screened]:
        """What can be said of parsed contents without their bytes; the rest is left out.

        Args:
            wanted: keys of parse results, and whether a person released that content.
        """
        return self._resolve(wanted, {})

    # --- a batch ------------------------------------------------------------------------------------------

    def unseen(self, batch: Sequence[Unparsed]) -> list[Unparsed]:
        """The members of a batch that were never parsed."""
        keys = sorted({item.key for item in batch})
        with self._platform.database.connect() as connection:
            rows = connection.execute(
                """SELECT content_hash, parser_fingerprint FROM unnest(%s::bytea[], %s::text[])
                       wanted (content_hash, parser_fingerprint)
                   WHERE NOT EXISTS (SELECT FROM parse_result p WHERE p.content_hash = wanted.content_hash
                                       AND p.parser_fingerprint = wanted.parser_fingerprint)
                     AND NOT EXISTS (SELECT FROM screening_result r WHERE r.content_hash = wanted.content_hash
                                       AND r.parser_fingerprint = wanted.parser_fingerprint)""",
                ([key[0] for key in keys], [key[1] for key in keys]),
            ).fetchall()
        fresh = set(rows)
        return [item for item in batch if item.key in fresh]

    def screen(
        self,
        batch: Sequence[Unparsed],
        released: Collection[Key],
        work: ParseWork,
        ahead: Mapping[Key, Parsed | Failed] | None = None,
    ) -> dict[tuple[Key, bool], Screened]:
        """Parse what the cache lacks, screen it, and store what may be kept; an answer for every member.

        Args:
            ahead: members that were parsed already.
        """
        data = {item.key: item for item in batch}
        wanted = {(key, key in released) for key in data}
        found = self._resolve(wanted, data)
        missing = sorted(key for key, free in wanted if (key, free) not in found)
        if not missing:
            return found
        outcomes: dict[Key, _Outcome] = {}

        def judge_parsed(results: Mapping[Key, Parsed]) -> Mapping[Key, Parsed]:
            kept: dict[Key, Parsed] = {}
            for key in sorted(results):
                outcome = self._look(key, results[key], data.get(key), key in released)
                outcomes[key] = outcome
                if outcome.stored:
                    kept[outcome.stored[0]] = outcome.stored[1]
            return dict(sorted(kept.items()))

        results = parse_cache.parse_all(
            self._platform,
            self._source,
            [data[key] for key in missing],
            self._lease,
            work,
            screen=judge_parsed,
            ahead=ahead,
        )
        answers = dict(found)
        for key in missing:
            free = key in released
            outcome = outcomes.get(key)
            parsed = results.get(outcome.stored[0] if outcome and outcome.stored else key)
            if outcome is None:
                assert parsed is not None
                if parsed.text_hash is None:  # it could not be parsed
                    answers[key, free] = Screened(parsed, key[1])
                else:  # another source stored it meanwhile
                    answers |= self._resolve([(key, free)], data)
            elif parsed is not None and parsed.text_hash is None:  # its text could not be stored
                answers[key, free] = Screened(parsed, key[1])
                del outcomes[key]
            else:
                answers[key, free] = self._answer(outcome.verdict, parsed)
        self._write(list(outcomes.values()), released)
        return answers

    def _answer(self, verdict: Verdict, parsed: CachedParse | None) -> Screened:
        if verdict.action == "quarantine" or parsed is None:
            refused = CachedParse(None, 0, None, None, None, verdict.code or FAILED, verdict.reason or "refused")
            return Screened(refused, verdict.result_fingerprint or "", verdict)
        return Screened(parsed, verdict.result_fingerprint or "", verdict)

    # --- without parsing ----------------------------------------------------------------------------------

    def _resolve(
        self, wanted: Collection[tuple[Key, bool]], data: Mapping[Key, Unparsed]
    ) -> dict[tuple[Key, bool], Screened]:
        if not wanted:
            return {}
        limits = parse_cache.limits_of(self._source, self._platform.config.policies.corpus)
        keys = sorted({key for key, _ in wanted})
        with self._platform.database.connect() as connection:
            verdicts = _read_verdicts(connection, keys, [self._policy_key(False), self._policy_key(True)])
            targets = {
                (key[0], item.result_fingerprint) for (key, _), item in verdicts.items() if item.result_fingerprint
            }
            parses = parse_cache.read(connection, sorted({*keys, *targets}), limits)
        answers: dict[tuple[Key, bool], Screened] = {}
        open_keys: list[tuple[Key, bool]] = []
        for key, free in sorted(wanted):
            verdict = verdicts.get((key, self._policy_key(free)))
            raw = parses.get(key)
            if verdict and verdict.action == "quarantine":
                answers[key, free] = self._answer(verdict, None)
            elif (
                verdict
                and verdict.result_fingerprint
                and (entering := parses.get((key[0], verdict.result_fingerprint)))
            ):
                answers[key, free] = Screened(entering, verdict.result_fingerprint, verdict)
            elif raw and raw.text_hash is None:
                answers[key, free] = Screened(raw, key[1])
            else:
                open_keys.append((key, free))
        if open_keys:
            answers |= self._judge_anew(open_keys, parses, data)
        return answers

    def _judge_anew(
        self, wanted: Sequence[tuple[Key, bool]], parses: Mapping[Key, CachedParse], data: Mapping[Key, Unparsed]
    ) -> dict[tuple[Key, bool], Screened]:
        """Judge by earlier findings, and by stored texts where a detector has not looked yet."""
        keys = sorted({key for key, _ in wanted})
        with self._platform.database.connect() as connection:
            before = _read_results(connection, keys)
            stored = {key for key in keys if key in parses}
            lacking = [key for key in sorted(stored) if self._has_to_look(before.get(key))]
            documents = _read_documents(connection, lacking)
        outcomes: list[_Outcome] = []
        answers: dict[tuple[Key, bool], Screened] = {}
        for key, free in wanted:
            earlier = before.get(key)
            if key not in documents and (earlier is None or self._has_to_look(earlier)):
                continue
            if key in documents:
                if self._needs_bytes(earlier) and key not in data:
                    continue
                outcome = self._look(key, documents[key], data.get(key), free, earlier)
            else:
                assert earlier is not None
                judgement = judge(earlier.findings, self.policy, released=free)
                if judgement.action == "mask":
                    if key not in stored:
                        continue  # its text is not kept: it has to be parsed again
                    with self._platform.database.connect() as connection:
                        documents |= _read_documents(connection, [key])
                    outcome = self._look(key, documents[key], data.get(key), free, earlier)
                elif judgement.action == "allow" and key not in stored:
                    continue
                else:
                    verdict = _verdict(judgement, key[1])
                    outcome = _Outcome(key, earlier.text_hash, earlier.inspection, verdict, None)
            outcomes.append(outcome)
            parsed = outcome.stored[1].cached() if outcome.stored else parses.get(key)
            answers[key, free] = self._answer(outcome.verdict, parsed)
        if outcomes:
            released = {key for key, free in wanted if free}
            with self._platform.database.connect() as connection:
                self._lease.check(connection)
                parse_cache.store(
                    connection,
                    dict(sorted(item.stored for item in outcomes if item.stored and item.stored[0] != item.key)),
                )
            self._write(outcomes, released)
        return answers

    def _has_to_look(self, earlier: "_Earlier | None") -> bool:
        if earlier is None or not earlier.complete:
            return True
        return any(earlier.detectors.get(name) != item.fingerprint for name, item in self.detectors.items())

    def _needs_bytes(self, earlier: "_Earlier | None") -> bool:
        """Whether the bytes are needed: only hidden text of formats with markup is looked for in them."""
        hidden = self.detectors.get("hidden_text")
        looked = earlier.detectors.get("hidden_text") if earlier else None
        return hidden is not None and looked != hidden.fingerprint

    # --- one document -------------------------------------------------------------------------------------

    def _look(
        self, key: Key, parsed: Parsed, item: Unparsed | None, released: bool, earlier: "_Earlier | None" = None
    ) -> _Outcome:
        """Have the detectors look that have not looked yet, judge, and mask."""
        document = parsed.document
        current = {
            name
            for name, detector in self.detectors.items()
            if earlier and earlier.complete and earlier.detectors.get(name) == detector.fingerprint
        }
        view = View(
            document.text,
            raw=item.data if item else b"",
            media_type=item.form.media_type if item else "",
            language=document.language,
            licence=document.licence,
        )
        inspection = inspect(view, [detector for name, detector in self.detectors.items() if name not in current])
        self.work.screened += 1
        self.work.characters += len(document.text)
        self.work.seconds.update(inspection.seconds)
        if earlier and current:
            kept = [finding for finding in earlier.findings if finding.detector in current]
            inspection = joined(inspection, kept, {name: self.detectors[name].fingerprint for name in current})
        if inspection.failed and not released:
            failures = ", ".join(f"{name} with {error}" for name, error in sorted(inspection.failed.items()))
            verdict = Verdict("quarantine", FAILED, f"these detectors failed: {failures}", None, {})
            return _Outcome(key, parsed.text_hash, inspection, verdict, None)
        judgement = judge(inspection.findings, self.policy, released=released)
        strings = self._strings(document)
        if judgement.action == "quarantine":
            return _Outcome(key, parsed.text_hash, inspection, _verdict(judgement, None), None)
        if judgement.action == "allow" and not any(masks for _, masks in strings):
            return _Outcome(key, parsed.text_hash, inspection, _verdict(judgement, key[1]), (key, parsed))
        judgement = replace(judgement, action="mask")
        tokens = [[mask.start, mask.end, mask.entity] for mask in judgement.masks]
        facts = [
            [string, [[mask.start, mask.end, mask.entity] for mask in masks]] for string, masks in strings if masks
        ]
        result = fingerprint(["masked", CODE_VERSION, key[1], tokens, facts])
        clean = masked(document, judgement.masks, strings)
        entering = replace(parsed, document=clean, text_hash=text_hash(clean.text))
        return _Outcome(key, parsed.text_hash, inspection, _verdict(judgement, result), ((key[0], result), entering))

    def _strings(self, document: ParsedDocument) -> list[tuple[str, list[Finding]]]:
        """Title and strings of the metadata with what has to be masked in each; empty unless something is masked at all."""
        if not _masks_anything(self.policy):
            return []
        found = []
        for string in dict.fromkeys([document.title or "", *_strings_in(document.metadata)]):
            if string:
                findings = inspect(View(string), self.detectors.values()).findings
                found.append((string, list(judge(findings, self.policy).masks)))
        return found

    # --- storing ------------------------------------------------------------------------------------------

    def _write(self, outcomes: Sequence[_Outcome], released: Collection[Key]) -> None:
        """Store findings and verdicts; forget the text of what may not be kept."""
        if not outcomes:
            return
        self.work.judged += len(outcomes)
        ordered = sorted(outcomes, key=lambda item: item.key)
        with self._platform.database.connect() as connection:
            self._lease.check(connection)
            _write_results(connection, ordered, self._run_id)
            _write_verdicts(
                connection,
                [(item.key, self._policy_key(item.key in released), item.verdict) for item in ordered],
                self._run_id,
            )
            _drop_texts(connection, [item.key for item in ordered if item.verdict.action != "allow"])


def screening_fingerprint(policy: ScreeningPolicy, detectors: Mapping[str, Detector]) -> str:
    """Hash of a policy, of its detectors, and of the code that judges and masks."""
    rules = policy.model_dump(mode="json", exclude={"near_duplicate", "warn_injection_share", "warn_hidden_text_share"})
    return fingerprint([CODE_VERSION, rules, {name: item.fingerprint for name, item in detectors.items()}])


def _verdict(judgement: Judgement, result: str | None) -> Verdict:
    return Verdict(judgement.action, judgement.code, judgement.reason, result, judgement.summary)


def _masks_anything(policy: ScreeningPolicy) -> bool:
    rules = [getattr(policy, name) for name in ScreeningPolicy.model_fields]
    return any(
        getattr(rule, "enabled", False) and "mask" in (rule.action, *getattr(rule, "entities", {}).values())
        for rule in rules
        if hasattr(rule, "action")
    )


def _strings_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [string for key, item in value.items() for string in [str(key), *_strings_in(item)]]
    if isinstance(value, list):
        return [string for item in value for string in _strings_in(item)]
    return []


# --- tables -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Earlier:
    text_hash: bytes
    detectors: dict[str, str]
    findings: tuple[Finding, ...]
    complete: bool

    @property
    def inspection(self) -> Inspection:
        return Inspection(self.findings, self.detectors)


def _summary(value: Mapping[str, Mapping[str, Sequence[Any]]]) -> Summary:
    return {name: {entity: (item[0], item[1]) for entity, item in entities.items()} for name, entities in value.items()}


def _read_verdicts(
    connection: Connection, keys: Sequence[Key], policies: Sequence[str]
) -> dict[tuple[Key, str], Verdict]:
    rows = connection.execute(
        """SELECT v.content_hash, v.parser_fingerprint, v.screening_fingerprint, v.action, v.code, v.reason,
                  v.result_fingerprint, v.summary
           FROM unnest(%s::bytea[], %s::text[]) wanted (content_hash, parser_fingerprint)
           JOIN screening_verdict v USING (content_hash, parser_fingerprint)
           WHERE v.screening_fingerprint = ANY(%s)""",
        ([key[0] for key in keys], [key[1] for key in keys], list(policies)),
    ).fetchall()
    return {((row[0], row[1]), row[2]): Verdict(row[3], row[4], row[5], row[6], _summary(row[7])) for row in rows}


def _read_results(connection: Connection, keys: Sequence[Key]) -> dict[Key, _Earlier]:
    rows = connection.execute(
        """SELECT r.content_hash, r.parser_fingerprint, r.text_hash, r.detectors, r.findings, r.complete
           FROM unnest(%s::bytea[], %s::text[]) wanted (content_hash, parser_fingerprint)
           JOIN screening_result r USING (content_hash, parser_fingerprint)""",
        ([key[0] for key in keys], [key[1] for key in keys]),
    ).fetchall()
    return {
        (row[0], row[1]): _Earlier(
            row[2],
            row[3],
            tuple(Finding(start, end, name, entity, score) for name, entity, start, end, score in row[4]),
            row[5],
        )
        for row in rows
    }


def _read_documents(connection: Connection, keys: Sequence[Key]) -> dict[Key, Parsed]:
    """Parsed documents as they were stored."""
    if not keys:
        return {}
    rows = connection.execute(
        """SELECT p.content_hash, p.parser_fingerprint, t.text, p.title, p.headings, p.language, p.licence, p.origin_time,
                  p.metadata, p.text_hash, p.seconds
           FROM unnest(%s::bytea[], %s::text[]) wanted (content_hash, parser_fingerprint)
           JOIN parse_result p USING (content_hash, parser_fingerprint) JOIN document_text t USING (text_hash)""",
        ([key[0] for key in keys], [key[1] for key in keys]),
    ).fetchall()
    return {
        (row[0], row[1]): Parsed(
            ParsedDocument(row[2], row[3], tuple(Heading(**item) for item in row[4]), *row[5:9]), row[9], row[10]
        )
        for row in rows
    }


def _write_results(connection: Connection, outcomes: Sequence[_Outcome], run_id: str) -> None:
    rows = []
    for item in {item.key: item for item in outcomes}.values():
        findings, complete = item.inspection.listed()
        rows.append(
            (
                *item.key,
                item.text_hash,
                canonical_json(item.inspection.detectors),
                canonical_json(item.inspection.counts),
                canonical_json(findings),
                complete,
                sum(item.inspection.seconds.values()),
            )
        )
    connection.execute(
        """INSERT INTO screening_result (content_hash, parser_fingerprint, text_hash, detectors, counts, findings,
                                         complete, seconds, run_id)
           SELECT *, %s FROM unnest(%s::bytea[], %s::text[], %s::bytea[], %s::jsonb[], %s::jsonb[], %s::jsonb[],
                                    %s::boolean[], %s::double precision[])
           ON CONFLICT (content_hash, parser_fingerprint) DO UPDATE SET
               text_hash = EXCLUDED.text_hash, detectors = EXCLUDED.detectors, counts = EXCLUDED.counts,
               findings = EXCLUDED.findings, complete = EXCLUDED.complete, seconds = EXCLUDED.seconds,
               run_id = EXCLUDED.run_id, screened_at = now()
           WHERE screening_result.detectors <> EXCLUDED.detectors OR screening_result.text_hash <> EXCLUDED.text_hash""",
        [run_id, *(list(column) for column in zip(*rows, strict=True))],
    )


def _write_verdicts(connection: Connection, verdicts: Sequence[tuple[Key, str, Verdict]], run_id: str) -> None:
    rows = [
        (*key, policy, item.action, item.code, item.reason, item.result_fingerprint, canonical_json(item.summary))
        for key, policy, item in sorted(verdicts, key=lambda entry: entry[:2])
    ]
    connection.execute(
        """INSERT INTO screening_verdict (content_hash, parser_fingerprint, screening_fingerprint, action, code, reason,
                                          result_fingerprint, summary, run_id)
           SELECT *, %s FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                                    %s::jsonb[])
           ON CONFLICT (content_hash, parser_fingerprint, screening_fingerprint) DO UPDATE SET
               action = EXCLUDED.action, code = EXCLUDED.code, reason = EXCLUDED.reason,
               result_fingerprint = EXCLUDED.result_fingerprint, summary = EXCLUDED.summary, run_id = EXCLUDED.run_id,
               judged_at = now()""",
        [run_id, *(list(column) for column in zip(*rows, strict=True))],
    )


def _drop_texts(connection: Connection, keys: Sequence[Key]) -> None:
    """Forget parse results that may not be kept, and their texts unless a version or a chunk still stands on them."""
    if not keys:
        return
    texts = [
        row[0]
        for row in connection.execute(
            """DELETE FROM parse_result p USING unnest(%s::bytea[], %s::text[]) gone (content_hash, parser_fingerprint)
               WHERE p.content_hash = gone.content_hash AND p.parser_fingerprint = gone.parser_fingerprint
                 AND p.text_hash IS NOT NULL RETURNING p.text_hash""",
            ([key[0] for key in keys], [key[1] for key in keys]),
        ).fetchall()
    ]
    if texts:
        connection.execute(
            """DELETE FROM document_text t WHERE text_hash = ANY(%s)
                 AND NOT EXISTS (SELECT 1 FROM document_version v WHERE v.text_hash = t.text_hash)
                 AND NOT EXISTS (SELECT 1 FROM parse_result p WHERE p.text_hash = t.text_hash)
                 AND NOT EXISTS (SELECT 1 FROM chunk_set s WHERE s.text_hash = t.text_hash)""",
            (sorted(set(texts)),),
        )
