"""The scores of one trial in memory: a mapping that takes a tenth of what a dict does.

Belongs here: how they are held. Does not belong here: computing and storing them (scores.py).
"""

import math
from array import array
from collections.abc import Iterable, Iterator, MutableMapping

#: Place of each metric in every row of this process.
_PLACES: dict[str, int] = {}
#: Stands for a metric that has no score yet; no score is infinite. NaN, which no score is either, stands for undefined.
_MISSING = -math.inf


class ScoreRow(MutableMapping[str, float | None]):
    """{metric id: value, or None where the metric is undefined}; numbers come back as floats.

    Raises:
        ValueError: a value is infinite or NaN, which no score can be.
    """

    __slots__ = ("_numbers",)

    def __init__(self, items: Iterable[tuple[str, float | None]] = ()) -> None:
        self._numbers = array("d")
        for metric, value in items:
            self[metric] = value

    def __getitem__(self, metric: str) -> float | None:
        """The value; KeyError when there is none yet."""
        try:
            number = self._numbers[_PLACES[metric]]
        except (IndexError, KeyError):
            raise KeyError(metric) from None
        if number == _MISSING:
            raise KeyError(metric)
        return number if number == number else None

    def __setitem__(self, metric: str, value: float | None) -> None:
        """Set the value."""
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{metric}: {value} is no score")
        place = _PLACES.setdefault(metric, len(_PLACES))
        lacking = place + 1 - len(self._numbers)
        if lacking > 0:
            self._numbers.extend([_MISSING] * max(lacking, len(_PLACES) - len(self._numbers)))
        self._numbers[place] = math.nan if value is None else value

    def __delitem__(self, metric: str) -> None:
        """Forget the value; KeyError when there is none."""
        self[metric]
        self._numbers[_PLACES[metric]] = _MISSING

    def __iter__(self) -> Iterator[str]:
        """The metrics that have a value or are undefined."""
        numbers = self._numbers
        return (metric for metric, place in _PLACES.items() if place < len(numbers) and numbers[place] != _MISSING)

    def __len__(self) -> int:
        """Their number."""
        return len(self._numbers) - self._numbers.count(_MISSING)

    def __repr__(self) -> str:
        """As a dict."""
        return f"ScoreRow({dict(self)})"
