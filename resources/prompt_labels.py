"""The prompt store: versions of prompts that people look at, compare and label.

Belongs here: saving a version with its reason, finding one by number or label, labels as append-only pointers, differences.
Does not belong here: what makes two prompts the same version (prompt_store.py), and who answers: that is the champion
(assets/experiments/champion.py), and no label changes it.

Labels: ``production`` is put by a promotion and names the version that was promoted last, ``candidate`` is put by a
recommendation; people may put these and others.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from resources.errors import PermanentError
from resources.postgres import Connection
from resources.prompt_config import PromptConfig, split_reference
from resources.prompt_store import register

PRODUCTION, CANDIDATE = "production", "candidate"
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class PromptVersion:
    """One immutable version.

    Attributes:
        prompt: None when worked examples were taken out of it because their document was erased.
        labels: that name it now.
        results: newest of each experiment that measured it, the best variant with it: {experiment, result, variant,
            metric, mean, questions}.
    """

    name: str
    version: int
    fingerprint: str
    created_at: datetime
    run_id: str
    rationale: str | None
    author: str | None
    prompt: PromptConfig | None
    labels: tuple[str, ...] = ()
    results: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class LabelMove:
    """A label that was put on a version."""

    move_id: int
    label: str
    version: int
    kind: str
    set_by: str
    reason: str
    set_at: datetime = field(compare=False)


# --- versions -----------------------------------------------------------------------------------------------


def save(connection: Connection, prompt: PromptConfig, *, rationale: str, author: str) -> int:
    """Put a prompt on record with the reason for it, and return its version.

    Content that is on record keeps its version, and gets reason and author if it has none yet.

    Raises:
        PermanentError: it has another reason already; or the reason is empty.
    """
    _not_empty("rationale", rationale)
    version = register(connection, prompt, f"saved by {author}")
    row = connection.execute(
        """UPDATE prompt_version SET rationale = %s, author = %s
           WHERE name = %s AND version = %s AND rationale IS NULL RETURNING 1""",
        (rationale, author, prompt.name, version),
    ).fetchone()
    known = connection.execute(
        "SELECT rationale, author FROM prompt_version WHERE name = %s AND version = %s", (prompt.name, version)
    ).fetchone()
    if row is None and known is not None and known[0] != rationale:
        raise PermanentError(
            f"this content is version {version} of prompt {prompt.name}, saved by {known[1]} with another reason, and "
            "versions do not change; change the prompt, or leave it as it is"
        )
    return version


def prompt_names(connection: Connection) -> list[str]:
    """Names with at least one version on record."""
    return [row[0] for row in connection.execute("SELECT DISTINCT name FROM prompt_version ORDER BY 1").fetchall()]


def versions(connection: Connection, name: str) -> list[PromptVersion]:
    """All versions of a prompt, newest first.

    Raises:
        PermanentError: there is none; the message names the nearest prompt.
    """
    rows = connection.execute(
        """SELECT version, fingerprint, created_at, run_id, rationale, author, config FROM prompt_version
           WHERE name = %s ORDER BY version DESC""",
        (name,),
    ).fetchall()
    if not rows:
        raise _unknown(connection, name)
    labels = current_labels(connection, name)
    results = _results(connection, name)
    return [
        PromptVersion(
            name, version, key, created, run, rationale, author, _prompt(config),
            tuple(label for label, labelled in sorted(labels.items()) if labelled == version),
            tuple(results.get(version, ())),
        )
        for version, key, created, run, rationale, author, config in rows
    ]  # fmt: skip


def find_version(connection: Connection, name: str, version: int | str | None) -> PromptVersion:
    """A version by its number or by a label; None: the newest.

    Raises:
        PermanentError: there is none; the message says what there is.
    """
    known = versions(connection, name)
    if version is None:
        return known[0]
    if isinstance(version, str):
        labels = current_labels(connection, name)
        if version not in labels:
            raise PermanentError(
                f"prompt {name} has no label {version!r}; it has {', '.join(sorted(labels)) or 'none'}; "
                f"genaiops prompts label {name} VERSION {version} --reason ..."
            )
        version = labels[version]
    for one in known:
        if one.version == version:
            return one
    raise PermanentError(f"prompt {name} has no version {version}; it has 1 to {known[0].version}")


def find_prompt(connection: Connection, files: Mapping[str, PromptConfig], reference: str) -> PromptConfig:
    """What ``concise``, ``concise@3`` or ``concise@production`` stands for.

    Args:
        files: the prompts of prompts/ by name.

    Raises:
        PermanentError: there is no such prompt, version or label.
    """
    name, version = split_reference(reference)
    if version is None and name in files:
        return files[name]
    found = find_version(connection, name, version)
    if found.prompt is None:
        raise PermanentError(
            f"version {found.version} of prompt {name} cannot be used: it was written by another version of the code, or "
            "held worked examples of a document that was erased"
        )
    return found.prompt


def difference(before: PromptVersion, after: PromptVersion) -> str:
    """What changed between two versions, part by part, as unified differences; empty when nothing did."""
    old, new = _parts(before), _parts(after)
    lines: list[str] = []
    for part in dict.fromkeys([*old, *new]):
        if old.get(part) != new.get(part):
            lines += difflib.unified_diff(
                old.get(part, []),
                new.get(part, []),
                f"{before.name}@{before.version} {part}",
                f"{after.name}@{after.version} {part}",
                lineterm="",
                n=2,
            )
    return "\n".join(lines)


def _parts(version: PromptVersion) -> dict[str, list[str]]:
    """The text of each part of a prompt, in lines."""
    if version.prompt is None:
        return {}
    config = version.prompt.model_dump(mode="json", exclude={"name"})
    parts: dict[str, list[str]] = {}
    for key, value in config.items():
        if isinstance(value, str):
            parts[key] = value.splitlines()
        elif isinstance(value, dict):
            parts[key] = [f"{name}: {one!r}" for name, one in sorted(value.items())]
        else:
            for number, one in enumerate(value, 1):
                fields = one.items() if isinstance(one, dict) else [("", one)]
                label = one.get("name", number) if isinstance(one, dict) else number
                parts[f"{key} {label}"] = [
                    f"{name}: {line}".removeprefix(": ") for name, text in fields for line in str(text).splitlines()
                ]
    return parts


def _prompt(config: Mapping[str, Any]) -> PromptConfig | None:
    try:
        return PromptConfig.model_validate(config)
    except ValidationError:  # erased in part, or written by another version of the code
        return None


def _results(connection: Connection, name: str) -> dict[int, list[dict[str, Any]]]:
    """By version: of each experiment the newest result that measured it, its best variant."""
    rows = connection.execute(
        """SELECT DISTINCT ON (experiment, version) experiment, result_id, leaderboard->>'decision_metric',
                  (row->>'prompt_version')::int AS version, row->>'variant', (row->'decision'->>'estimate')::double precision AS mean,
                  (row->>'n')::int
           FROM experiment_result CROSS JOIN LATERAL jsonb_array_elements(leaderboard->'rows') row
           WHERE row->>'prompt' = %s AND row->>'prompt_version' IS NOT NULL
           ORDER BY experiment, version, result_id DESC, mean DESC NULLS LAST, row->>'variant'""",
        (name,),
    ).fetchall()
    found: dict[int, list[dict[str, Any]]] = {}
    for experiment, result, metric, version, variant, mean, questions in rows:
        found.setdefault(version, []).append(
            {
                "experiment": experiment,
                "result": result,
                "variant": variant,
                "metric": metric,
                "mean": mean,
                "questions": questions,
            }
        )
    return found


def _unknown(connection: Connection, name: str) -> PermanentError:
    names = prompt_names(connection)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return PermanentError(
        f"no version of a prompt {name!r} is on record; there are: {', '.join(names) or 'none'}.{hint} An experiment "
        "records the prompts it runs, `genaiops prompts save` one without"
    )


# --- labels -------------------------------------------------------------------------------------------------


def label_moves(connection: Connection, name: str, label: str | None = None) -> list[LabelMove]:
    """Every move of the labels of a prompt, oldest first."""
    rows = connection.execute(
        """SELECT move_id, label, version, kind, set_by, reason, set_at FROM prompt_label
           WHERE name = %s AND label = coalesce(%s, label) ORDER BY move_id""",
        (name, label),
    ).fetchall()
    return [LabelMove(*row) for row in rows]


def current_labels(connection: Connection, name: str) -> dict[str, int]:
    """The version each label names now: {label: version}."""
    return {move.label: move.version for move in label_moves(connection, name)}


def set_label(connection: Connection, name: str, label: str, version: int, *, by: str, reason: str) -> LabelMove | None:
    """Let a label name a version; None when it does already. Nobody's answers change by it.

    Raises:
        PermanentError: there is no such version, the label is no name, or the reason is empty.
    """
    if not _LABEL.fullmatch(label):
        raise PermanentError(f"{label!r} is no label: lower-case letters, digits, - and _, a letter first")
    _not_empty("reason", reason)
    _lock(connection, name)
    found = find_version(connection, name, version)
    if current_labels(connection, name).get(label) == found.version:
        return None
    return _move(connection, name, label, found.version, "set", by, reason)


def roll_back(connection: Connection, name: str, label: str, *, by: str, reason: str) -> LabelMove:
    """Let a label name the version it named before; again: the one before that. Nobody's answers change by it.

    Raises:
        PermanentError: it never named another version, or the reason is empty.
    """
    _not_empty("reason", reason)
    _lock(connection, name)
    standing = _standing(label_moves(connection, name, label))
    if len(standing) < 2:
        if not label_moves(connection, name):
            find_version(connection, name, None)  # says so when there is no such prompt
        what = f"names version {standing[0]} and never named another" if standing else "was never put"
        raise PermanentError(f"label {label!r} of prompt {name} {what}; there is nothing to go back to")
    return _move(connection, name, label, standing[-2], "rollback", by, reason)


def _standing(moves: Sequence[LabelMove]) -> list[int]:
    """The versions that were put and not taken back, oldest first."""
    standing: list[int] = []
    for move in moves:
        if move.kind == "set":
            standing.append(move.version)
        else:
            standing.pop()
    return standing


def _move(connection: Connection, name: str, label: str, version: int, kind: str, by: str, reason: str) -> LabelMove:
    row = connection.execute(
        """INSERT INTO prompt_label (name, label, version, kind, set_by, reason) VALUES (%s, %s, %s, %s, %s, %s)
           RETURNING move_id, label, version, kind, set_by, reason, set_at""",
        (name, label, version, kind, by, reason),
    ).fetchone()
    assert row is not None
    return LabelMove(*row)


def _lock(connection: Connection, name: str) -> None:
    """One mover of a prompt's labels at a time, until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"prompt-label:{name}",))


def _not_empty(what: str, text: str) -> None:
    if not text.strip():
        raise PermanentError(f"the {what} must not be empty; it is kept for those who ask later")
