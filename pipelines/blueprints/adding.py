"""Adding a blueprint to a data directory as an experiment of the user's, and taking it out again.

Belongs here: names, models and files; that all of it is written, or nothing. Does not belong here: what there is to add
(catalogue.py).

Nothing that is there is overwritten. Two files are shared: ``sources.yaml`` and ``models.yaml`` get entries at their ends, and keep
everything else. A note in ``blueprints/NAME.json`` says what was made; it is written first, so that what a killed process left
behind is found. Everything is the user's from then on: the note serves taking out what nobody changed, and nothing else.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.blueprints.catalogue import CHAT, EMBEDDER, FOLDER, NAME, Blueprint, find
from pipelines.blueprints.yaml_lists import add_entry, add_key, remove_entry
from resources.config import ProjectConfig, load_config
from resources.errors import ConfigError, PermanentError
from resources.faults import crash_point

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
#: Files of a project that begins with a blueprint; ``project/`` beside this file.
_PROJECT = FOLDER / "project"


@dataclass(frozen=True)
class Added:
    """What was added.

    Attributes:
        files: new files, relative to the data directory.
        entries: what was added to files that were there: {file: names}.
        covers: indexes over all sources, which will hold the new documents as well.
    """

    name: str
    blueprint: Blueprint
    data_dir: Path
    files: tuple[str, ...]
    entries: Mapping[str, tuple[str, ...]]
    covers: tuple[str, ...] = ()


@dataclass
class _Change:
    """What will be written: new files, and new content of those that are there."""

    files: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    entries: dict[str, list[str]] = field(default_factory=dict)


@contextlib.contextmanager
def started_project(data_dir: Path) -> Iterator[None]:
    """Write the files a data directory has at least, unless it has them, for the block; if that fails they go again.

    Raises:
        PermanentError: the folder holds something that is no data directory.
    """
    if (data_dir / "models.yaml").exists() and (data_dir / "sources.yaml").exists():
        yield
        return
    if data_dir.exists() and any(data_dir.iterdir()):
        raise PermanentError(
            f"{data_dir} is neither empty nor a data directory (sources.yaml, models.yaml); name another folder"
        )
    files = {path.relative_to(_PROJECT): path for path in sorted(_PROJECT.rglob("*")) if path.is_file()}
    folders = {folder for file in files for folder in _missing(data_dir / file)}
    try:
        for file, path in files.items():
            (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
            (data_dir / file).write_bytes(path.read_bytes())
        yield
    except BaseException:
        for file in files:
            (data_dir / file).unlink(missing_ok=True)
        _remove_empty(folders)
        raise


def add(data_dir: Path, kind: str, name: str) -> Added:
    """Add a blueprint under a name; afterwards the data directory is valid, or as it was.

    Raises:
        PermanentError: there is no such blueprint, the name is no name or taken, or a file to add to is written in a form that no
            program changes.
        ConfigError: the data directory is not valid before.
    """
    blueprint = find(kind)
    if not _NAME.fullmatch(name):
        raise PermanentError(
            f"{name!r} cannot be a name: lower-case letters, digits, - and _, at most 40, a letter first; it names a source, "
            "indexes, prompts, a dataset and an experiment"
        )
    config = load_config(data_dir)
    data_dir = config.data_dir
    note = data_dir / "blueprints" / f"{name}.json"
    if note.exists():
        state = json.loads(note.read_text(encoding="utf-8"))
        cut = "" if state.get("complete") else "; adding it was cut short"
        raise PermanentError(
            f"{name} was made from blueprint {state['kind']}{cut}; take it out first: genaiops new --remove {name}"
        )
    change = _plan(config, blueprint, name)
    _refuse_taken(config, data_dir, change, name)
    with _all_or_nothing(data_dir, note, change, blueprint, name):
        made = load_config(data_dir)
        _check_questions(made, name)
    covers = (
        tuple(index for index, one in config.indexes.items() if one.sources == "all") if blueprint.has_documents else ()
    )
    return Added(
        name=name,
        blueprint=blueprint,
        data_dir=data_dir,
        files=tuple(change.files),
        entries={file: tuple(names) for file, names in change.entries.items()},
        covers=covers,
    )


def remove(data_dir: Path, name: str, *, force: bool = False) -> list[str]:
    """Take out what ``add`` made under a name; returns the files that are gone.

    Documents, snapshots and results in the database stay; they are erased by ``genaiops forget``.

    Raises:
        PermanentError: nothing was made under the name, files were changed since (unless ``force``), or something else uses them.
    """
    note = data_dir / "blueprints" / f"{name}.json"
    if not note.exists():
        known = sorted(path.stem for path in (data_dir / "blueprints").glob("*.json")) or ["none"]
        raise PermanentError(
            f"nothing was made from a blueprint under the name {name!r}; there are: {', '.join(known)}"
        )
    state = json.loads(note.read_text(encoding="utf-8"))
    there = {file: data_dir / file for file in state["files"] if (data_dir / file).exists()}
    changed = [file for file, path in there.items() if _hash(path.read_bytes()) != state["files"][file]]
    if changed and not force:
        raise PermanentError(
            f"changed since they were made, so nothing was removed: {', '.join(changed)}. Keep what you need elsewhere, then: "
            f"genaiops new --remove {name} --force"
        )
    kept = {path: path.read_bytes() for path in there.values()}
    kept |= {data_dir / file: (data_dir / file).read_bytes() for file in state["entries"]}
    try:
        for path in there.values():
            path.unlink()
        try:
            _take_out(data_dir, state["entries"], ("sources", "chat", "embedding"))
        except ConfigError:  # a model that came with it may be in use by others now: it stays
            for file in state["entries"]:
                (data_dir / file).write_bytes(kept[data_dir / file])
            try:
                _take_out(data_dir, state["entries"], ("sources",))
            except ConfigError as error:
                raise PermanentError(f"something else uses what would be removed, so nothing was: {error}") from error
    except BaseException:
        for path, content in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        raise
    note.unlink()
    for folder in {(data_dir / file).parent for file in [*state["files"], f"blueprints/{name}.json"]}:
        _drop_empty(folder, data_dir)
    return sorted(there)


def _take_out(data_dir: Path, entries: Mapping[str, list[str]], keys: tuple[str, ...]) -> None:
    """Take entries out of the shared files.

    Raises:
        ConfigError: the data directory is not valid without them.
    """
    for file, names in entries.items():
        text = (data_dir / file).read_text(encoding="utf-8")
        for entry in names:
            key, _, one = entry.partition(".")
            if key in keys:
                text = remove_entry(text, key, one, file=file)
        _replace(data_dir / file, text)
    load_config(data_dir)


# --- planning -----------------------------------------------------------------------------------------------


def _plan(config: ProjectConfig, blueprint: Blueprint, name: str) -> _Change:
    change = _Change()
    models = config.data_dir / "models.yaml"
    text = models.read_text(encoding="utf-8")
    provider = next((key for key, one in config.models.providers.items() if one.kind == "offline"), None)
    if provider is None:
        provider = _free("offline", config.models.providers)
        text = add_key(text, "providers", provider, {"kind": "offline"}, file="models.yaml")
        change.entries.setdefault("models.yaml", []).append(f"providers.{provider}")
    words = {NAME: name}
    wanted: list[tuple[str, str, str, Any, dict[str, Any]]] = [(CHAT, "chat", blueprint.model, config.models.chat, {})]
    if blueprint.has_documents:
        size = {"dimensions": 768, "max_input_tokens": 100_000}
        wanted.append((EMBEDDER, "embedding", "lexical-hash", config.models.embedding, size))
    for word, key, model, known, further in wanted:
        found = next((one.name for one in known if (one.provider, one.model) == (provider, model)), None)
        if found is None:
            found = _free("lexical" if model == "lexical-hash" else model, [one.name for one in known])
            entry = {"name": found, "provider": provider, "model": model, **further}
            text = add_entry(text, key, entry, file="models.yaml")
            change.entries.setdefault("models.yaml", []).append(f"{key}.{found}")
        words[word] = found
    if "models.yaml" in change.entries:
        change.shared["models.yaml"] = text
    if blueprint.has_documents:
        sources = (config.data_dir / "sources.yaml").read_text(encoding="utf-8")
        entry = {
            "name": name,
            "kind": "folder",
            "path": f"corpus/{name}",
            "include": ["**/*.md"],
            "licence": "Apache-2.0",
        }
        change.shared["sources.yaml"] = add_entry(sources, "sources", entry, file="sources.yaml")
        change.entries["sources.yaml"] = [f"sources.{name}"]
    for place, content in blueprint.files.items():
        for word, value in words.items():
            content = content.replace(word, value)
        change.files[place.replace("{name}", name)] = content
    return change


def _free(wanted: str, taken: Any) -> str:
    """A name that nobody uses."""
    numbered = (f"offline-{wanted}" if number == 1 else f"offline-{wanted}-{number}" for number in range(1, 1000))
    return wanted if wanted not in taken else next(name for name in numbered if name not in taken)


def _refuse_taken(config: ProjectConfig, data_dir: Path, change: _Change, name: str) -> None:
    taken = [file for file in change.files if (data_dir / file).exists()]
    if taken:
        raise PermanentError(f"nothing is overwritten, and there are already: {', '.join(taken)}; choose another name")
    known = {
        "source": config.source_names,
        "dataset": config.datasets,
        "experiment": config.experiments,
        "index": [index for index in config.indexes if index.startswith(f"{name}-")],
        "prompt": [prompt for prompt in config.prompts if prompt.startswith(f"{name}-")],
    }
    made = {Path(file).stem for file in change.files if file.split("/")[0] in ("indexes", "prompts")} | {name}
    for what, names in known.items():
        if both := sorted(made & set(names)):
            raise PermanentError(f"there is already a {what} named {both[0]!r}; choose another name")


def _check_questions(config: ProjectConfig, name: str) -> None:
    """Read the questions as an evaluation will."""
    from assets.evaluation.questions import load_questions

    load_questions(config.question_files(name), config.datasets[name])


# --- writing ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _all_or_nothing(data_dir: Path, note: Path, change: _Change, blueprint: Blueprint, name: str) -> Iterator[None]:
    """Write everything, then run the block; if anything fails, the folder is as it was."""
    before = {file: (data_dir / file).read_bytes() for file in change.shared}
    folders = {path for file in [*change.files, f"blueprints/{name}.json"] for path in _missing(data_dir / file)}
    hashes = {file: _hash(text.encode()) for file, text in change.files.items()}
    state = {"kind": blueprint.kind, "name": name, "files": hashes, "entries": change.entries}
    note.parent.mkdir(parents=True, exist_ok=True)
    made = []
    try:
        with note.open("x", encoding="utf-8") as handle:
            made.append(note)
            json.dump({**state, "complete": False}, handle, indent=1)
        crash_point("blueprints.noted")
        for file, text in change.files.items():
            path = data_dir / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="") as handle:
                made.append(path)
                handle.write(text)
        crash_point("blueprints.files_written")
        for file, text in change.shared.items():
            if (data_dir / file).read_bytes() != before[file]:
                raise PermanentError(f"{data_dir / file} was changed by somebody else just now; try again")
            _replace(data_dir / file, text)
        yield
        _replace(note, json.dumps({**state, "complete": True}, indent=1) + "\n")
    except BaseException as error:
        for file, text in change.shared.items():
            if (data_dir / file).read_text(encoding="utf-8") == text:
                (data_dir / file).write_bytes(before[file])
        for path in made:
            path.unlink(missing_ok=True)
        _remove_empty(folders)
        if isinstance(error, FileExistsError):
            raise PermanentError(f"nothing is overwritten, and there is already {error.filename}") from error
        raise


def _remove_empty(folders: set[Path]) -> None:
    for folder in sorted(folders, key=lambda one: -len(one.parts)):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _missing(path: Path) -> list[Path]:
    """The folders above a file that are not there yet."""
    return [folder for folder in path.parents if not folder.exists()]


def _replace(path: Path, text: str) -> None:
    """Put a new content in place of the old one, with its kind of line ends; a reader sees one of the two."""
    partial = path.with_name(f".{path.name}.partial")
    old = path.read_bytes() if path.exists() else b""
    partial.write_text(text, encoding="utf-8", newline="\r\n" if b"\r\n" in old else "")
    if path.exists():
        partial.chmod(path.stat().st_mode & 0o777)
    partial.replace(path)


def _drop_empty(folder: Path, root: Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
