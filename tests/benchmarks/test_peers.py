"""The comparison with peers in miniature: our own lane, and one whose environment is made from PyPI."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.peers.comparison import DISK, MEASURES, PROCESSED, Comparison, Scale
from benchmarks.peers.environments import NotMade, environment
from benchmarks.peers.peers import EVENTSOURCING, JOBLEDGER, Peer
from benchmarks.peers.report import chart, tables

SCALE = Scale(jobs=200, singles=8, picked=12, warm=2, loaded_seconds=1.0, workers=(1,))


@pytest.mark.timeout(600)  # a dozen programs, one after the other, on a machine that others may use as well
def test_our_lane_has_every_measure(new_database: Callable[[], str], tmp_path: Path) -> None:
    comparison = Comparison([JOBLEDGER], new_database, tmp_path, SCALE)
    comparison.round()
    assert comparison.absent == {}
    measured = {measure: values[JOBLEDGER.name] for measure, values in comparison.values.items() if values}
    assert measured.keys() == set(MEASURES) - {PROCESSED[2]}
    assert all(value > 0 for (value,) in measured.values())


@pytest.mark.timeout(600)
def test_a_peer_is_measured_in_an_environment_of_its_own(new_database: Callable[[], str], tmp_path: Path) -> None:
    try:
        environment(EVENTSOURCING.requirements)
    except NotMade as reason:
        pytest.skip(f"the environment of {EVENTSOURCING.name} could not be made: {reason}")
    comparison = Comparison([EVENTSOURCING], new_database, tmp_path, SCALE)
    comparison.round()
    assert comparison.absent == {}
    assert comparison.values[DISK][EVENTSOURCING.name][0] > 500


def test_a_peer_that_cannot_be_installed_or_run_is_named_with_the_reason(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    missing = Peer(name="missing", settings="", lane="missing", requirements=(str(tmp_path / "nowhere"),))
    broken = Peer(name="broken", settings="", lane="no_such_lane")
    comparison = Comparison([missing, broken], new_database, tmp_path, SCALE)
    comparison.round()
    said = tables(comparison)
    assert "Not measured: missing: " in said
    assert "nowhere" in comparison.absent["missing"]
    assert "Not measured: broken, throughput: install: " in said
    assert "no_such_lane" in comparison.absent["broken, throughput"]


def test_the_table_and_the_chart_have_every_peer(tmp_path: Path) -> None:
    theirs = Peer(name="Peer & Sons", settings="as it comes", lane="", unfinished="SELECT false")
    comparison = Comparison([JOBLEDGER, theirs], lambda: "", tmp_path, SCALE)
    for n in (1, 2, 3):
        for measure in MEASURES[:3]:
            comparison.values[measure][JOBLEDGER.name] = [300.0 * n for n in range(1, n + 1)]
            comparison.values[measure][theirs.name] = [200.0 * n for n in range(1, n + 1)]
    said = tables(comparison)
    assert f"| {MEASURES[0]} | 600 (300–900) | 400 (200–600) |" in said
    assert f"| {MEASURES[0]} | 1.50 | 1.50 | 1.50 | ≥ 0.75 |" in said
    drawn = ElementTree.fromstring(chart(comparison, "a < b"))
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("Peer & Sons") == 3
    assert "a < b" in texts
