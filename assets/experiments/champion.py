"""The champion: the variant of an experiment that answers until a better one is proven.

Belongs here: who is champion now, and making another variant champion on persisted evidence.
Does not belong here: producing the evidence (running.py), and how a champion's answer is made (resources/answerer.py).
"""

import difflib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from assets.experiments.checks import CHECKS, NOT_BLOCKING
from assets.experiments.judged import objections
from assets.experiments.variants import baseline, expand, register_variants
from resources.answerer import Variant, restore_variant
from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.fingerprint import fingerprint
from resources.models import Models
from resources.platform import Platform
from resources.postgres import Connection
from resources.prompt_config import names_label
from resources.prompt_labels import PRODUCTION, set_label

#: Kind of the rows of table evidence that a promotion rests on; their subject is the experiment.
EVIDENCE_KIND = "experiment"


@dataclass(frozen=True)
class Champion:
    """The current champion.

    Attributes:
        reason: why it is champion, in words.
        champion_id: row of table champion; None for the baseline, which nobody promoted.
        proven: whether exactly this configuration was promoted; false for a baseline, and for a promoted variant whose
            prompt, index or model was changed since.
        snapshot: the retained snapshot it has to answer from, when the serving one is of an index configured otherwise.
    """

    variant: Variant
    reason: str
    champion_id: int | None = None
    since: datetime | None = None
    proven: bool = False
    snapshot: int | None = None


def settings_fingerprint(experiment: ExperimentConfig) -> str:
    """Hash of all of an experiment file that can change its result."""
    return fingerprint(experiment.model_dump(mode="json", exclude={"description", "budget"}))


def experiment_config(config: ProjectConfig, name: str) -> ExperimentConfig:
    """The experiment of that name.

    Raises:
        PermanentError: there is none; the message names those there are.
    """
    if name not in config.experiments:
        raise PermanentError(f"there is no experiment {name!r}; allowed: {', '.join(config.experiments)}")
    return config.experiments[name]


def current_champion(
    connection: Connection, config: ProjectConfig, models: Models, experiment: ExperimentConfig
) -> Champion:
    """The variant promoted last, in its present configuration, or else the experiment's baseline."""
    row = connection.execute(
        """SELECT champion_id, variant.fingerprint, variant.name, reason, set_at
           FROM champion JOIN variant ON variant.fingerprint = champion.variant
           WHERE experiment = %s ORDER BY champion_id DESC LIMIT 1""",
        (experiment.name,),
    ).fetchone()
    if row is None:
        return Champion(
            baseline(config, models, experiment, connection),
            f"baseline of {experiment.name}: nothing was promoted yet",
        )
    champion_id, promoted, name, reason, since = row
    named = {variant.name: variant for variant in expand(config, models, experiment, connection)}
    if name not in named:
        return Champion(
            baseline(config, models, experiment, connection),
            f"baseline of {experiment.name}: the promoted {name} is no longer in its grid",
        )
    if named[name].fingerprint != promoted:
        reason = f"{reason} (its prompt, index or model was changed since, so it has to prove itself again)"
    return Champion(named[name], reason, champion_id, since, proven=named[name].fingerprint == promoted)


