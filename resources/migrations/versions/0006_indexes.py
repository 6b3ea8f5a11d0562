"""What ranking full text inside the server needs: words of any language, how often each occurs, which chunks to rank."""

from alembic import op

revision = "0006"
down_revision = "0005"

# Frequencies of words are in a table per build beside its rows, 'words_<build_id>' (assets/index/tables.py).
SCHEMA = r"""
COMMENT ON COLUMN index_document.lexemes IS 'words of its chunks, repeated ones counted, for the average length BM25 needs';

-- Chinese, Japanese and Korean, Thai, Lao, Khmer and Burmese write words without spaces between them, or glue particles
-- to them: their runs become overlapping pairs of characters, which need no dictionary.
CREATE FUNCTION segmented(content text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
    glued constant text :=
        '\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3005-\u3007\u3040-\u30FF\u31F0-\u31FF\u3400-\u4DBF\u4E00-\u9FFF'
        '\uAC00-\uD7AF\uF900-\uFAFF\U00020000-\U0003FFFF';
    plain text;
BEGIN
    IF octet_length(content) = length(content) THEN
        RETURN content;
    END IF;
    plain := normalize(content, NFKC);
    IF plain !~ ('[' || glued || ']') THEN
        RETURN plain;
    END IF;
    RETURN (
        SELECT string_agg(
                   CASE WHEN part.run[1] IS NULL THEN part.run[2]
                        WHEN length(part.run[1]) = 1 THEN ' ' || part.run[1] || ' '
                        ELSE (SELECT ' ' || string_agg(substr(part.run[1], first, 2), ' ' ORDER BY first) || ' '
                              FROM generate_series(1, length(part.run[1]) - 1) first)
                   END, '' ORDER BY part.position)
        FROM regexp_matches(plain, '([' || glued || ']+)|([^' || glued || ']+)', 'g') WITH ORDINALITY part (run, position)
    );
END $$;

-- The words of a text in one language; 'simple' stands for every language without a stemmer, so accents go there.
CREATE FUNCTION language_words(configuration regconfig, content text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
    plain text := segmented(content);
BEGIN
    IF configuration = 'pg_catalog.simple'::regconfig AND octet_length(plain) > length(plain) THEN
        plain := normalize(regexp_replace(normalize(plain, NFKD), '[\u0300-\u036F]', '', 'g'), NFC);
    END IF;
    RETURN to_tsvector(configuration, plain);
END $$;

-- The words of a question whose language nobody states, in each language the index has. The language in which most of
-- its words are stop words is taken for the question's: these stop words count in no language.
CREATE FUNCTION question_words(configurations text[], question text) RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    stopped text[];
BEGIN
    IF cardinality(configurations) > 1 THEN
        SELECT s.tokens INTO stopped FROM (
            SELECT array_agg(t.token) AS tokens, count(*) AS stops, max(c.position) AS position
            FROM unnest(configurations) WITH ORDINALITY c (name, position)
            CROSS JOIN (SELECT DISTINCT lower(p.token) AS token FROM ts_parse('default', segmented(question)) p
                        WHERE p.tokid IN (1, 2)) t
            WHERE c.name <> 'simple' AND language_words(c.name::regconfig, t.token) = ''::tsvector
            GROUP BY c.name) s
        ORDER BY s.stops DESC, s.position LIMIT 1;
    END IF;
    RETURN QUERY
        SELECT DISTINCT w.lexeme
        FROM unnest(configurations) c (name)
        CROSS JOIN LATERAL unnest(language_words(c.name::regconfig, question)) w
        WHERE stopped IS NULL OR NOT w.lexeme = ANY (
            tsvector_to_array(language_words(c.name::regconfig, array_to_string(stopped, ' '))));
END $$;

-- Occurrences of a single word in a vector. ts_rank gives 0.1 * (1 + 1/4 + ... + 1/tf^2) / 1.64493406685, and what the
-- series lacks to its limit is within 0.05 / tf^3 of 1 / (tf + 1/2): so the number comes out exactly, at a tenth of the
-- price of unnesting the vector.
CREATE FUNCTION occurrences(words tsvector, word tsquery) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT round(1 / (1.6449340668482264 - ts_rank($1, $2)::float8 * 16.449340668482264) - 0.5) $$;

-- The question to the full-text index that selects the chunks to be ranked, from words (quoted, rarest first) and the
-- number of chunks that have each. A word is enough for itself while the chunks it brings fit the work; a more frequent
-- one must come with others, as many as it takes for the expected number to fit.
--   share: of all chunks, how many pass the filter; chunks that do not cost reading, but no ranking.
CREATE FUNCTION candidate_query(words text[], frequencies bigint[], chunks bigint, share double precision)
RETURNS tsquery LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    number constant integer := coalesce(cardinality(words), 0);
    to_rank constant double precision := greatest(500, least(1000, 7000 / greatest(number, 1)));
    to_read constant double precision := 6000;
    companions constant integer := 3;
    ranked double precision := 0;
    read double precision := 0;
    parts text[] := '{}';
    odds double precision[];
    required text[];
    expected double precision;
    chance double precision;
    last integer;
BEGIN
    FOR i IN 1 .. number LOOP
        IF ranked + frequencies[i] * share <= to_rank AND read + frequencies[i] <= to_read THEN
            parts := parts || words[i];
            ranked := ranked + frequencies[i] * share;
            read := read + frequencies[i];
            CONTINUE;
        END IF;
        last := least(number, i + companions);
        EXIT WHEN last = i OR (parts <> '{}' AND read + frequencies[i] > to_read);
        -- odds[m + 1]: chance that a chunk has exactly m of the companions, if words were independent
        odds := ARRAY[1.0::float8];
        FOR j IN i + 1 .. last LOOP
            chance := least(1.0, frequencies[j]::float8 / greatest(chunks, 1));
            odds := ARRAY(SELECT coalesce(odds[m], 0) * (1 - chance) + coalesce(odds[m - 1], 0) * chance
                          FROM generate_series(1, cardinality(odds) + 1) m);
        END LOOP;
        FOR m IN 1 .. last - i LOOP
            -- words of one subject are found together more often than by chance: twice as often, say
            SELECT 2 * frequencies[i] * share * sum(odds[n + 1]) INTO expected FROM generate_series(m, last - i) n;
            IF ranked + expected <= to_rank OR (m = last - i AND parts = '{}') THEN
                -- required[j]: what a chunk needs of the companions from the j-th on, here one, then two, and so on
                required := NULL;
                FOR n IN 1 .. m LOOP
                    required := ARRAY(
                        SELECT CASE WHEN n = 1 THEN '(' || array_to_string(words[j : last], ' | ') || ')'
                               ELSE '(' || (SELECT string_agg(words[l] || ' & ' || required[l - i + 1], ' | ')
                                            FROM generate_series(j, last - n + 1) l) || ')' END
                        FROM generate_series(i + 1, last - n + 1) j);
                END LOOP;
                parts := parts || ('(' || words[i] || ' & ' || required[1] || ')');
                ranked := ranked + expected;
                read := read + frequencies[i];
                EXIT;
            END IF;
        END LOOP;
    END LOOP;
    IF number = 0 THEN
        RETURN NULL;
    END IF;
    IF parts = '{}' THEN
        parts := ARRAY[array_to_string(words, ' & ')];
    END IF;
    RETURN array_to_string(parts, ' | ')::tsquery;
END $$;

-- Builds made before this revision: how often each word occurs, by the snapshot at which rows begin and end. Their rows
-- stay as they are; a search measures a chunk of theirs in distinct words.
DO $$
DECLARE
    build record;
    number integer;
BEGIN
    FOR build IN SELECT build_id, table_name FROM index_build
                 WHERE state <> 'dropped' AND to_regclass(quote_ident(table_name)) IS NOT NULL LOOP
        EXECUTE format('CREATE TABLE %I (word text NOT NULL, valid_from integer NOT NULL, change integer NOT NULL)',
                       'words_' || build.build_id);
        FOR number IN EXECUTE format('SELECT valid_from FROM %1$I UNION SELECT valid_to FROM %1$I
                                      WHERE valid_to < 2147483647 ORDER BY 1', build.table_name) LOOP
            EXECUTE format(
                'INSERT INTO %I SELECT word, %s, sum(change) FROM (
                     SELECT word, ndoc AS change FROM ts_stat(%L)
                     UNION ALL SELECT word, -ndoc FROM ts_stat(%L)) s GROUP BY word HAVING sum(change) <> 0',
                'words_' || build.build_id, number,
                format('SELECT tsv FROM %I WHERE valid_from = %s', build.table_name, number),
                format('SELECT tsv FROM %I WHERE valid_to = %s', build.table_name, number));
        END LOOP;
        EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (word, valid_from)', 'words_' || build.build_id);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Add it."""
    op.get_bind().exec_driver_sql(SCHEMA.replace("%", "%%"))
