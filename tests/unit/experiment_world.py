"""A small world for tests of experiments: documents, published snapshots, questions and a scripted answerer.

Belongs here: writing the rows other stages write, and fakes of search and generation that count their work.
Does not belong here: assertions.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg.types.json import Jsonb

from assets.experiments.planning import Plan, plan_trials
from assets.experiments.scope import Scope, resolve_scope
from assets.experiments.trials import TrialWork, run_trials
from resources.answerer import Answer, Citation, Variant
from resources.experiment_config import ExperimentConfig
from resources.fingerprint import fingerprint, text_hash
from resources.index_config import RetrievalConfig
from resources.models import Usage
from resources.platform import Platform
from resources.postgres import Database
from resources.prompt_config import PromptConfig
from resources.vector_index import SearchFilter, SearchHit, SearchResult

EXPERIMENT: dict[str, Any] = {
    "name": "trial-run",
    "dataset": "facts",
    "split": "dev",
    "grid": {
        "index": ["main"],
        "prompt": ["plain", "strict"],
        "search_mode": ["vector"],
        "k": [1, 2],
        "model": ["extractive"],
    },
    "baseline": {"index": "main", "prompt": "plain", "search_mode": "vector", "k": 1, "model": "extractive"},
    "resamples": 1000,
}
PROMPT = {
    "system": "Answer from the passages.",
    "user": "{{ question }} {% for p in passages %}{{ p.text }}{% endfor %}",
}


def files(**experiment: Any) -> dict[str, Any]:
    """The configuration files of the world, for ``make_platform``."""
    return {
        "prompts/plain.yaml": {"name": "plain", **PROMPT},
        "prompts/strict.yaml": {"name": "strict", **PROMPT, "system": "Answer only from the passages."},
        "evaluation/facts.yaml": {"name": "facts", "questions": "facts.jsonl", "sources": ["docs"]},
        "evaluation/facts.jsonl": "",
        "experiments/trial-run.yaml": {**EXPERIMENT, **experiment},
    }


def variant(
    name: str = "plain", *, prompt: str = PROMPT["system"], k: int = 1, mode: str = "vector", model: str = "m1"
) -> Variant:
    """A variant that needs no configuration files."""
    return Variant(
        name=f"main/{name}/{mode}/k{k}/extractive",
        index="main",
        index_fingerprint="index-1",
        prompt=PromptConfig(name=name, system=prompt, user=PROMPT["user"]),
        search_mode=mode,  # type: ignore[arg-type]
        k=k,
        model="extractive",
        model_fingerprint=model,
    )


@dataclass
class World:
    """Documents, snapshots and datasets of one database."""

    platform: Platform
    documents: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # path: (document, version, text)
    snapshot: int = 0
    version: int = 0

    @property
    def database(self) -> Database:
        return self.platform.database

    @property
    def experiment(self) -> ExperimentConfig:
        return self.platform.config.experiments["trial-run"]

    def write(self, path: str, text: str) -> None:
        """Add a document, or a new version of it."""
        with self.database.connect() as connection:
            connection.execute(
                "INSERT INTO document_text (text_hash, text, characters) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (text_hash(text), text, len(text)),
            )
            if path in self.documents:
                document = self.documents[path][0]
                connection.execute("UPDATE document_version SET rev_to = 2 WHERE document_id = %s", (document,))
            else:
                row = connection.execute(
                    "INSERT INTO document (source) VALUES ('docs') RETURNING document_id"
                ).fetchone()
                assert row is not None
                document = row[0]
            row = connection.execute(
                """INSERT INTO document_version (document_id, source, path, content_hash, text_hash, parser_fingerprint,
                       title, headings, bytes, media_type, metadata, run_id, rev_from)
                   VALUES (%s, 'docs', %s, %s, %s, 'p', %s, '[]', 1, 'text/plain', '{}', 'r', 1) RETURNING version_id""",
                (document, path, text_hash(text), text_hash(text), path),
            ).fetchone()
            assert row is not None
            self.documents[path] = (document, row[0], text)

    def publish(self) -> int:
        """Publish all documents as the next snapshot of index main, each in a build of its own."""
        self.snapshot += 1
        with self.database.connect() as connection:
            row = connection.execute(
                """INSERT INTO index_build (index_name, fingerprint, config, table_name, run_id, state)
                   VALUES ('main', 'f', '{}', 't', 'r', 'ready') RETURNING build_id"""
            ).fetchone()
            assert row is not None
            for document, version, _ in self.documents.values():
                connection.execute(
                    """INSERT INTO index_document (build_id, document_id, version_id, source, valid_from, chunks, lexemes, digest)
                       VALUES (%s, %s, %s, 'docs', %s, 1, 1, 0)""",
                    (row[0], document, version, self.snapshot),
                )
            connection.execute(
                """INSERT INTO index_snapshot (index_name, snapshot, build_id, run_id, counts, sources, evidence)
                   VALUES ('main', %s, %s, 'r', '{}', '{}', '{}')""",
                (self.snapshot, row[0]),
            )
            connection.execute(
                """INSERT INTO index_state (index_name, head, serving) VALUES ('main', %s, %s)
                   ON CONFLICT (index_name) DO UPDATE SET head = EXCLUDED.head, serving = EXCLUDED.serving""",
                (self.snapshot, self.snapshot),
            )
        return self.snapshot

    def ask(
        self, questions: dict[str, tuple[str | None, str | None]], *, split: str = "dev", stale: Sequence[str] = ()
    ) -> None:
        """Store a dataset version: {question: (answer, path of the evidence, which is the whole document)}."""
        self.version += 1
        with self.database.connect() as connection:
            connection.execute(
                """INSERT INTO evaluation_dataset (dataset, version, content_hash, corpus, counts, file, run_id)
                   VALUES ('facts', %s, %s, '{}', '{}', '', 'r')""",
                (self.version, f"content-{self.version}"),
            )
            for question, (answer, path) in questions.items():
                key = fingerprint([question, answer, path])
                connection.execute(
                    """INSERT INTO evaluation_question
                           (dataset, version, question_id, question, answer, split, tags, status, fingerprint)
                       VALUES ('facts', %s, %s, %s, %s, %s, '{}', %s, %s)""",
                    (
                        self.version, question.split("?")[0], question, answer, split,
                        "stale" if question in stale else "active", key,
                    ),
                )  # fmt: skip
                if path:
                    document, _, text = self.documents[path]
                    connection.execute(
                        """INSERT INTO evaluation_evidence (dataset, version, question_id, ordinal, declared, document_id,
                               text_hash, start_char, end_char, quote)
                           VALUES ('facts', %s, %s, 0, 'd', %s, %s, 0, %s, %s)""",
                        (self.version, question.split("?")[0], document, text_hash(text), len(text), text),
                    )

    def scope(self, **options: Any) -> Scope:
        """What the experiment measures on the newest snapshot."""
        with self.database.connect() as connection:
            return resolve_scope(connection, self.platform.config, self.experiment, {"main": self.snapshot}, **options)

    def run(
        self, variants: Sequence[Variant], generator: "ScriptedAnswerer", *, run_id: str = "run", **options: Any
    ) -> tuple[Plan, TrialWork]:
        """Plan and run the experiment's trials."""
        with self.database.connect() as connection:
            for one in variants:
                connection.execute(
                    "INSERT INTO variant (fingerprint, name, config) VALUES (%s, %s, '{}') ON CONFLICT DO NOTHING",
                    (one.fingerprint, one.name),
                )
        scope = self.scope()
        with self.database.lease("experiment:trial-run", run_id) as lease:
            plan = plan_trials(self.database, FakeSearch(self), variants, scope, run_id=run_id, lease=lease)
            work = run_trials(
                self.database, generator, self.platform.config, self.experiment, scope, plan,
                run_id=run_id, lease=lease, **options,
            )  # fmt: skip
        return plan, work