def answering_champion(
    connection: Connection, config: ProjectConfig, models: Models, experiment: ExperimentConfig
) -> Champion:
    """The champion that answers people: the promoted variant exactly as it was proven, as long as that can be had.

    An edited prompt, retrieval or index does not speak to anybody before it has proven itself; the champion on record
    goes on as it was. Only when something it needs is gone does its present configuration answer, and the reason says
    so.
    """
    try:
        champion = current_champion(connection, config, models, experiment)
    except PermanentError as error:
        # a version of a prompt or a train question that is gone must not silence the one that needs none of it
        return _as_promoted(connection, config, models, experiment, error)
    if champion.proven or champion.champion_id is None:
        return champion
    row = connection.execute(
        """SELECT variant.config, champion.reason FROM champion JOIN variant ON variant.fingerprint = champion.variant
           WHERE champion_id = %s""",
        (champion.champion_id,),
    ).fetchone()
    assert row is not None
    stored, reason = row
    try:
        restored = restore_variant(connection, config, models, stored)
    except PermanentError as error:
        cannot = f"the promoted one cannot answer: it {error}"
        if names_label(champion.variant.prompt_reference):  # a label that moved must not decide who answers
            return Champion(
                baseline(config, models, experiment, connection), f"baseline of {experiment.name}: {cannot}"
            )
        return replace(champion, reason=f"{champion.reason}; {cannot}")
    old = f", from snapshot {restored.snapshot}" if restored.snapshot is not None else ""
    return Champion(
        restored.variant,
        f"{reason} (as it was promoted{old}: its prompt, index or model was changed since and has to prove itself)",
        champion.champion_id,
        champion.since,
        proven=True,
        snapshot=restored.snapshot,
    )


def _as_promoted(
    connection: Connection, config: ProjectConfig, models: Models, experiment: ExperimentConfig, error: PermanentError
) -> Champion:
    """The promoted variant when the present variants of the experiment cannot be made.

    Raises:
        PermanentError: nothing was promoted, or the promoted one cannot be had either; the message says both.
    """
    row = connection.execute(
        """SELECT champion_id, variant.config, variant.name, reason, set_at
           FROM champion JOIN variant ON variant.fingerprint = champion.variant
           WHERE experiment = %s ORDER BY champion_id DESC LIMIT 1""",
        (experiment.name,),
    ).fetchone()
    if row is None:
        raise error
    champion_id, stored, name, reason, since = row
    try:
        restored = restore_variant(connection, config, models, stored)
    except PermanentError as gone:
        raise PermanentError(f"{error}; and the promoted {name} {gone}") from None
    return Champion(
        restored.variant,
        f"{reason} (as it was promoted: its present configuration cannot be had: {error})",
        champion_id,
        since,
        proven=True,
        snapshot=restored.snapshot,
    )


def promote(platform: Platform, experiment: str, variant_name: str, by: str, reason: str) -> Champion:
    """Make a variant champion, on the evidence that is on record and on nothing else.

    The newest result of the experiment must be about the present dataset version, serving snapshots, experiment file,
    champion and configuration of the variant; its blocking checks must have passed, it must recommend the variant, and
    the held-back questions must have been asked and not contradict; a variant that a strategy selected from a larger grid they
    must have confirmed. There is no way around this: run the experiment again instead.
    Promoting the champion again changes nothing.

    Raises:
        PermanentError: there is no such experiment or variant, or evidence is missing; the message lists all of it.
    """
    config = platform.config
    settings = experiment_config(config, experiment)
    with platform.database.connect() as connection:
        variants = {variant.name: variant for variant in expand(config, platform.models, settings, connection)}
    if variant_name not in variants:
        near = difflib.get_close_matches(variant_name, variants, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(variants)}"
        raise PermanentError(f"experiment {experiment} has no variant {variant_name!r}; {hint}")
    variant = variants[variant_name]
    with platform.database.connect() as connection:
        connection.execute("LOCK TABLE champion IN SHARE ROW EXCLUSIVE MODE")
        champion = current_champion(connection, config, platform.models, settings)
        if champion.proven and champion.variant.fingerprint == variant.fingerprint:
            return champion
        result_id, missing = _missing(connection, platform, settings, variant, champion.variant)
        if missing:
            raise PermanentError(f"{variant_name} cannot become champion of {experiment}: " + "; ".join(missing))
        versions = register_variants(connection, [variant], by)
        row = connection.execute(
            """INSERT INTO champion (experiment, variant, result_id, reason, set_by)
               VALUES (%s, %s, %s, %s, %s) RETURNING champion_id, set_at""",
            (experiment, variant.fingerprint, result_id, reason, by),
        ).fetchone()
        assert row is not None
        set_label(
            connection,
            variant.prompt.name,
            PRODUCTION,
            versions[variant.prompt_reference],
            by=by,
            reason=f"{variant_name} became champion {row[0]} of {experiment}: {reason}",
        )
    return Champion(variant, reason, row[0], row[1], proven=True)


