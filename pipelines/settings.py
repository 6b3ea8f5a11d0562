"""Settings: where data, state and database are, read from the environment.

Belongs here: environment variables of this project, and preparing Dagster's home from them.
Does not belong here: what is configured under the data directory (resources/config.py).

| variable | meaning | default |
| --- | --- | --- |
| GENAIOPS_PROJECT | a project made by `genaiops demo --source`; sets data and state together | none |
| GENAIOPS_DATA_DIR | configuration as code | data/ of the checkout |
| GENAIOPS_STATE_DIR | embedded database, Dagster home, files | .genaiops/ of the checkout |
| GENAIOPS_DATABASE_URL | PostgreSQL 15+ with pgvector 0.8+; then nothing embedded starts | embedded |
| GENAIOPS_UI_URL | address of the UI, for links in alerts | http://127.0.0.1:3000 |
| GENAIOPS_TIMEZONE | time zone of the schedules | UTC |
| GENAIOPS_NOTIFY_URLS | where alerts go (apprise URLs) | a log file |
| MLFLOW_TRACKING_URI | MLflow server that results are exported to (docs/mlflow.md); may hold a password | none |
| GENAIOPS_MLFLOW_NAMESPACE | beginning of the names of experiments and prompts there | genaiops |
| GENAIOPS_DAGSTER_YAML | how Dagster runs, e.g. deploy/ray/dagster.yaml | dagster.yaml of the checkout |
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from resources.config import load_config
from resources.errors import ConfigError
from resources.mlflow_export import Tracking
from resources.platform import Platform
from resources.postgres import Database, dagster_url, start_embedded

CHECKOUT = Path(__file__).resolve().parents[1]
DEFAULT_UI_URL = "http://127.0.0.1:3000"


@dataclass(frozen=True)
class Settings:
    """Where things are.

    Attributes:
        database_url: None for the embedded server; it may hold a password: not shown.
        tracking: the MLflow server results are exported to, or None.
    """

    data_dir: Path
    state_dir: Path
    database_url: str | None = field(default=None, repr=False)
    ui_url: str = DEFAULT_UI_URL
    timezone: str = "UTC"
    dagster_yaml: Path = CHECKOUT / "dagster.yaml"
    tracking: Tracking | None = None

    @property
    def dagster_home(self) -> Path:
        """Dagster's home: its dagster.yaml, logs and files."""
        return self.state_dir / "dagster"

    @property
    def artifacts(self) -> Path:
        """Parquet files and reports."""
        return self.state_dir / "artifacts"

    @property
    def project(self) -> str | None:
        """Name of the project made by `genaiops demo --source` these settings are of, or None."""
        root = self.state_dir.parent
        return root.name if self.data_dir == root / "data" and root.parent.name == "projects" else None

    def database_address(self) -> str:
        """The URL of the database; starts the embedded server if none is configured."""
        return self.database_url or start_embedded(self.state_dir / "postgres")

    def platform(self) -> Platform:
        """The platform on these settings; opens nothing yet."""
        return Platform(
            config=load_config(self.data_dir),
            database=Database(self.database_address),
            artifacts=self.artifacts,
            ui_url=self.ui_url,
            tracking=self.tracking,
        )


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from environment variables.

    Raises:
        ConfigError: GENAIOPS_PROJECT names no project, or GENAIOPS_DAGSTER_YAML no file.
    """
    state = Path(environment.get("GENAIOPS_STATE_DIR") or CHECKOUT / ".genaiops").expanduser().resolve()
    data = Path(environment.get("GENAIOPS_DATA_DIR") or CHECKOUT / "data").expanduser().resolve()
    if project := environment.get("GENAIOPS_PROJECT"):
        root = project_dir(state, project)
        if not (root / "data").is_dir():
            known = sorted(path.parent.name for path in (state / "projects").glob("*/data")) or ["none yet"]
            raise ConfigError(
                f"GENAIOPS_PROJECT: there is no project {project!r}; there are: {', '.join(known)}. "
                "Make one with: genaiops demo --source DIR"
            )
        data, state = root / "data", root / "state"
    return Settings(
        data_dir=data,
        state_dir=state,
        database_url=environment.get("GENAIOPS_DATABASE_URL") or None,
        ui_url=environment.get("GENAIOPS_UI_URL") or DEFAULT_UI_URL,
        timezone=environment.get("GENAIOPS_TIMEZONE") or "UTC",
        dagster_yaml=_dagster_yaml(environment.get("GENAIOPS_DAGSTER_YAML")),
        tracking=_tracking(environment),
    )


def _tracking(environment: Mapping[str, str]) -> Tracking | None:
    uri = environment.get("MLFLOW_TRACKING_URI")
    namespace = environment.get("GENAIOPS_MLFLOW_NAMESPACE") or "genaiops"
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}", namespace):
        raise ConfigError(
            f"GENAIOPS_MLFLOW_NAMESPACE: {namespace!r} cannot begin a name there; use letters, digits, - and _"
        )
    return Tracking(uri, namespace) if uri else None


def _dagster_yaml(named: str | None) -> Path:
    path = Path(named).expanduser().resolve() if named else CHECKOUT / "dagster.yaml"
    if named and not path.is_file():
        raise ConfigError(f"GENAIOPS_DAGSTER_YAML: {path} is not a file; name one such as deploy/ray/dagster.yaml")
    return path


def project_dir(state_dir: Path, name: str) -> Path:
    """Folder of a project made from a user's own documents."""
    return state_dir / "projects" / name


def prepare_home(settings: Settings) -> dict[str, str]:
    """Make Dagster's home ready and return the environment its processes need.

    Writes ``dagster.yaml`` into the home when it differs from the one that is set, creates the schema, and exports the
    variables in this process too.
    """
    from resources.postgres import migrate

    home = settings.dagster_home
    for folder in (home, settings.artifacts, settings.state_dir / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    shipped, installed = settings.dagster_yaml, home / "dagster.yaml"
    if not installed.exists() or installed.read_bytes() != shipped.read_bytes():
        shutil.copyfile(shipped, installed)
    url = settings.database_address()
    migrate(url)
    environment = {
        "DAGSTER_HOME": str(home),
        "GENAIOPS_DAGSTER_URL": dagster_url(url),
        "GENAIOPS_DATA_DIR": str(settings.data_dir),
        "GENAIOPS_STATE_DIR": str(settings.state_dir),
        "GENAIOPS_UI_URL": settings.ui_url,
        "GENAIOPS_TIMEZONE": settings.timezone,
        "GX_ANALYTICS_ENABLED": "false",
        "HF_EVALUATE_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    if settings.database_url:
        environment["GENAIOPS_DATABASE_URL"] = settings.database_url
    os.environ.pop("GENAIOPS_PROJECT", None)  # resolved into data and state above
    os.environ.update(environment)
    return environment
