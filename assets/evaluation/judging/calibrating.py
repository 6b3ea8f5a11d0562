"""Calibrating: scoring what people labelled, and keeping how far the two agree.

Belongs here: labelled answers as trials, scoring them by a judge or an estimator, table ``judge_calibration``, and whether a
judge stands calibrated. Does not belong here: formulas of agreement (calibration.py), limits (checks.py).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from psycopg.types.json import Jsonb

from assets.evaluation.judging import calibration as agreement
from assets.evaluation.judging import checks
from assets.evaluation.judging.judges import Judge, Judgement, build_judge
from assets.evaluation.judging.labels import Label, file_hash, read_labels
from assets.evaluation.judging.preference import prefer
from assets.evaluation.metrics.base import metric_fingerprint, score
from assets.evaluation.metrics.code_version import code_version
from assets.evaluation.metrics.records import GoldSpan, TrialRecord
from assets.outcomes import CheckOutcome, record_evidence
from resources.config import ProjectConfig
from resources.errors import BudgetExceededError, PermanentError, TransientError
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.generation_memo import GenerationMemo
from resources.judge_config import CalibrationConfig, JudgeConfig
from resources.models import Budget, Models
from resources.platform import Platform
from resources.postgres import Connection, Lease

#: Kind of the rows of table evidence; their subject is the judge.
EVIDENCE_KIND = "judge"
#: More failures than this, and than the share that is accepted, end a calibration: the rest would fail as well.
_FAILURES_TO_STOP = 10

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Passage:
    """A passage of a labelled answer, as metrics read chunks."""

    document_id: int
    start: int
    end: int
    text: str
    title: str = ""
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """One labelled item, scored.

    Attributes:
        value: None where the measure is undefined, or the judge failed.
        error: class of the judge's error.
        swapped: share of the verdicts that changed with the order; None when it was not tried.
        unsteady: share of the verdicts that changed between draws; None when it was asked once.
    """

    value: float | None
    error: str | None = None
    swapped: float | None = None
    unsteady: float | None = None


@dataclass(frozen=True)
class Calibrated:
    """What a calibration found.

    Attributes:
        fingerprint: of the judge; ``labels``: of what it was compared with, and how.
        measures: JSON-able; see ``Calibration`` and ``measure``.
        outcomes: the checks on them.
        reused: whether it stood already.
        paid: requests sent and money spent.
    """

    judge: str
    fingerprint: str
    labels: str
    measures: dict[str, Any]
    outcomes: tuple[CheckOutcome, ...]
    reused: bool
    paid: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether something may rest on the judge."""
        return all(outcome.passed for outcome in self.outcomes)


@dataclass(frozen=True)
class Standing:
    """Whether a judge may decide anything.

    Attributes:
        why: what is missing, or what it rests on.
        measures: of the newest calibration of exactly this judge, if there is one.
    """

    calibrated: bool
    why: str
    measures: dict[str, Any] | None = None


def judge_configured(config: ProjectConfig, name: str) -> tuple[JudgeConfig, CalibrationConfig]:
    """A judge that has labels.

    Raises:
        PermanentError: there is no such judge, or it has no calibration; the message says what to do.
    """
    if name not in config.judges:
        raise PermanentError(
            f"there is no judge {name!r}; there are: {', '.join(config.judges) or 'none (data/judges/)'}"
        )
    judge = config.judges[name]
    if judge.calibration is None:
        raise PermanentError(f"judge {name} has no labels; add calibration: {{labels: FILE}} to judges/{name}.yaml")
    return judge, judge.calibration


def fingerprint_of(judge: JudgeConfig, models: Models) -> str:
    """What a judge's scores are kept under; of an estimator that of its metric.

    Raises:
        PermanentError: the key of its model is missing, or there is no such metric.
    """
    if judge.estimator is None:
        return build_judge(judge, models).fingerprint
    try:
        return metric_fingerprint(judge.estimator)
    except ValueError as error:
        raise PermanentError(f"judges/{judge.name}.yaml: estimator: {error}") from None


def labels_key(config: ProjectConfig, judge: JudgeConfig) -> str:
    """Hash of the label file and of how it is compared; empty when there is no file."""
    settings = judge.calibration
    assert settings is not None
    content = file_hash(judge.labels_path(config.data_dir))
    return fingerprint([content, settings.seed, settings.resamples, _code()]) if content else ""


def _code() -> str:
    return code_version(agreement.calibrate, agreement.mean_estimate, record_of, measure, read_labels, prefer)


def evidence_key(judge: JudgeConfig, judge_fingerprint: str, labels: str) -> str:
    """What the evidence of a calibration is about: judge, labels, and the limits it is held against."""
    assert judge.calibration is not None
    limits = judge.calibration.model_dump(mode="json", exclude={"labels", "budget"})
    return fingerprint([judge_fingerprint, labels, limits])


