"""A throw-away repository with a project in it, for tests of the arena.

Belongs here: files and commits. Does not belong here: running the arena, and assertions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import MODELS
from tests.experiment_support import GUARDED, USER, files, write_documents
from tests.git_world import commit, git, make_repository

#: The same to the offline model, in other words to a reader.
NEUTRAL = "Please " + GUARDED[0].lower() + GUARDED[1:]
#: Takes the way out for questions the documents do not answer.
HARMFUL = "Answer the question from the numbered passages and cite them, such as [1]."
GUARDED_CHOICE = {"index": "main", "prompt": "guarded", "search_mode": "hybrid", "k": 2, "model": "extractive"}


@dataclass(frozen=True)
class ArenaWorld:
    """A repository whose ``data/`` is a project; ``base`` is its first commit."""

    root: Path
    base: str

    @property
    def data(self) -> Path:
        return self.root / "data"

    def write(self, name: str, content: Any) -> None:
        """Replace a file of the data directory; a string is written as it is, None deletes."""
        path = self.data / name
        if content is None:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8"
        )

    def edit(self, name: str, **changes: Any) -> None:
        """Replace keys of a YAML file."""
        self.write(name, {**yaml.safe_load((self.data / name).read_text(encoding="utf-8")), **changes})

    def prompt(self, name: str, system: str) -> None:
        self.write(f"prompts/{name}.yaml", {"name": name, "system": system, "user": USER})

    def commit(self) -> str:
        return commit(self.root, {})

    def reset(self) -> None:
        """Back to the first commit, whatever was done."""
        git(self.root, "reset", "--quiet", "--hard", self.base)
        git(self.root, "clean", "--quiet", "-d", "--force", "data")

    def state(self) -> tuple[str, str, bytes]:
        """What must not change: the commit, what differs from it, and the bytes of git's index."""
        return (
            git(self.root, "rev-parse", "HEAD"),
            git(self.root, "status", "--porcelain", GIT_OPTIONAL_LOCKS="0"),
            (self.root / ".git" / "index").read_bytes(),
        )


def make_world(root: Path, changes: Mapping[str, Any] | None = None, **experiment: Any) -> ArenaWorld:
    """The catalogue of tests/experiment_support.py, answered by the guarded prompt, committed."""
    write_documents(root / "data" / "docs")
    content = {
        "sources.yaml": {"sources": [{"name": "docs", "path": "docs"}]},
        "models.yaml": MODELS,
        "indexes/main.yaml": {
            "name": "main",
            "embedder": "lexical",
            "chunker": {"kind": "markdown", "unit": "characters", "size": 400},
        },
        **files(baseline=GUARDED_CHOICE, **experiment),
        **(changes or {}),
    }
    written = {
        f"data/{name}": value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False)
        for name, value in content.items()
    }
    return ArenaWorld(root, make_repository(root, written))
