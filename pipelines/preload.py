"""Preload: what a step process finds already imported, because the fork server imports it once per run.

Belongs here: names of heavy libraries that most steps need.
Does not belong here: anything this project calls; only the fork server imports this module (jobs.py names it), so
that loading definitions stays light.
"""

import gc
import importlib
import os

# Before the import: great_expectations reads it while loading.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

for _library in (
    "numpy",
    "pandas",
    "psycopg",
    "pgvector.psycopg",
    "great_expectations",
    "langchain_text_splitters",
):
    importlib.import_module(_library)

# What was imported stays: a step need not look through it again whenever it collects garbage, and the pages stay shared.
gc.collect()
gc.freeze()
