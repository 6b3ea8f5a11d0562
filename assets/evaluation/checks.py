"""Checks of evaluation_dataset: whether its questions can tell good answers from bad ones.

Belongs here: the names shown in the UI, and each check as a function of the resolved questions.
Does not belong here: resolving them (dataset.py), comparing texts (leakage.py).

Outcomes name questions by id only: question texts may come from real users.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.evaluation.dataset import ResolvedDataset
from assets.evaluation.leakage import Item, duplicates, leaks, worked_examples
from assets.outcomes import CheckOutcome, great_expectations_outcome
from resources.dataset_config import DatasetConfig
from resources.fingerprint import fingerprint
from resources.postgres import Connection
from resources.prompt_config import PromptConfig

if TYPE_CHECKING:
    import pandas as pd

CHECKS: dict[str, str] = {
    "dataset_size": "Enough questions have their evidence in the current documents.",
    "unanswerable_share": "Enough questions cannot be answered from the documents, so that refusing is tested.",
    "stale_share": "The documents have not moved on from too many questions.",
    "duplicate_questions": "Hardly any question is asked twice, which would count it twice.",
    "few_shot_leakage": "No question that is scored is shown to the model as a worked example or a train question.",
    "questions_suite": "Great Expectations: ids, texts, splits and spans are well formed.",
    "groups_in_one_split": "Questions of one group (rewordings, one paragraph, translations) are in one split.",
    "split_balance": "Each split has answerable and unanswerable questions.",
    "provenance_complete": "What questions say of where they come from is complete.",
}
NOT_BLOCKING = ("split_balance", "provenance_complete")
#: What a question's provenance has to say, by its ``kind``; a question without any was written by hand in its file.
PROVENANCE: dict[str, tuple[str, ...]] = {
    "written": ("author",),
    "import": ("format", "from"),
    "production": ("interaction", "promoted_by", "promoted_at", "reason"),
    "synthetic": ("generator",),
}
MAXIMUM_DUPLICATE_SHARE = 0.02
_SHOWN = 50  # rows of a finding shown in the UI


def evaluate_checks(
    resolved: ResolvedDataset,
    config: DatasetConfig,
    prompts: Mapping[str, PromptConfig],
    *,
    standing: Collection[str] = (),
    promoted: Collection[str] = (),
) -> list[CheckOutcome]:
    """All checks of this stage, in the order of ``CHECKS``.

    Args:
        standing: checks that passed on exactly these questions (``few_shot_leakage``: and these prompts) before; the
            expensive ones among them are not run again.
        promoted: ids of questions on record as promoted from live use.
    """
    expensive: dict[str, Callable[[], CheckOutcome]] = {
        "duplicate_questions": lambda: duplicate_questions(resolved),
        "few_shot_leakage": lambda: few_shot_leakage(resolved, prompts),
        "questions_suite": lambda: questions_suite(resolved),
    }
    return [
        dataset_size(resolved, config),
        unanswerable_share(resolved, config),
        stale_share(resolved, config),
        *(_standing(name) if name in standing else check() for name, check in expensive.items()),
        groups_in_one_split(resolved),
        split_balance(resolved, config),
        provenance_complete(resolved, promoted),
    ]


def dataset_size(resolved: ResolvedDataset, config: DatasetConfig) -> CheckOutcome:
    """At least ``minimum_questions`` active questions."""
    active = len(resolved.active)
    return CheckOutcome(
        "dataset_size",
        active >= config.minimum_questions,
        expected=f"at least {config.minimum_questions} active questions",
        observed=f"{active} active, {len(resolved.stale)} stale",
    )


def unanswerable_share(resolved: ResolvedDataset, config: DatasetConfig) -> CheckOutcome:
    """At least ``minimum_unanswerable_share`` of the active questions are unanswerable."""
    active = resolved.active
    unanswerable = sum(not item.spec.is_answerable for item in active)
    return CheckOutcome(
        "unanswerable_share",
        unanswerable >= config.minimum_unanswerable_share * len(active),
        expected=f"at least {config.minimum_unanswerable_share:.0%} unanswerable",
        observed=f"{unanswerable} of {len(active)}",
    )


def stale_share(resolved: ResolvedDataset, config: DatasetConfig) -> CheckOutcome:
    """At most ``maximum_stale_share`` of all questions lost their evidence."""
    stale = resolved.stale
    return CheckOutcome(
        "stale_share",
        len(stale) <= config.maximum_stale_share * len(resolved.questions),
        expected=f"at most {config.maximum_stale_share:.0%} stale",
        observed=f"{len(stale)} of {len(resolved.questions)}",
        details={"stale": [{"question": item.spec.id, "reason": item.reason} for item in stale[:_SHOWN]]},
    )


def duplicate_questions(resolved: ResolvedDataset) -> CheckOutcome:
    """At most ``MAXIMUM_DUPLICATE_SHARE`` of the active questions repeat an earlier one."""
    items = [Item(item.spec.id, item.spec.question, item.spec.answer) for item in resolved.active]
    pairs = duplicates(items)
    repeated = len({later for _, later in pairs})
    return CheckOutcome(
        "duplicate_questions",
        repeated <= MAXIMUM_DUPLICATE_SHARE * len(items),
        expected=f"at most {MAXIMUM_DUPLICATE_SHARE:.0%} of the questions repeat another",
        observed=f"{repeated} of {len(items)}",
        details={"pairs": [{"question": first, "repeated_by": second} for first, second in pairs[:_SHOWN]]},
    )


def few_shot_leakage(resolved: ResolvedDataset, prompts: Mapping[str, PromptConfig]) -> CheckOutcome:
    """No dev or test question is given away by a worked example of a prompt or by a train question."""
    active = resolved.active
    scored = [Item(item.spec.id, item.spec.question, item.spec.answer) for item in active if item.spec.split != "train"]
    shown = [
        Item(f"train question {item.spec.id}", item.spec.question, item.spec.answer)
        for item in active
        if item.spec.split == "train"
    ]
    examples, contexts = worked_examples(prompts.values())
    found = leaks(scored, [*shown, *examples], contexts)
    return CheckOutcome(
        "few_shot_leakage",
        not found,
        expected="no scored question among worked examples and train questions",
        observed=f"{len({leak.question_id for leak in found})} of {len(scored)} scored questions given away"
        + (f", first {found[0].question_id} by {found[0].leaked_by}" if found else ""),
        details={
            "leaks": [{"question": one.question_id, "by": one.leaked_by, "how": one.how} for one in found[:_SHOWN]]
        },
    )


def groups_in_one_split(resolved: ResolvedDataset) -> CheckOutcome:
    """No group has questions in two splits: what is learned on one would show in the other. Stale ones count too."""
    splits: dict[str, set[str]] = {}
    for item in resolved.questions:
        if item.spec.group is not None:
            splits.setdefault(item.spec.group, set()).add(item.spec.split)
    torn = sorted(group for group, found in splits.items() if len(found) > 1)
    first = next((item.spec.id for item in resolved.questions if torn and item.spec.group == torn[0]), None)
    return CheckOutcome(
        "groups_in_one_split",
        not torn,
        expected="every group in one split",
        observed=f"{len(torn)} of {len(splits)} groups are in several" + (f", first that of {first}" if first else ""),
        details={"groups": [{"group": group, "splits": ", ".join(sorted(splits[group]))} for group in torn[:_SHOWN]]},
    )


def provenance_complete(resolved: ResolvedDataset, promoted: Collection[str] = ()) -> CheckOutcome:
    """Each stated provenance has a known kind and all of its fields, and promoted questions state theirs. Only warns."""
    rows: list[dict[str, str]] = []
    for item in resolved.questions:
        stated = item.spec.provenance
        if not stated:
            if item.spec.id in promoted:
                rows.append({"question": item.spec.id, "missing": "all: it was promoted from live use"})
            continue
        needed = PROVENANCE.get(str(stated.get("kind")))
        if needed is None:
            rows.append({"question": item.spec.id, "missing": f"kind, one of {', '.join(PROVENANCE)}"})
        elif missing := [name for name in needed if stated.get(name) in (None, "")]:
            rows.append({"question": item.spec.id, "missing": ", ".join(missing)})
    stating = sum(bool(item.spec.provenance) for item in resolved.questions)
    return CheckOutcome(
        "provenance_complete",
        not rows,
        expected="a kind with all of its fields, wherever a provenance is stated",
        observed=f"{len(rows)} incomplete; {stating} of {len(resolved.questions)} questions state one"
        + (f"; first {rows[0]['question']}: {rows[0]['missing']}" if rows else ""),
        blocking=False,
        severity="WARN",
        details={"incomplete": rows[:_SHOWN]},
    )


def promoted_questions(connection: Connection, dataset: str) -> set[str]:
    """Ids of the questions of a dataset that are on record as promoted."""
    rows = connection.execute("SELECT question_id FROM question_promotion WHERE dataset = %s", (dataset,)).fetchall()
    return {row[0] for row in rows}


def split_balance(resolved: ResolvedDataset, config: DatasetConfig | None = None) -> CheckOutcome:
    """Each split that exists has answerable and unanswerable questions; a split to score on exists. Only warns.

    Where only what is found is scored (``task: retrieval``), and for tasks without documents, unanswerable questions are not
    asked for; of a classification every split has every label instead.
    """
    if resolved.task is not None and resolved.task.kind == "classification":
        return _label_balance(resolved, resolved.task.labels)
    counts = Counter((item.spec.split, item.spec.is_answerable) for item in resolved.active)
    splits = sorted({split for split, _ in counts})
    rows = [
        {"split": split, "answerable": counts[split, True], "unanswerable": counts[split, False]} for split in splits
    ]
    refusals = config is None or config.task == "rag"
    one_sided = [row["split"] for row in rows if not row["answerable"] or (refusals and not row["unanswerable"])]
    missing = [split for split in ("dev", "test") if split not in splits]
    return CheckOutcome(
        "split_balance",
        not one_sided and not missing,
        expected="dev and test exist, and every split has answerable and unanswerable questions",
        observed="; ".join(
            [f"{split}: one kind only" for split in one_sided] + [f"{split}: no questions" for split in missing]
        )
        or "balanced",
        blocking=False,
        severity="WARN",
        details={"splits": rows},
    )


def _label_balance(resolved: ResolvedDataset, labels: Sequence[str]) -> CheckOutcome:
    """Every split that exists has every label, and dev and test exist. Only warns."""
    counts = Counter((item.spec.split, item.spec.answer) for item in resolved.active)
    splits = sorted({split for split, _ in counts})
    rows = [{"split": split, **{label: counts[split, label] for label in labels}} for split in splits]
    lacking = [f"{split}: no {label}" for split in splits for label in labels if not counts[split, label]]
    missing = [f"{split}: no questions" for split in ("dev", "test") if split not in splits]
    return CheckOutcome(
        "split_balance",
        not lacking and not missing,
        expected="dev and test exist, and every split has every label",
        observed="; ".join([*missing, *lacking][:_SHOWN]) or "balanced",
        blocking=False,
        severity="WARN",
        details={"splits": rows},
    )


def questions_suite(resolved: ResolvedDataset) -> CheckOutcome:
    """Great Expectations over one row per question."""
    from great_expectations import expectations

    gxe: Any = expectations  # its names are not declared as exported
    suite = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToNotBeNull(column="question_id"),
        gxe.ExpectColumnValuesToBeUnique(column="question_id"),
        gxe.ExpectColumnValuesToBeBetween(column="question_characters", **_lengths(resolved)),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=["train", "dev", "test"]),
        gxe.ExpectColumnValuesToBeInSet(column="status", value_set=["active", "stale"]),
        gxe.ExpectColumnValuesToBeInSet(column="evidence_fits_answer", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="spans_fit_quotes", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="stale_has_reason", value_set=[True]),
    ]
    return great_expectations_outcome("questions_suite", _frame(resolved), suite)


def _lengths(resolved: ResolvedDataset) -> dict[str, int]:
    """Characters of a question; the input of a task may be one word, or a long text."""
    return {"min_value": 3, "max_value": 2000} if resolved.task is None else {"min_value": 1, "max_value": 1_000_000}


def leakage_key(resolved: ResolvedDataset, prompts: Mapping[str, PromptConfig]) -> str:
    """Hash of all that ``few_shot_leakage`` looks at: the questions and the worked examples of the prompts."""
    examples = {
        name: [example.model_dump(mode="json") for example in prompt.examples] for name, prompt in prompts.items()
    }
    return fingerprint([resolved.content_hash, examples])


def _standing(name: str) -> CheckOutcome:
    return CheckOutcome(
        name,
        True,
        expected="passed on exactly these questions",
        observed="nothing it looks at has changed; the evidence of the earlier run stands",
    )


def _frame(resolved: ResolvedDataset) -> "pd.DataFrame":
    import pandas as pd

    columns = ("question_id", "question_characters", "split", "status", "evidence_fits_answer", "spans_fit_quotes", "stale_has_reason")  # fmt: skip
    rows = [
        (
            item.spec.id,
            len(item.spec.question.strip()),
            item.spec.split,
            item.status,
            item.status == "stale" or len(item.evidence) == len(item.spec.evidence),
            all(piece.kind == "document" or piece.end - piece.start == len(piece.quote) > 0 for piece in item.evidence),
            (item.status == "stale") == (item.reason is not None),
        )
        for item in resolved.questions
    ]
    return pd.DataFrame(rows, columns=list(columns))
