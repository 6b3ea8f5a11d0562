"""Erasure in tables: every row that holds a part of a target, or was made from one.

Belongs here: the deletions, stage by stage, each counted for the proof, and counts that have to follow.
Does not belong here: what the target is (erasure_targets.py), transaction, leases and proof (erasure.py).
"""

import json
from collections import Counter
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from assets.chunks.enrichment_cache import remove_unused
from assets.evaluation.holdout import question_hash
from assets.governance.erasure_targets import Target, build_tables, mentions
from assets.index.tables import forget_words
from assets.monitoring.interactions import forget_shadows
from resources.erased_documents import ERASED
from resources.fingerprint import fingerprint
from resources.postgres import FOREVER, Connection
from resources.vector_index import words_name

_ROWS = 200  # rows of model messages read at a time


def remove_from_tables(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Delete everything of the target; ``proof`` counts rows by table."""
    _remove_drafts(connection, target, proof)
    _remove_evaluation(connection, target, proof)
    _remove_examples(connection, target, proof)
    _remove_feedback(connection, target, proof)
    judged = _count(connection, "feedback")
    _remove_answers(connection, target, proof)
    proof["feedback"] += judged - _count(connection, "feedback")  # it goes with its interaction
    _remove_index_rows(connection, target, proof)
    _remove_corpus(connection, target, proof)
    _clean_records(connection, target, proof)
    if target.retrievals or any(proof.values()):
        # They can be made again; which of them hold a word of what went is not worth finding out.
        proof["retrieval"] += connection.execute("DELETE FROM retrieval").rowcount


#: Whether a jsonb array of hits or citations holds an erased document, by id or by place.
_HITS = """EXISTS (SELECT FROM jsonb_array_elements({column}) hit WHERE (hit ->> 'document_id')::bigint = ANY(%(ids)s)
           OR (hit ->> 'source', hit ->> 'path') IN (SELECT * FROM unnest(%(sources)s::text[], %(paths)s::text[])))"""


#: Whether a worked example from an erased document was shown to the model.
_SHOWN = """EXISTS (SELECT FROM jsonb_path_query(supplied, '$.examples[*][*]') shown
            WHERE (shown #>> '{}')::bigint = ANY(%(ids)s))"""


def _places(target: Target) -> dict[str, Any]:
    keys = sorted(target.keys)
    return {"ids": target.documents, "sources": [key[0] for key in keys], "paths": [key[1] for key in keys]}


def _remove_drafts(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Drafts made from an erased document, that quote one, or that fit on their own; the questions they became go too."""
    doomed = set(target.drafts)
    for draft_id, documents, *texts in connection.execute(
        "SELECT draft_id, document_ids && %s::bigint[], question, reason FROM question_draft", (target.documents,)
    ).fetchall():
        if documents or mentions(texts, target, documents_matter=False):
            doomed.add(draft_id)
    gone = connection.execute(
        "DELETE FROM question_draft WHERE draft_id = ANY(%s) RETURNING dataset, question_id", (sorted(doomed),)
    ).fetchall()
    target.questions |= {(dataset, question) for dataset, question in gone if question}
    proof["question_draft"] += len(gone)


def _remove_evaluation(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Questions whose evidence is in an erased document go in every version, and so do their trials."""
    target.questions |= {
        (row[0], row[1])
        for row in connection.execute(
            """SELECT DISTINCT dataset, question_id FROM evaluation_evidence
               WHERE document_id = ANY(%s) OR text_hash = ANY(%s)""",
            (target.documents, target.texts),
        ).fetchall()
    }
    target.questions |= _promoted_questions(connection, target)
    pairs = sorted(target.questions)
    asked = {"datasets": [pair[0] for pair in pairs], "questions": [pair[1] for pair in pairs]}
    match = "(dataset, question_id) IN (SELECT * FROM unnest(%(datasets)s::text[], %(questions)s::text[]))"
    hashes = {
        question_hash(question, answers if answers is not None else [] if answer is None else [answer])
        for question, answer, answers in connection.execute(
            "SELECT question, answer, answers FROM evaluation_question WHERE " + match, asked
        ).fetchall()
    }
    proof["holdout_use"] += connection.execute(
        """UPDATE holdout_use SET questions = ARRAY(
               SELECT unnest(questions) EXCEPT SELECT unnest(%(hashes)s::text[]) ORDER BY 1)
           WHERE questions && %(hashes)s::text[]""",
        {"hashes": sorted(hashes)},
    ).rowcount
    promotions = connection.execute(
        "DELETE FROM question_promotion WHERE " + match + " RETURNING interaction_id::text", asked
    ).fetchall()
    target.promoted |= {row[0] for row in promotions}
    proof["question_promotion"] += len(promotions)
    for table in ("evaluation_evidence", "evaluation_question"):
        query = sql.SQL("DELETE FROM {} WHERE " + match).format(sql.Identifier(table))  # pyright: ignore[reportArgumentType]
        proof[table] += connection.execute(query, asked).rowcount
    connection.execute(
        """UPDATE evaluation_dataset d SET counts = d.counts || (
               SELECT jsonb_build_object(
                   'questions', count(*),
                   'active', count(*) FILTER (WHERE status = 'active'),
                   'stale', count(*) FILTER (WHERE status = 'stale'),
                   'unanswerable', count(*) FILTER (WHERE status = 'active' AND NOT coalesce(answerable, answer IS NOT NULL)),
                   'splits', (SELECT coalesce(jsonb_object_agg(split, number), '{}') FROM (
                                  SELECT split, count(*) AS number FROM evaluation_question
                                  WHERE dataset = d.dataset AND version = d.version AND status = 'active' GROUP BY 1) s))
               FROM evaluation_question q WHERE q.dataset = d.dataset AND q.version = d.version)
           WHERE dataset = ANY(%s)""",
        (sorted({dataset for dataset, _ in target.questions}),),
    )


def _promoted_questions(connection: Connection, target: Target) -> set[tuple[str, str]]:
    """Questions promoted from an answer that cited an erased document or goes itself, or that quote one."""
    found: set[tuple[str, str]] = set()
    for dataset, question_id, gone, words in connection.execute(
        f"""SELECT p.dataset, p.question_id,
                   coalesce({_HITS.format(column="i.citations")}, false) OR p.interaction_id = ANY(%(interactions)s::uuid[]),
                   ARRAY(SELECT concat_ws(' ', question, answer, answers) FROM evaluation_question q
                         WHERE (q.dataset, q.question_id) = (p.dataset, p.question_id))
            FROM question_promotion p LEFT JOIN interaction i USING (interaction_id)""",
        {**_places(target), "interactions": sorted(target.interactions)},
    ).fetchall():
        if gone or mentions(words, target, documents_matter=False):
            found.add((dataset, question_id))
    return found


def _remove_feedback(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Comments and corrections that quote an erased document, or fit on their own, whatever answer they are about."""
    doomed = set(target.feedback)
    for feedback_id, *words in connection.execute(
        "SELECT feedback_id, comment, correction FROM feedback WHERE comment IS NOT NULL OR correction IS NOT NULL"
    ).fetchall():
        if mentions(words, target, documents_matter=False):
            doomed.add(feedback_id)
    proof["feedback"] += connection.execute(
        "DELETE FROM feedback WHERE feedback_id = ANY(%s)", (sorted(doomed),)
    ).rowcount


def _count(connection: Connection, table: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


#: Whether a worked example was drawn from an erased document.
_DRAWN = """EXISTS (SELECT FROM jsonb_array_elements_text(coalesce(example -> 'documents', '[]')) held
            WHERE held::bigint = ANY(%(ids)s))"""
#: The examples that stay, in their order.
_KEPT = f"""(SELECT coalesce(jsonb_agg(example ORDER BY place), '[]')
            FROM jsonb_array_elements({{examples}}) WITH ORDINALITY each (example, place) WHERE NOT {_DRAWN})"""


def _remove_examples(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Worked examples drawn from an erased document go out of prompts and variants.

    What is left of a variant or a prompt is a record: ``erased`` keeps anybody from answering with it.
    """
    for table, path in (("variant", "examples"), ("variant", "prompt,examples"), ("prompt_version", "examples")):
        examples = f"config #> '{{{path}}}'"
        query = f"""UPDATE {table}
                    SET config = jsonb_set(config, '{{{path}}}', {_KEPT.format(examples=examples)}) || '{{"erased": true}}'
                    WHERE EXISTS (SELECT FROM jsonb_array_elements({examples}) example WHERE {_DRAWN})"""
        proof[table] += connection.execute(query, {"ids": target.documents}).rowcount  # pyright: ignore


def _remove_answers(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Trials, generations and interactions that retrieved, cited or quoted an erased document."""
    pairs = sorted(target.questions)
    parameters = {
        **_places(target),
        "datasets": [pair[0] for pair in pairs],
        "questions": [pair[1] for pair in pairs],
        "trials": sorted(target.trials),
        "interactions": sorted(target.interactions),
    }
    trials = connection.execute(
        f"""SELECT fingerprint, generation, steps FROM trial WHERE {_HITS.format(column="retrieved")}
            OR {_HITS.format(column="citations")} OR {_SHOWN} OR fingerprint = ANY(%(trials)s)
            OR (dataset, question_id) IN (SELECT * FROM unnest(%(datasets)s::text[], %(questions)s::text[]))""",
        parameters,
    ).fetchall()
    target.trials = {row[0] for row in trials}
    interactions = connection.execute(
        f"""DELETE FROM interaction WHERE {_HITS.format(column="retrieved")} OR {_HITS.format(column="citations")}
            OR {_SHOWN} OR interaction_id = ANY(%(interactions)s::uuid[])
            RETURNING generation, steps""",
        parameters,
    ).fetchall()
    proof["interaction"] += len(interactions)
    proof.update(forget_shadows(connection))  # what was answered to their questions a second time
    generations = {row[1] for row in trials if row[1] is not None} | {row[0] for row in interactions}
    generations |= {step for row in [*trials, *interactions] for step in row[-1] or ()}
    generations |= target.generations | _quoting_generations(connection, target)
    doomed = sorted(target.trials)
    judged = connection.execute(
        "DELETE FROM trial_verdict WHERE trial = ANY(%s) RETURNING generations", (doomed,)
    ).fetchall()
    proof["trial_verdict"] += len(judged)
    generations |= {call for (calls,) in judged for call in calls}  # what judges were shown of the answers
    proof["trial_score"] += connection.execute("DELETE FROM trial_score WHERE trial = ANY(%s)", (doomed,)).rowcount
    proof["trial"] += connection.execute("DELETE FROM trial WHERE fingerprint = ANY(%s)", (doomed,)).rowcount
    proof["generation"] += connection.execute(
        "DELETE FROM generation WHERE fingerprint = ANY(%s)", (sorted(generations),)
    ).rowcount


def _quoting_generations(connection: Connection, target: Target) -> set[str]:
    """The memo of model calls keeps prompts without saying which documents they hold: find them by their words."""
    found: set[str] = set()
    if not target.quotations and not target.names:
        return found
    with connection.cursor(name="generations") as cursor:
        cursor.itersize = _ROWS
        cursor.execute("SELECT fingerprint, messages, text FROM generation")
        for key, messages, text in cursor:
            if mentions([messages, text], target, documents_matter=False):
                found.add(key)
    return found


def _remove_index_rows(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Rows of every build that still has its table, staged ones included; snapshot counts follow."""
    for build_id, table in build_tables(connection):
        words = _words_of(connection, table, target)
        forget_words(connection, table, target.documents)
        query = sql.SQL(
            """WITH gone AS (DELETE FROM {} WHERE document_id = ANY(%s) RETURNING valid_to)
               SELECT count(*), count(*) FILTER (WHERE valid_to < %s) FROM gone"""
        ).format(sql.Identifier(table))
        row = connection.execute(query, (target.documents, FOREVER)).fetchone()
        assert row is not None
        proof[table] += row[0]
        _forget_lonely_words(connection, table, words)
        connection.execute(
            "UPDATE index_build SET dead_rows = greatest(0, dead_rows - %s) WHERE build_id = %s", (row[1], build_id)
        )
    _adjust_counts(connection, target)
    proof["index_document"] += connection.execute(
        "DELETE FROM index_document WHERE document_id = ANY(%s)", (target.documents,)
    ).rowcount


def _words_of(connection: Connection, table: str, target: Target) -> list[str]:
    """Words of the rows that go, where the build counts words."""
    if connection.execute("SELECT to_regclass(quote_ident(%s))", (words_name(table),)).fetchone() == (None,):
        return []
    query = sql.SQL("SELECT DISTINCT lexeme FROM {} CROSS JOIN LATERAL unnest(tsv) WHERE document_id = ANY(%s)")
    return [row[0] for row in connection.execute(query.format(sql.Identifier(table)), (target.documents,)).fetchall()]


def _forget_lonely_words(connection: Connection, table: str, words: list[str]) -> None:
    """A word that no row has any more, perhaps a name, must not stay as a count that cancels out."""
    if words:
        connection.execute(
            sql.SQL(
                """DELETE FROM {} w WHERE word = ANY(%s) AND NOT EXISTS (
                       SELECT FROM {} WHERE tsv @@ ('''' || replace(replace(w.word, '\', '\\'), '''', '''''') || '''')::tsquery)"""
            ).format(sql.Identifier(words_name(table)), sql.Identifier(table)),
            (words,),
        )


def _adjust_counts(connection: Connection, target: Target) -> None:
    """Take the erased documents off the counts of every snapshot that showed them, so that the audit still agrees.

    The fingerprint of a source's content changes too: what rests on it has to be built again.
    """
    rows = connection.execute(
        """SELECT s.index_name, s.snapshot, s.counts, d.source, count(*), sum(d.chunks), sum(d.lexemes)
           FROM index_snapshot s JOIN index_document d
                ON d.build_id = s.build_id AND d.valid_from <= s.snapshot AND d.valid_to > s.snapshot
           WHERE d.document_id = ANY(%s) GROUP BY s.index_name, s.snapshot, d.source""",
        (target.documents,),
    ).fetchall()
    for index, snapshot, counts, source, *totals in rows:
        gone = dict(zip(("documents", "chunks", "lexemes"), map(int, totals), strict=True))
        own = counts.get("by_source", {}).get(source, {})
        for part in (counts, own):
            part |= {key: part[key] - number for key, number in gone.items() if key in part}
        if "content" in own:
            own["content"] = fingerprint(["erased", own["content"], gone])
        connection.execute(
            "UPDATE index_snapshot SET counts = %s WHERE index_name = %s AND snapshot = %s",
            (Jsonb(counts), index, snapshot),
        )


def _clean_records(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Evidence and alerts stay as facts; what they say beside it goes where it names an erased document."""
    for source, path in sorted(target.keys):
        written = json.dumps(path, ensure_ascii=False)[1:-1]
        proof["evidence"] += connection.execute(
            """UPDATE evidence SET details = jsonb_build_object(
                   'expected', details -> 'expected',
                   'observed', CASE WHEN position(%(path)s IN (details -> 'observed')::text) > 0 THEN to_jsonb(%(erased)s::text)
                               ELSE details -> 'observed' END)
               WHERE kind = 'documents' AND subject = %(source)s AND position(%(path)s IN details::text) > 0""",
            {"source": source, "path": written, "erased": ERASED},
        ).rowcount
        proof["alert"] += connection.execute(
            """UPDATE alert SET title = CASE WHEN position(%(path)s IN title) > 0 THEN %(erased)s ELSE title END,
                   body = CASE WHEN position(%(path)s IN body) > 0 THEN %(erased)s ELSE body END
               WHERE position(%(path)s IN title) > 0 OR position(%(path)s IN body) > 0""",
            {"path": path, "erased": ERASED},
        ).rowcount


def _remove_corpus(connection: Connection, target: Target, proof: Counter[str]) -> None:
    """Versions and identities, then texts and what was computed from them, where no other document shares them."""

    def delete(table: str, condition: str, parameters: Any) -> None:
        query = sql.SQL("DELETE FROM {} WHERE " + condition).format(sql.Identifier(table))  # pyright: ignore[reportArgumentType]
        proof[table] += connection.execute(query, parameters).rowcount

    delete("document_version", "document_id = ANY(%s)", (target.documents,))
    delete("document", "document_id = ANY(%s)", (target.documents,))
    delete(
        "quarantine",
        "(source, path) IN (SELECT * FROM unnest(%(sources)s::text[], %(paths)s::text[]))",
        _places(target),
    )
    delete(
        "source_entry",
        """content_hash = ANY(%(contents)s)
           OR (source, path) IN (SELECT * FROM unnest(%(sources)s::text[], %(paths)s::text[]))""",
        {**_places(target), "contents": target.contents},
    )
    held = (target.contents, target.texts)
    delete("parse_result", "content_hash = ANY(%s) OR text_hash = ANY(%s)", held)
    delete("screening_verdict", "content_hash = ANY(%s)", (target.contents,))
    delete("screening_result", "content_hash = ANY(%s) OR text_hash = ANY(%s)", held)
    delete("near_duplicate_sketch", "text_hash = ANY(%s)", (target.texts,))  # its bands and pairs go with it
    inputs = [
        row[0]
        for row in connection.execute(
            """SELECT input_hash FROM chunk_input WHERE text_hash = ANY(%s)
               EXCEPT SELECT input_hash FROM chunk_input WHERE text_hash <> ALL(%s)""",
            (target.texts, target.texts),
        ).fetchall()
    ]
    pieces = [
        row[0]
        for row in connection.execute(
            "SELECT DISTINCT chunk_hash FROM chunk WHERE text_hash = ANY(%s)", (target.texts,)
        )
    ]
    for table in ("chunk_input", "chunk", "chunk_set", "document_text"):
        delete(table, "text_hash = ANY(%s)", (target.texts,))
    proof["enrichment_value"] += remove_unused(connection, pieces)
    delete("embedding", "input_hash = ANY(%s)", (inputs,))