def standing(connection: Connection, config: ProjectConfig, judge: JudgeConfig, judge_fingerprint: str) -> Standing:
    """Whether exactly this judge, on the present labels, passed every check of its calibration, and passes the present limits."""
    remedy = f"genaiops judges calibrate {judge.name}"
    if judge.calibration is None:
        return Standing(
            False, f"judges/{judge.name}.yaml has no calibration: nobody knows how far it agrees with people"
        )
    labels = labels_key(config, judge)
    if not labels:
        return Standing(False, f"its label file {judge.calibration.labels} is missing")
    row = connection.execute(
        "SELECT measures, passed FROM judge_calibration WHERE judge = %s AND fingerprint = %s AND labels = %s",
        (judge.name, judge_fingerprint, labels),
    ).fetchone()
    if row is None:
        earlier = connection.execute("SELECT 1 FROM judge_calibration WHERE judge = %s", (judge.name,)).fetchone()
        what = "it or its labels were changed since it was calibrated" if earlier else "it was never calibrated"
        return Standing(False, f"{what}; {remedy}")
    measures, passed = row
    missing = [one.name for one in checks.evaluate(judge, judge.calibration, measures) if not one.passed]
    if missing:
        return Standing(False, f"its calibration has not passed {', '.join(missing)}", measures)
    if not passed:
        return Standing(False, f"its limits were changed since it was calibrated; {remedy}", measures)
    return Standing(True, f"it agrees with people on {measures['n']} labelled answers", measures)