@dataclass
class FakeSearch:
    """Finds the documents that share most words with the question; ties in the order of paths."""

    world: World
    searches: list[tuple[str, str, int]] = field(default_factory=list)

    def retrieve_many(
        self,
        index: str,
        questions: Sequence[str],
        *,
        mode: Any,
        k: int,
        settings: RetrievalConfig,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
        ef_search: int | None = None,
        run_id: str,
    ) -> list[SearchResult]:
        self.searches.append((index, mode, k))
        return [self._search(index, question, mode, k, snapshot or 0) for question in questions]

    def _search(self, index: str, question: str, mode: str, k: int, snapshot: int) -> SearchResult:
        words = set(question.lower().strip("?").split())
        ranked = sorted(
            self.world.documents.items(), key=lambda item: (-len(words & set(item[1][2].lower().split())), item[0])
        )
        hits = tuple(
            SearchHit(
                rank=rank, score=1 / rank, document_id=document, version_id=version, source="docs", path=path, title=path,
                ordinal=0, start=0, end=len(text), text=text, heading_path=(), vector_rank=rank, text_rank=None,
            )
            for rank, (path, (document, version, text)) in enumerate(ranked[:k], 1)
        )  # fmt: skip
        return SearchResult(index, snapshot, mode, hits, latency=0.001)


@dataclass
class ScriptedAnswerer:
    """Quotes the first passage, remembers its calls in table generation, and fails where it is told to."""

    database: Database
    trouble: Callable[[str, int], Exception | None] = lambda question, call: None
    calls: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def generate(self, variant: Variant, question: str, result: SearchResult, *, run_id: str) -> Answer:
        messages = [{"role": "system", "content": variant.prompt.system}, {"role": "user", "content": question}]
        key = fingerprint([messages, [hit.text for hit in result.hits], variant.model_fingerprint])
        with self.database.connect() as connection:
            known = connection.execute("SELECT 1 FROM generation WHERE fingerprint = %s", (key,)).fetchone()
        if known is None:
            with self._lock:
                self.calls += 1
                self.tries[question] = self.tries.get(question, 0) + 1
                error = self.trouble(question, self.tries[question])
            if error:
                raise error
            with self.database.connect() as connection:
                connection.execute(
                    """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
                       VALUES (%s, '{}', %s, '', '{}', 0, %s) ON CONFLICT DO NOTHING""",
                    (key, Jsonb(messages), run_id),
                )
        hit = result.hits[0] if result.hits else None
        return Answer(
            text=hit.text if hit else "The documents do not say.",
            refused=hit is None,
            citations=(Citation(1, hit.document_id, hit.version_id, hit.source, hit.path, hit.start, hit.end),)
            if hit
            else (),
            hits=result.hits,
            messages=messages,
            usage=Usage(1, len(json.dumps(messages)), 5, 0.0),
            retrieval_latency=result.latency,
            generation_latency=0.002,
            snapshot=result.snapshot,
            generation=key,
        )


def with_config(world: World, **experiment: Any) -> World:
    """The same world with other experiment settings."""
    config = world.platform.config
    changed = world.experiment.model_copy(update=experiment)
    return replace(
        world,
        platform=replace(world.platform, config=config.model_copy(update={"experiments": {"trial-run": changed}})),
    )
