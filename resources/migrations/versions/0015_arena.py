"""Comparisons outside an experiment: pull requests and live traffic."""

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Nothing yet."""