def calibrate_judge(
    platform: Platform, name: str, run_id: str, lease: Lease, *, progress: Progress = lambda done, total: None
) -> Calibrated:
    """Compare a judge with people and keep what came out; nothing that was asked before is asked again.

    Raises:
        PermanentError: judge, labels or key are missing, the labels do not fit what it measures, or too many items failed;
            the next run asks about those again.
        BudgetExceededError: ``calibration.budget`` refuses the next call; what was answered is remembered.
    """
    judge, settings = judge_configured(platform.config, name)
    labels = read_labels(judge.labels_path(platform.config.data_dir)).items
    _refuse_unfit(judge, labels)
    budget = Budget(settings.budget, currency=_currency(platform.config, judge))
    models = platform.models.within(budget)
    key, compared_with = fingerprint_of(judge, models), labels_key(platform.config, judge)
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT measures FROM judge_calibration WHERE judge = %s AND fingerprint = %s AND labels = %s""",
            (name, key, compared_with),
        ).fetchone()
    if row is not None and not row[0]["failed"]:  # items it failed on are asked about again
        measures, scored = row[0], None
    else:
        scored = _score(judge, settings, labels, models, GenerationMemo(platform.database), run_id, progress)
        measures = measure(judge, settings, labels, scored)
    outcomes = checks.evaluate(judge, settings, measures)
    done = Calibrated(
        name, key, compared_with, measures, tuple(outcomes), reused=scored is None, paid=budget.spent.to_json()
    )
    crash_point("judging.calibrated")
    with platform.database.connect() as connection:
        lease.check(connection)
        if scored is not None:
            connection.execute(
                """INSERT INTO judge_calibration (judge, fingerprint, labels, items, scores, measures, passed, run_id)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
                   ON CONFLICT (judge, fingerprint, labels) DO UPDATE SET
                       scores = EXCLUDED.scores, measures = EXCLUDED.measures, run_id = EXCLUDED.run_id""",
                (
                    name, key, compared_with, len(labels), Jsonb([one.value for one in scored]), Jsonb(measures),
                    done.passed, run_id,
                ),
            )  # fmt: skip
        connection.execute(
            "UPDATE judge_calibration SET passed = %s WHERE judge = %s AND fingerprint = %s AND labels = %s",
            (done.passed, name, key, compared_with),
        )
        subject = evidence_key(judge, key, compared_with)
        record_evidence(connection, EVIDENCE_KIND, name, subject, outcomes, run_id)
    return done


def _currency(config: ProjectConfig, judge: JudgeConfig) -> str:
    return config.chat_model(judge.model).price.currency if judge.model else "USD"


def _refuse_unfit(judge: JudgeConfig, labels: Sequence[Label]) -> None:
    """Labels that a judge cannot be compared with.

    Raises:
        PermanentError: naming the file and what it lacks.
    """
    file = judge.calibration.labels if judge.calibration else ""
    if judge.measures == "preference" and labels[0].answer2 is None:
        raise PermanentError(f"{file}: a preference judge needs pairs: give every item answer2 and labels from -1 to 1")
    needs = {
        "groundedness": "context", "utilization": "context", "completeness": "context", "context_precision": "reference",
        "context_recall": "reference", "correctness": "reference",
    }.get(judge.measures)  # fmt: skip
    lacking = sum(not getattr(item, needs) for item in labels) if needs else 0
    if needs and lacking:
        raise PermanentError(
            f"{file}: {lacking} of {len(labels)} items have no {needs}, which {judge.measures} looks at"
        )


def record_of(item: Label, answer: str) -> TrialRecord:
    """A labelled answer as metrics see a trial; its places are in no document."""
    return TrialRecord(
        question_id=item.item_id,
        question=item.question,
        answerable=True,
        reference=item.reference,
        gold=(GoldSpan(0, 0, 1, kind="document"),),
        hits=tuple(Passage(0, 0, len(text), text) for text in item.context),
        answer=answer,
        refused=False,
    )


def _score(
    judge: JudgeConfig,
    settings: CalibrationConfig,
    labels: Sequence[Label],
    models: Models,
    memo: GenerationMemo,
    run_id: str,
    progress: Progress,
) -> list[Scored]:
    if judge.estimator is not None:
        return _estimated(judge.estimator, labels)
    asked = build_judge(judge, models)
    with ThreadPoolExecutor(asked.chat.config.limits.concurrency, thread_name_prefix=f"judge-{judge.name}") as pool:
        waiting = [pool.submit(_judged, asked, memo, run_id, item) for item in labels]
        pending = set(waiting)
        most = max(_FAILURES_TO_STOP, settings.maximum_failed_share * len(labels))
        try:
            while pending:
                _, pending = wait(pending, timeout=1.0, return_when=FIRST_EXCEPTION)
                finished = [one for one in waiting if one.done()]
                failed = [error for one in finished if (error := one.result().error)]
                progress(len(finished), len(labels))
                if len(failed) > most:
                    raise PermanentError(  # asking again at once would only be paid again
                        f"judge {judge.name}: {len(failed)} of {len(finished)} labelled answers got no usable verdict "
                        f"({', '.join(sorted(set(failed)))}); what was answered is remembered"
                    )
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [one.result() for one in waiting]


def _estimated(metric: str, labels: Sequence[Label]) -> list[Scored]:
    def column(answers: Sequence[str]) -> list[float | None]:
        return score([record_of(item, answer) for item, answer in zip(labels, answers, strict=True)], [metric])[metric]

    first = column([item.answer for item in labels])
    if labels[0].answer2 is None:
        return [Scored(value) for value in first]
    second = column([item.answer2 or "" for item in labels])
    return [Scored(_difference(one, other)) for one, other in zip(first, second, strict=True)]


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first


def _judged(judge: Judge, memo: GenerationMemo, run_id: str, item: Label) -> Scored:
    """One item; what the judge cannot say is an error by its class, since the message may quote a server."""
    try:
        if judge.config.measures == "preference":
            said = prefer(
                judge, memo, run_id, question=item.question, reference=item.reference, first=item.answer,
                second=item.answer2 or "",
            )  # fmt: skip
            return Scored(
                float(said.value),
                swapped=None if said.consistent is None else float(not said.consistent),
                unsteady=float(said.unsteady) if judge.config.draws > 1 else None,
            )
        one = judge.judge(record_of(item, item.answer), memo, run_id, documents=())
        if item.answer2 is None:
            return _of(judge, one)
        other = judge.judge(record_of(item, item.answer2), memo, run_id, documents=())
        both = [_of(judge, one), _of(judge, other)]
        return Scored(
            _difference(one.value, other.value),
            swapped=_mean([part.swapped for part in both]),
            unsteady=_mean([part.unsteady for part in both]),
        )
    except BudgetExceededError:
        raise
    except (PermanentError, TransientError) as error:
        return Scored(None, error=type(error).__name__)


def _of(judge: Judge, said: Judgement) -> Scored:
    asked = bool(said.generations)
    return Scored(
        said.value, swapped=said.swapped, unsteady=said.unsteady if asked and judge.config.draws > 1 else None
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def measure(
    judge: JudgeConfig, settings: CalibrationConfig, labels: Sequence[Label], scored: Sequence[Scored]
) -> dict[str, Any]:
    """Agreement, bias and consistency as they are stored.

    Returns:
        What ``Calibration.to_json`` has, with ``failed`` (items without a usable verdict, by class of error), ``swap`` and
        ``draws`` (share of the verdicts that changed with the order, or between draws, with its interval; None where
        that was not tried), and ``deterministic`` (an estimator, which always says the same).
    """
    found = agreement.calibrate(
        [one.value for one in scored],
        [item.labels for item in labels],
        [item.group for item in labels],
        settings.seed,
        pairs=labels[0].answer2 is not None,
        resamples=settings.resamples,
    )
    errors = [one.error for one in scored if one.error]
    found = replace(found, undefined=found.undefined - len(errors))

    def changed(values: Sequence[float | None]) -> dict[str, Any] | None:
        known = [(value, item.group) for value, item in zip(values, labels, strict=True) if value is not None]
        if not known:
            return None
        estimate = agreement.mean_estimate(
            [value for value, _ in known], [group for _, group in known], settings.seed, resamples=settings.resamples
        )
        return {"n": len(known), **estimate.to_json()} if estimate else None

    return {
        **found.to_json(),
        "items": len(labels),
        "failed": {error: errors.count(error) for error in sorted(set(errors))},
        "swap": changed([one.swapped for one in scored]),
        "draws": changed([one.unsteady for one in scored]),
        "deterministic": judge.estimator is not None,
    }
