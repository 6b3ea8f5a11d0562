"""The catalogue of blueprints: what there is to begin with, and the files each is made of.

Belongs here: reading the folders beside this file. Does not belong here: writing into a data directory (adding.py).

A blueprint is a folder with ``blueprint.yaml`` and the files of an experiment. In all of them ``__name__`` stands for the name the
user gives, ``__chat__`` and ``__embedder__`` for models of models.yaml.
"""

import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from resources.errors import PermanentError

FOLDER = Path(__file__).parent
NAME, CHAT, EMBEDDER = "__name__", "__chat__", "__embedder__"
#: Where the files of a blueprint go in a data directory.
_PLACES = {
    "corpus": "corpus/{name}/{file}",
    "indexes": "indexes/{name}-{file}",
    "prompts": "prompts/{name}-{file}",
    "evaluation.yaml": "evaluation/{name}.yaml",
    "questions.jsonl": "evaluation/{name}.jsonl",
    "experiment.yaml": "experiments/{name}.yaml",
}


@dataclass(frozen=True)
class Blueprint:
    """One entry of the catalogue.

    Attributes:
        model: the offline chat model it begins with, by the name the provider knows it by.
        ask: a question to try, for those that answer from documents.
        next: what to do after the first run, one sentence each.
    """

    kind: str
    title: str
    description: str
    model: str
    folder: Path
    ask: str | None = None
    next: tuple[str, ...] = ()

    @property
    def has_documents(self) -> bool:
        """Whether it brings documents, and so a source and indexes."""
        return (self.folder / "corpus").is_dir()

    @cached_property
    def files(self) -> dict[str, str]:
        """Its files as they are written: {path with ``{name}``: text with the words that stand for names}."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if path.is_file() and path.name != "blueprint.yaml":
                place = _PLACES[inside.parts[0]]
                found[place.replace("{file}", "/".join(inside.parts[1:]))] = path.read_text(encoding="utf-8")
        return found


def blueprints() -> list[Blueprint]:
    """Everything in the catalogue, by kind."""
    return [_read(path) for path in sorted(FOLDER.glob("*/blueprint.yaml"))]


def find(kind: str) -> Blueprint:
    """The blueprint of that kind.

    Raises:
        PermanentError: there is none; the message names those there are, and the nearest.
    """
    known = {blueprint.kind: blueprint for blueprint in blueprints()}
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PermanentError(f"there is no blueprint {kind!r}; there are: {', '.join(known)}.{hint}")
    return known[kind]


def _read(path: Path) -> Blueprint:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Blueprint(
        kind=path.parent.name,
        title=raw["title"],
        description=raw["description"],
        model=raw["model"],
        folder=path.parent,
        ask=raw.get("ask"),
        next=tuple(raw.get("next", ())),
    )
