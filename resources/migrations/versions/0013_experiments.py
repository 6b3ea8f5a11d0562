"""What an experiment shares, previews and gives up."""

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Nothing yet."""
