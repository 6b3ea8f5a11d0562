"""The report of the arena: Markdown for a pull request.

Belongs here: words and tables. Does not belong here: the verdict (arena_verdict.py).

A pull request may be read by anybody: the report holds names, numbers, versions and hashes, and no text of a question, an
answer, a document or a prompt. Every name is escaped, because a pull request may choose it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Heading of each verdict.
TITLES = {
    "regression": "regression",
    "passed": "no regression",
    "unproven": "no regression shown",
    "not evaluated": "not evaluated",
    "nothing to compare": "nothing to compare",
}
_WORDS = {
    "worse": "**worse**",
    "within margin": "lower, within the margin",
    "no worse": "no worse",
    "better": "better",
    "not shown": "not shown either way",
}
_KINDS = {"answers": "who answers", "edited": "edited variant", "new": "new variant (does not decide)"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~@&$-])")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f\u2028\u2029]+")
#: Longest name or message shown.
_LONGEST = 400


def render(report: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
        report: as pipelines/arena.py makes it.
    """
    lines = [f"## Arena: {TITLES[report['verdict']]}", ""]
    base, head = report["base"], report["head"]
    uncommitted = f" with {head['uncommitted']} uncommitted files" if head["uncommitted"] else ""
    lines += [
        f"Head {_commit(head['commit'])}{uncommitted} against base {escape(base['reference'])} {_commit(base['commit'])}; "
        f"margin {report['margin']:g}{', strict' if report['strict'] else ''}; exit status {report['exit_code']}.",
        "",
    ]
    if report["error"]:
        lines += [f"**Not evaluated:** {escape(report['error'])}", ""]
    for experiment in report["experiments"]:
        lines += _experiment(experiment)
    if report["notes"]:
        lines += ["### Notes", "", *(f"- {escape(note)}" for note in report["notes"]), ""]
    lines += [
        "A regression is a mean that is shown to be lower (one-sided paired tests, adjusted by Holm), by more than the margin. "
        "Both sides were measured with the head's code, documents and questions.",
        "",
    ]
    return "\n".join(lines)


def escape(text: object) -> str:
    """A name or message as plain words of Markdown: one line, nothing of it markup, a mention or HTML."""
    plain = _SPACE.sub(" ", str(text)).strip()
    plain = plain if len(plain) <= _LONGEST else plain[:_LONGEST] + " ..."
    plain = plain.replace("://", ":\u200b//").replace("www.", "www\u200b.")
    return _SPECIAL.sub(r"\\\1", plain)


def _commit(commit: str | None) -> str:
    return f"`{commit[:12]}`" if commit and re.fullmatch(r"[0-9a-f]{40,64}", commit) else "(no commit)"


def _experiment(one: Mapping[str, Any]) -> list[str]:
    lines = [f"### {escape(one['name'])}: {TITLES[one['verdict']]}", "", f"{escape(one['reason'])}.", ""]
    if one["champion"]:
        lines += [f"The base answers with {escape(one['champion'])}.", ""]
    if one["pairs"]:
        lines += _table(one) + _details(one)
    lines += [f"- {escape(note)}" for note in one["notes"]]
    return [*lines, ""] if one["notes"] else lines


