"""Status: one page on what is loaded, published, recommended and failing.

Belongs here: reading and printing. Does not belong here: changing anything.
"""

from typing import Any

from resources.platform import Platform
from resources.postgres import Connection


def collect(platform: Platform) -> dict[str, Any]:
    """Read the state of sources, indexes, datasets, experiments, drift and alerts."""
    from psycopg.rows import dict_row

    def rows(statement: Any, parameters: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, parameters).fetchall()

    with platform.database.connect() as connection:
        sources = rows(
            """SELECT r.source, r.revision, r.committed_at,
                      (SELECT count(*) FROM document_version v WHERE v.source = r.source AND v.rev_to = 2147483647) AS documents,
                      (SELECT count(*) FROM quarantine q WHERE q.source = r.source AND q.released_by IS NULL) AS quarantined
               FROM source_revision r
               WHERE r.revision = (SELECT max(revision) FROM source_revision n WHERE n.source = r.source) ORDER BY 1"""
        )
        indexes = rows(
            """SELECT s.index_name, s.serving, s.head, s.held_by, s.held_reason, p.published_at, p.counts, p.sources,
                      (SELECT count(*) FROM index_snapshot n WHERE n.index_name = s.index_name) AS retained
               FROM index_state s LEFT JOIN index_snapshot p ON p.index_name = s.index_name AND p.snapshot = s.serving
               WHERE s.serving > 0 ORDER BY 1"""
        )
        datasets = rows(
            "SELECT DISTINCT ON (dataset) dataset, version, counts, created_at FROM evaluation_dataset ORDER BY dataset, version DESC"
        )
        experiments = rows(
            """SELECT DISTINCT ON (experiment) experiment, recommendation, dataset_version, snapshots, created_at
               FROM experiment_result ORDER BY experiment, result_id DESC"""
        )
        champions = rows(
            """SELECT DISTINCT ON (c.experiment) c.experiment, v.name AS variant, c.reason, c.set_by, c.set_at
               FROM champion c JOIN variant v ON v.fingerprint = c.variant ORDER BY c.experiment, c.champion_id DESC"""
        )
        drift = rows(
            "SELECT day, subject, verdict, details ->> 'words' AS words FROM drift_result WHERE day = (SELECT max(day) FROM drift_result) ORDER BY subject"
        )
        alerts = rows("SELECT alert_key, title, since FROM alert WHERE state = 'failing' ORDER BY since")
        interactions = rows("SELECT count(*) AS logged, count(*) FILTER (WHERE refused) AS refused FROM interaction")[0]
    return {
        "data": str(platform.config.data_dir),
        "sources": sources,
        "indexes": indexes,
        "datasets": datasets,
        "experiments": experiments,
        "champions": champions,
        "drift": drift,
        "interactions": interactions,
        "failing": alerts,
    }


def newest_recommendation(connection: Connection, experiment: str) -> str:
    """What the newest result of an experiment says, in words."""
    row = connection.execute(
        "SELECT recommendation ->> 'text' FROM experiment_result WHERE experiment = %s ORDER BY result_id DESC LIMIT 1",
        (experiment,),
    ).fetchone()
    return row[0] if row and row[0] else "no result yet"


def describe(report: dict[str, Any]) -> None:
    """Print the status for a person."""
    import click

    def heading(text: str) -> None:
        click.secho(text, bold=True)

    heading(f"Sources ({report['data']})")
    for row in report["sources"]:
        click.echo(
            f"  {row['source']}: revision {row['revision']}, {row['documents']} documents, {row['quarantined']} quarantined, "
            f"{row['committed_at']:%Y-%m-%d %H:%M}"
        )
    if not report["sources"]:
        click.echo("  nothing loaded yet; run `genaiops demo` or `genaiops refresh`")
    heading("Indexes")
    for row in report["indexes"]:
        held = f"; HELD by {row['held_by']}: {row['held_reason']}" if row["held_by"] else ""
        counts = row["counts"] or {}
        click.echo(
            f"  {row['index_name']}: serving {row['serving']} of {row['head']}, {counts.get('documents')} documents, "
            f"{counts.get('chunks')} chunks, {row['retained']} snapshots retained{held}"
        )
    heading("Evaluation")
    for row in report["datasets"]:
        counts = row["counts"]
        splits = ", ".join(f"{name} {number}" for name, number in sorted(counts.get("splits", {}).items()))
        click.echo(
            f"  {row['dataset']}: version {row['version']}, {counts.get('questions')} questions ({splits}), "
            f"{counts.get('unanswerable')} unanswerable, {counts.get('stale')} stale"
        )
    champions = {row["experiment"]: row for row in report["champions"]}
    for row in report["experiments"]:
        champion = champions.get(row["experiment"])
        says = f"champion {champion['variant']}" if champion else "champion: the baseline of the experiment file"
        click.echo(f"  {row['experiment']}: {says}\n    {row['recommendation'].get('text', '')}")
    heading("Watch")
    for row in report["drift"]:
        click.echo(f"  drift {row['day']} {row['subject']}: {row['verdict']}. {row['words']}")
    click.echo(f"  {report['interactions']['logged']} questions answered, {report['interactions']['refused']} refused")
    heading("Failing" if report["failing"] else "Failing: nothing")
    for row in report["failing"]:
        click.secho(f"  {row['title']} (since {row['since']:%Y-%m-%d %H:%M})", fg="red")
