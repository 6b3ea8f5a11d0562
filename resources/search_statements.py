"""Search statements: the SQL of one search, as one statement whatever the mode.

Belongs here: the lists (vector, full text), their fusion, filters, and what is read of a hit.
Does not belong here: running it (vector_index.py), languages (text_search.py), SQL functions (migration 0006).

A statement depends on what is asked for, not on the question, so that the server plans it once and a client sends it
in one go: the words of the question, how frequent they are, the chunks worth ranking and whether the graph or an exact
comparison finds the neighbours are all decided inside.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from psycopg import sql

from resources.text_search import question_sql

#: BM25 as Anserini sets it for passages.
BM25_K1, BM25_B = 0.9, 0.4
#: Words of a question that take part in full-text search, rarest first.
MAXIMUM_WORDS = 32
#: With filters that leave no more chunks than this, full-text search reads these instead of the full-text index.
READ_ALL_BELOW = 5_000

Distance = Literal["cosine", "inner_product", "l2"]
#: pgvector's operators; inner product is negated there, so that smaller is nearer for all three.
OPERATORS: dict[str, str] = {"cosine": "<=>", "inner_product": "<#>", "l2": "<->"}
OPERATOR_CLASSES: dict[str, str] = {"cosine": "cosine_ops", "inner_product": "ip_ops", "l2": "l2_ops"}


@dataclass(frozen=True)
class Shape:
    """What decides the text of a statement.

    Attributes:
        words: table of word frequencies.
        counted: rows have their length in ``words``; those of older builds are measured in distinct words.
        text_search: of the index; None leaves full-text search out.
        distance: of the index; None leaves vector search out.
        exact: compare with every vector, walk the graph, or None: let the number of rows that pass the filter decide.
        conditions: names of the conditions on documents (``CONDITIONS``).
        sources: only rows of the sources in the parameter of that name.
        fusion: method of a hybrid search; its parameters are ``vector_weight``, ``text_weight`` and ``rrf_k``.
    """

    table: str
    words: str
    counted: bool
    text_search: str | None
    distance: str | None
    exact: bool | None
    conditions: tuple[str, ...]
    sources: bool
    depth: int
    k: int
    fusion: str


#: Conditions on documents, by the field of SearchFilter that sets them; parameters have the same names.
CONDITIONS: dict[str, str] = {
    "languages": "v.language = ANY(%(languages)s)",
    "licences": "v.licence = ANY(%(licences)s)",
    "path_prefix": "starts_with(v.path, %(path_prefix)s)",
    "title": "position(lower(%(title)s) IN lower(v.title)) > 0",
    "media_types": "v.media_type = ANY(%(media_types)s)",
    "origin_from": "v.origin_time >= %(origin_from)s",
    "origin_before": "v.origin_time < %(origin_before)s",
    "metadata": "v.metadata @> %(metadata)s::jsonb",
}

_VISIBLE = "c.valid_from <= %(snapshot)s AND c.valid_to > %(snapshot)s"
#: A document version as the snapshot shows it. OFFSET keeps the planner from scanning every document instead.
_SHOWN = """CROSS JOIN LATERAL (
               SELECT version_id FROM index_document WHERE build_id = %(build)s AND document_id = c.document_id
                 AND valid_from <= %(snapshot)s AND valid_to > %(snapshot)s OFFSET 0) d
           JOIN document_version v ON v.version_id = d.version_id"""
_KEYS = "c.document_id, c.ordinal, c.valid_from"


@lru_cache(maxsize=256)
def statement(shape: Shape) -> str:
    """The statement of a shape.

    Parameters: ``build``, ``snapshot``, ``chunks`` (visible ones, of permitted sources), ``total`` (all visible ones),
    ``vector``, ``exact_below``, ``question``, ``configuration`` or ``configurations``, ``average``, those of the
    fusion and those of the conditions. Columns: see ``vector_index``.
    """
    lists = [_reach(shape)]
    if shape.distance:
        lists.append(_vector_list(shape))
    if shape.text_search:
        lists.append(_text_list(shape))
    lists.append(_fused(shape))
    # what is read of a hit is read of as many as are returned, and of those that could take the last place
    lists.append(f"best AS MATERIALIZED (SELECT * FROM fused ORDER BY score DESC FETCH FIRST {shape.k} ROWS WITH TIES)")
    return " ".join(
        f"""WITH {", ".join(lists)}
        SELECT f.score, c.document_id, d.version_id, c.source, v.path, v.title, c.ordinal, c.start_char, c.end_char,
               c.content, c.heading_path, f.vector_rank, f.text_rank, {_page("c.start_char")}, {_page("c.end_char - 1")},
               encode(c.chunk_hash, 'hex'), encode(v.text_hash, 'hex'), v.language, f.vector_score, f.text_score,
               {"(SELECT count(*) FROM vector_list)" if shape.distance else "0"}, (SELECT chunks FROM reach)
        FROM best f JOIN {_name(shape.table)} c USING (document_id, ordinal, valid_from) {_SHOWN}
        WHERE true {_permitted(shape)}
        ORDER BY f.score DESC, c.chunk_hash, c.source, v.path, c.ordinal LIMIT {shape.k}""".split()
    )


def _name(table: str) -> str:
    return sql.Identifier(table).as_string(None)


def _permitted(shape: Shape) -> str:
    """Of a row by itself, beside what is asked of its document: no list holds what the caller may not see."""
    return "AND c.source = ANY(%(sources)s)" if shape.sources else ""


def _page(position: str) -> str:
    """Page of a character of the document; NULL where the document has none. Pages are [[number, start], ...]."""
    return f"""CASE WHEN jsonb_typeof(v.metadata -> 'pages') = 'array' THEN (
                   SELECT (page ->> 0)::integer FROM jsonb_array_elements(v.metadata -> 'pages') page
                   WHERE (page ->> 1)::integer <= {position} ORDER BY (page ->> 1)::integer DESC LIMIT 1) END"""


def _reach(shape: Shape) -> str:
    """Which documents pass the conditions, and how many chunks that are."""
    if not shape.conditions:
        return "reach AS MATERIALIZED (SELECT %(chunks)s::bigint AS chunks)"
    # "permitted" stands for no other condition than that on sources, when that alone leaves few chunks
    conditions = " AND ".join(CONDITIONS.get(name, "true") for name in shape.conditions)
    sources = "AND d.source = ANY(%(sources)s)" if shape.sources else ""
    return f"""allowed AS MATERIALIZED (
            SELECT d.document_id, d.chunks FROM index_document d JOIN document_version v USING (version_id)
            WHERE d.build_id = %(build)s AND d.valid_from <= %(snapshot)s AND d.valid_to > %(snapshot)s
              AND {conditions} {sources}),
        reach AS MATERIALIZED (SELECT coalesce(sum(chunks), 0)::bigint AS chunks FROM allowed)"""


def _of_allowed(shape: Shape) -> str:
    """The rows of the documents that pass, document by document: where they are few, the table is not read in full."""
    return f"CROSS JOIN LATERAL (SELECT * FROM {_name(shape.table)} WHERE document_id = allowed.document_id OFFSET 0) c"


def similarity(kind: str, distance: str) -> str:
    """SQL of the score of a distance: cosine, inner product, or the negated Euclidean distance; larger is better."""
    return f"1 - {distance}" if kind == "cosine" else f"-({distance})"


def _vector_list(shape: Shape) -> str:
    """The nearest chunks.

    Adding zero keeps the planner from the graph. WITH TIES brings every row that could take the last place, so that
    the tie is broken by the same keys everywhere.
    """
    table, operator = _name(shape.table), OPERATORS[shape.distance or ""]
    distance = f"(c.embedding {operator} %(vector)s)"
    columns = f"{_KEYS}, c.chunk_hash, c.source"
    within = "AND (c.document_id IN (SELECT document_id FROM allowed)) IS TRUE" if shape.conditions else ""
    start = f"allowed {_of_allowed(shape)}" if shape.conditions else f"{table} c"
    few = "(SELECT chunks FROM reach) < %(exact_below)s"
    choose = shape.exact is None
    exact = f"""SELECT {columns}, {distance} + 0 AS distance FROM {start}
                WHERE {_VISIBLE} {_permitted(shape)} {f"AND {few}" if choose else ""}
                ORDER BY distance, c.chunk_hash FETCH FIRST {shape.depth} ROWS WITH TIES"""
    graph = f"""SELECT {columns}, {distance} AS distance FROM {table} c
                WHERE {_VISIBLE} {_permitted(shape)} {within} {f"AND NOT {few}" if choose else ""}
                ORDER BY {distance} LIMIT {shape.depth}"""
    nearest = f"({exact}) UNION ALL ({graph})" if choose else exact if shape.exact else graph
    return f"""nearest AS MATERIALIZED ({nearest}),
        vector_list AS MATERIALIZED (
            SELECT {_KEYS}, {similarity(shape.distance or "", "c.distance")} AS score,
                   row_number() OVER (ORDER BY c.distance, c.chunk_hash, c.source, v.path, c.ordinal) AS rank
            FROM nearest c {_SHOWN} ORDER BY rank LIMIT {shape.depth})"""


def _text_list(shape: Shape) -> str:
    """The words of the question, rarest first, with their BM25 weights; and the chunks that score best by them.

    idf = ln(1 + (N - n + 1/2) / (n + 1/2)) over all chunks the snapshot shows, whoever asks: see docs/search.md.
    """
    table = _name(shape.table)
    weight = f"ln(1 + (%(total)s::float8 - frequency + 0.5) / (frequency + 0.5)) * {BM25_K1 + 1}"
    order = 'ORDER BY frequency, word COLLATE "C"'
    columns = f"{_KEYS}, c.chunk_hash, c.source, {_bm25(shape)} AS score"
    few = f"(SELECT chunks FROM reach) <= {READ_ALL_BELOW}"
    where = f"{_VISIBLE} {_permitted(shape)}"
    if shape.conditions:
        within = "AND (c.document_id IN (SELECT document_id FROM allowed)) IS TRUE"
        rows = f"""(SELECT {columns} FROM asked CROSS JOIN allowed {_of_allowed(shape)} {_norm(shape)}
                    WHERE c.tsv @@ asked.any_word AND {where} AND {few})
                   UNION ALL
                   (SELECT {columns} FROM asked JOIN {table} c ON c.tsv @@ asked.candidates {_norm(shape)}
                    WHERE {where} {within} AND NOT {few})"""
    else:
        rows = f"SELECT {columns} FROM asked JOIN {table} c ON c.tsv @@ asked.candidates {_norm(shape)} WHERE {where}"
    return rf"""frequent AS MATERIALIZED (
            SELECT w.word, w.frequency FROM (
                SELECT '''' || replace(replace(q.lexeme, '\', '\\'), '''', '''''') || '''' AS word, f.frequency
                FROM ({question_sql(shape.text_search or "").as_string(None)}) q
                CROSS JOIN LATERAL (SELECT sum(w.change)::bigint AS frequency FROM {_name(shape.words)} w
                                    WHERE w.word = q.lexeme AND w.valid_from <= %(snapshot)s) f
                WHERE f.frequency > 0) w
            {order} LIMIT {MAXIMUM_WORDS}),
        asked AS MATERIALIZED (
            SELECT array_agg(word::tsquery {order}) AS words, array_agg({weight} {order}) AS weights,
                   count(*)::integer AS number, sum({weight}) AS ideal, string_agg(word, ' | ')::tsquery AS any_word,
                   candidate_query(array_agg(word {order}), array_agg(frequency {order}), %(total)s::bigint,
                                   (SELECT chunks FROM reach)::float8 / greatest(%(total)s::float8, 1)) AS candidates
            FROM frequent),
        matching AS MATERIALIZED (
            SELECT c.* FROM ({rows}) c ORDER BY c.score DESC, c.chunk_hash FETCH FIRST {shape.depth} ROWS WITH TIES),
        text_list AS MATERIALIZED (
            SELECT {_KEYS}, c.score,
                   row_number() OVER (ORDER BY c.score DESC, c.chunk_hash, c.source, v.path, c.ordinal) AS rank
            FROM matching c {_SHOWN} ORDER BY rank LIMIT {shape.depth})"""


def _bm25(shape: Shape) -> str:
    """BM25 (Robertson and Zaragoza, 2009): sum of idf * (k1 + 1) * tf / (tf + K), K = k1 * (1 - b + b * length / average).

    One term for each word there can be; those beyond the last word of the question are never reached.
    """
    score = "0"
    for position in range(MAXIMUM_WORDS, 0, -1):
        tail = f" + {score}" if score != "0" else ""
        term = f"asked.weights[{position}] * (1 - norm.k / (norm.k + occurrences(c.tsv, asked.words[{position}])))"
        score = f"CASE WHEN asked.number < {position} THEN 0 ELSE {term}{tail} END"
    return f"round(({score}) * 1e9) / 1e9"


def _norm(shape: Shape) -> str:
    """K of a chunk, computed once for all words."""
    length = "c.words" if shape.counted else "length(c.tsv)"
    k = f"{BM25_K1 * (1 - BM25_B)} + {BM25_K1 * BM25_B} * {length} / %(average)s::float8"
    return f"CROSS JOIN LATERAL (SELECT {k} AS k OFFSET 0) norm"


def _fused(shape: Shape) -> str:
    if shape.distance and shape.text_search:
        joined = "vector_list a FULL JOIN text_list b USING (document_id, ordinal, valid_from)"
        if shape.fusion == "rrf":
            return f"""fused AS (
                SELECT document_id, ordinal, valid_from, a.rank AS vector_rank, b.rank AS text_rank,
                       a.score AS vector_score, b.score AS text_score,
                       coalesce(%(vector_weight)s::float8 / (%(rrf_k)s::float8 + a.rank), 0)
                         + coalesce(%(text_weight)s::float8 / (%(rrf_k)s::float8 + b.rank), 0) AS score
                FROM {joined})"""
        # a chunk that only one list has is scored by both: what is missing from a list is not zero
        vector = similarity(shape.distance, f"(c.embedding {OPERATORS[shape.distance]} %(vector)s)")
        bounded = {"cosine": "vector_score", "inner_product": "vector_score", "l2": "1 / (1 - vector_score)"}
        return f"""scored AS MATERIALIZED (
                SELECT {_KEYS}, u.vector_rank, u.text_rank, {vector} AS vector_score, {_bm25(shape)} AS text_score,
                       asked.ideal
                FROM (SELECT document_id, ordinal, valid_from, a.rank AS vector_rank, b.rank AS text_rank
                      FROM {joined}) u
                JOIN {_name(shape.table)} c USING (document_id, ordinal, valid_from) CROSS JOIN asked {_norm(shape)}),
            fused AS (
                SELECT document_id, ordinal, valid_from, vector_rank, text_rank, vector_score, text_score,
                       round((%(vector_weight)s::float8 * {bounded[shape.distance]}
                              + %(text_weight)s::float8 * coalesce(text_score / ideal, 0)) * 1e9) / 1e9 AS score
                FROM scored)"""
    if shape.distance:
        return """fused AS (
            SELECT document_id, ordinal, valid_from, rank AS vector_rank, NULL::bigint AS text_rank, score,
                   score AS vector_score, NULL::float8 AS text_score FROM vector_list)"""
    return """fused AS (
        SELECT document_id, ordinal, valid_from, NULL::bigint AS vector_rank, rank AS text_rank, score,
               NULL::float8 AS vector_score, score AS text_score FROM text_list)"""