def _table(one: Mapping[str, Any]) -> list[str]:
    measured = any("verdict" in pair for pair in one["pairs"])
    if not measured:
        return []
    lines = [
        f"{escape(one['metric'])} on {_questions(one)} of {escape(one['dataset']['name'])}:",
        "",
        "| compared | base | head | difference (interval) | p lower | p within margin | smallest loss shown | verdict |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for pair in one["pairs"]:
        gap = pair["difference"]
        lines.append(
            f"| {_KINDS[pair['kind']]}: {escape(', '.join(pair['parts']))} | {pair['base_mean']:.3f} | {pair['head_mean']:.3f} "
            f"| {gap['estimate']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f}) | {pair['p_worse']:.4f} "
            f"| {pair['p_margin']:.4f} | {pair['detectable']:.3f} | {_WORDS[pair['verdict']]} |"
        )
    return [*lines, ""]


def _details(one: Mapping[str, Any]) -> list[str]:
    lines = []
    for pair in one["pairs"]:
        base, head = (escape(name) for name in pair["shown"])
        lines.append(f"- {_KINDS[pair['kind']]}: {head}" + (f" (base: {base})" if base != head else ""))
        if pair["changes"]:
            lines.append(f"  - edited: {escape('; '.join(pair['changes']))}")
        if pair["note"]:
            lines.append(f"  - {escape(pair['note'])}")
        if "verdict" not in pair:
            continue
        lines.append(f"  - answers that scored otherwise: {pair['changed']} of {one['questions']}")
        if pair["verdict"] == "not shown" and pair["needed"]:
            lines.append(f"  - a loss of the margin would show on about {pair['needed']} questions")
        if pair["worst"]:
            worst = ", ".join(f"{escape(name)} ({loss:+.2f})" for name, loss in pair["worst"])
            lines.append(f"  - lost most on: {worst}")
    for guard in one.get("guards", ()):
        where = f" on {guard['tag']}" if guard["tag"] else ""
        lines.append(
            f"- guard {escape(guard['metric'] + where)} ({guard['kind']} {guard['bound']:g}): **{guard['state']}**"
        )
    return [*lines, "", *_lineage(one)]


def _lineage(one: Mapping[str, Any]) -> list[str]:
    dataset, spent = one["dataset"], one["spent"]
    snapshots = ", ".join(f"{escape(name)} {number}" for name, number in sorted(one["snapshots"].items()))
    lines = [
        "<details><summary>Lineage and cost</summary>",
        "",
        f"- dataset {escape(dataset['name'])} version {dataset['version']}, content `{dataset['content_hash'][:16]}`",
        f"- snapshots {snapshots or 'none'}; metric {escape(one['metric'])}; confidence {one['confidence']:g}",
    ]
    for name, variant in sorted(one["variants"].items()):
        parts = [
            f"{kind} {escape(part['name'])} `{part['fingerprint'][:12]}`"
            for kind in ("prompt", "index", "model")
            if (part := variant.get(kind))
        ]
        stand_in = ", offline stand-in" if variant["offline"] else ""
        failed = f", {variant['failed']} failed" if variant["failed"] else ""
        lines.append(
            f"- {escape(name)} `{variant['fingerprint'][:12]}`: {', '.join(parts)}, prompt version "
            f"{variant['prompt_version']}{stand_in}{failed}; all its answers cost {variant['cost']:.4f} {escape(variant['currency'])}"
        )
    lines += [
        f"- this run: {spent['trials_run']} trials run, {spent['trials_reused']} reused, {spent['generations_paid']} model calls, "
        f"{spent['tokens']} tokens, {spent['cost']:.4f} {escape(spent['currency'])}",
        "",
        "</details>",
        "",
    ]
    return lines


def _questions(one: Mapping[str, Any]) -> str:
    count, groups = one["questions"], one["groups"]
    return f"{count} questions" + (f" in {groups} groups" if groups != count else "")


def summary(report: Mapping[str, Any]) -> Sequence[str]:
    """A few plain lines for a terminal."""
    lines = [f"Arena: {TITLES[report['verdict']]} (exit status {report['exit_code']})"]
    if report["error"]:
        lines.append(f"  {report['error']}")
    for one in report["experiments"]:
        lines.append(f"  {one['name']}: {TITLES[one['verdict']]}: {one['reason']}")
        for pair in one["pairs"]:
            if "verdict" in pair:
                gap = pair["difference"]
                lines.append(
                    f"    {_KINDS[pair['kind']]}, {', '.join(pair['parts'])}: {pair['base_mean']:.3f} -> {pair['head_mean']:.3f} "
                    f"({gap['estimate']:+.3f}, {gap['low']:+.3f} to {gap['high']:+.3f}): {pair['verdict']}"
                )
    return [*lines, *(f"  note: {note}" for note in report["notes"])]