def _missing(
    connection: Connection, platform: Platform, experiment: ExperimentConfig, variant: Variant, champion: Variant
) -> tuple[int | None, list[str]]:
    """The result a promotion would rest on, and everything that speaks against it."""
    row = connection.execute(
        """SELECT result_id, fingerprint, dataset_version, snapshots, leaderboard, recommendation
           FROM experiment_result WHERE experiment = %s ORDER BY result_id DESC LIMIT 1""",
        (experiment.name,),
    ).fetchone()
    if row is None:
        return None, ["the experiment has no result; materialize scored_variants"]
    result_id, result, version, snapshots, leaderboard, recommendation = row
    missing = [
        *_outdated(connection, experiment, version, snapshots, leaderboard),
        *_failed_checks(connection, experiment.name, result),
        *objections(connection, platform.config, platform.models, experiment, leaderboard.get("judges", {})),
    ]
    if recommendation["champion_fingerprint"] != champion.fingerprint:
        missing.append(f"result {result_id} compares with {recommendation['champion']}, not with {champion.name}")
    if recommendation["recommended"] != variant.name:
        instead = recommendation["recommended"] or recommendation["verdict"]
        missing.append(f"result {result_id} does not recommend it ({instead})")
    elif recommendation["recommended_fingerprint"] != variant.fingerprint:
        missing.append(f"its prompt, index or model was changed after result {result_id}")
    confirmation = (recommendation["confirmation"] or {}).get("outcome")
    if confirmation == "contradicted":
        missing.append("the held-back questions contradict the recommendation")
    strategy = (leaderboard.get("search") or {}).get("strategy")
    if strategy and confirmation not in ("confirmed", "contradicted", "pending"):
        missing.append(
            f"it was selected by {strategy} on the questions it is compared on, so that held-back questions have to confirm it "
            f"(they did not: {confirmation or 'there are none'}); add questions to split test"
        )
    if confirmation == "pending":
        missing.append("the confirmation on held-back questions was cut short; materialize scored_variants again")
    return result_id, missing


def _outdated(
    connection: Connection,
    experiment: ExperimentConfig,
    version: int,
    snapshots: dict[str, int],
    leaderboard: dict[str, Any],
) -> list[str]:
    found = []
    newest = connection.execute(
        "SELECT max(version) FROM evaluation_dataset WHERE dataset = %s", (experiment.dataset,)
    ).fetchone()
    if newest is None or newest[0] != version:
        found.append(f"the result is on dataset version {version}, the newest is {newest[0] if newest else 'none'}")
    serving = dict(connection.execute("SELECT index_name, serving FROM index_state").fetchall())
    for index, snapshot in sorted(snapshots.items()):
        if serving.get(index) != snapshot:
            found.append(f"the result is on snapshot {snapshot} of {index}, serving is {serving.get(index)}")
    if leaderboard["settings"] != settings_fingerprint(experiment):
        found.append("the experiment file was changed since the result")
    return [f"{one}; materialize scored_variants again" for one in found]


def _failed_checks(connection: Connection, experiment: str, result: str) -> list[str]:
    passed = dict(
        connection.execute(
            """SELECT DISTINCT ON (check_name) check_name, passed OR (NOT blocking AND check_name <> ALL(%s)) FROM evidence
               WHERE kind = %s AND subject = %s AND fingerprint = %s
               ORDER BY check_name, evidence_id DESC""",
            (list(NOT_BLOCKING), EVIDENCE_KIND, experiment, result),
        ).fetchall()
    )
    unknown = [name for name in CHECKS if name not in passed]
    failed = [name for name in CHECKS if passed.get(name) is False]
    return [f"no evidence of check {name}" for name in unknown] + [f"check {name} failed" for name in failed]
