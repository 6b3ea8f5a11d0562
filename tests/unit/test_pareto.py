"""The Pareto front: beaten means nowhere better and somewhere worse."""

from assets.experiments.pareto import Point, dominated_by


def test_front_is_what_none_beats() -> None:
    points = [
        Point("good and dear", 0.9, 10.0, 1.0),
        Point("bad and cheap", 0.5, 1.0, 1.0),
        Point("bad and dear", 0.5, 10.0, 1.0),
        Point("between", 0.7, 5.0, 1.0),
        Point("slow", 0.7, 5.0, 2.0),
    ]
    assert dominated_by(points) == {
        "good and dear": None,
        "bad and cheap": None,
        "bad and dear": "good and dear",
        "between": None,
        "slow": "between",
    }


def test_noise_of_latency_beats_nobody() -> None:
    """Two runs of one variant differ by this much; neither may push the other off the front."""
    points = [Point("a", 0.7, 5.0, 0.100), Point("b", 0.7, 5.0, 0.108), Point("c", 0.7, 5.0, 0.130)]
    assert dominated_by(points) == {"a": None, "b": None, "c": "a"}


def test_equal_variants_do_not_beat_each_other() -> None:
    assert dominated_by([Point("a", 0.7, 5.0, 0.1), Point("b", 0.7, 5.0, 0.1)]) == {"a": None, "b": None}


def test_faster_variant_stays_on_the_front_however_dear() -> None:
    assert dominated_by([Point("a", 0.7, 5.0, 1.0), Point("b", 0.6, 9.0, 0.1)])["b"] is None


def test_stated_energy_counts_and_unknown_energy_does_not() -> None:
    thrifty, wasteful, silent = (
        Point("a", 0.7, 5.0, 1.0, 2.0),
        Point("b", 0.7, 5.0, 1.0, 3.0),
        Point("c", 0.7, 6.0, 1.0),
    )
    assert dominated_by([thrifty, wasteful, silent]) == {"a": None, "b": "a", "c": "a"}
    assert dominated_by([Point("d", 0.6, 5.0, 1.0, 1.0), thrifty])["d"] is None, "worse, but it takes less"


def test_unknown_latency_decides_nothing() -> None:
    assert dominated_by([Point("a", 0.7, 5.0, None), Point("b", 0.6, 6.0, 0.1)]) == {"a": None, "b": "a"}
