"""The project's definitions as production loads them, with two sensors that look at every tick of the daemon (5 s)
instead of every half or every fifth minute."""

from pipelines.definitions import build_defs
from pipelines.sensors import RECONCILE, SOURCE_CHANGES

defs = build_defs()
for _sensor in defs.sensors or ():
    if _sensor.name in (SOURCE_CHANGES, RECONCILE):
        _sensor._min_interval = 1  # pyright: ignore[reportAttributeAccessIssue]
