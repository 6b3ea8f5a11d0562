"""The platform: what every asset is handed, built once per process and opened only when used.

Belongs here: the bundle of configuration, database, models and folders.
Does not belong here: behaviour; each member has a module of its own.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from resources.config import ProjectConfig
from resources.postgres import Database

if TYPE_CHECKING:
    from resources.mlflow_export import Tracking
    from resources.models import Models


@dataclass
class Platform:
    """Configuration, database, models and the folder for files.

    Attributes:
        config: everything under the data directory.
        database: PostgreSQL with the ``genaiops`` schema.
        artifacts: folder for Parquet files and reports.
        ui_url: base address of the Dagster UI, for links in alerts and reports.
        tracking: the MLflow server results are exported to, or None.
    """

    config: ProjectConfig
    database: Database
    artifacts: Path
    ui_url: str = "http://127.0.0.1:3000"
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    tracking: "Tracking | None" = None

    @cached_property
    def models(self) -> "Models":
        """The models of ``models.yaml``."""
        from resources.models import Models

        return Models(self.config.models, environment=self.environment)
