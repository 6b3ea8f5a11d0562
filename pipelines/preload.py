"""Preload: what a step process finds already imported, because the fork server imports it once per run.

Belongs here: names of heavy libraries that most steps need.
Does not belong here: anything this project calls; only the fork server imports this module (jobs.py names it), so
that loading definitions stays light.
"""

import importlib
import os

# Before the import: great_expectations reads it while loading.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

for _library in ("numpy", "pandas", "psycopg", "pgvector.psycopg", "great_expectations"):
    importlib.import_module(_library)
