"""Checks of synthetic_questions: whether drafts may be made this way, and whether enough good ones came of it.

Belongs here: the names shown in the UI, and each check. Does not belong here: the filters (filters.py), review.
"""

from assets.evaluation.synthesis.filters import FILTERS
from assets.evaluation.synthesis.generating import Generated, synthesis_of
from assets.evaluation.synthesis.passages import conflicts
from assets.evaluation.synthesis.review import AcceptanceReport, too_few_accepted
from assets.outcomes import CheckOutcome
from resources.config import ProjectConfig
from resources.models import Models

CHECKS: dict[str, str] = {
    "chunking_differs": "Questions are made from passages cut as no index of an experiment on the dataset is cut.",
    "filters_passed": "As many drafts of each kind as are asked for passed every filter.",
    "review_acceptance": "People accept enough of the drafts as they were made; decides once enough were reviewed.",
}
NOT_BLOCKING = ("filters_passed",)


def chunking_differs(config: ProjectConfig, dataset: str, models: Models) -> CheckOutcome:
    """No index under test is cut like the passages. Blocks: questions made from an index's own chunks favour it."""
    found = conflicts(config, dataset, models)
    return CheckOutcome(
        "chunking_differs",
        not found,
        expected="no index of an experiment on the dataset is cut as synthetic.chunker cuts",
        observed="none"
        if not found
        else ", ".join(dict.fromkeys(f"index {one.index} of experiment {one.experiment}" for one in found)),
        details={"indexes": [{"experiment": one.experiment, "index": one.index} for one in found]},
    )


def filters_passed(work: Generated) -> CheckOutcome:
    """Each kind has what was asked for. Only warns: few documents give few questions."""
    short = work.missing
    judged = work.filters[0]["reached"] if work.filters else 0
    refused = sum(row["rejected"] for row in work.filters)
    return CheckOutcome(
        "filters_passed",
        not short,
        expected=", ".join(f"{count} {kind}" for kind, count in work.wanted.items()),
        observed=", ".join(f"{work.delivered.get(kind, 0)} {kind}" for kind in work.wanted)
        + f"; the filters refused {refused} of {judged}",
        blocking=False,
        severity="WARN",
        details={"filters": [{**row, "what": FILTERS[row["filter"]]} for row in work.filters]},
    )


def review_acceptance(config: ProjectConfig, dataset: str, report: AcceptanceReport) -> CheckOutcome:
    """People accept at least ``minimum_acceptance``. Blocks further generating once ``minimum_reviewed`` were reviewed."""
    synthesis = synthesis_of(config, dataset)
    total = report.total
    low, high = total.interval
    observed = f"{total.reviewed} reviewed, {report.waiting} waiting"
    if total.share is not None:
        observed += f"; accepted as made {total.share:.0%} ({low:.0%} to {high:.0%}), {total.edited} edited"
    return CheckOutcome(
        "review_acceptance",
        too_few_accepted(config, dataset, report) is None,
        expected=f"at least {synthesis.minimum_acceptance:.0%} accepted as made, once {synthesis.minimum_reviewed} are reviewed",
        observed=observed,
        details={"by_type": [one.to_json() for one in report.rows]},
    )
