"""A filter that hardly anything passes reads the whole log a stretch at a time, and finds the same."""

from collections.abc import Callable

import pytest

from application.following import LogFilter
from infrastructure.postgres import jobs
from tests.infrastructure.nodes import Node, migrated, new_job, undisturbed


@pytest.mark.parametrize("looked_at", [1, 7, 5_000])
def test_rare_events_are_found_in_stretches(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(jobs, "LOOKED_AT", looked_at)
    with Node(migrated(new_database())) as node:
        for n in range(30):
            node.create(new_job(kind="rare" if n % 10 == 5 else "often"))
        undisturbed(node.log.database)
        everything = node.views.log(0, 100, None)
        assert len(everything) == 30
        rare = LogFilter(kind=("rare",))
        places = [everything[n].position for n in (5, 15, 25)]
        assert [entry.position for entry in node.views.log(0, 100, rare)] == places
        assert [entry.position for entry in node.views.log(0, 2, rare)] == places[:2]
        assert [entry.position for entry in node.views.log(places[0], 2, rare)] == places[1:]
        assert node.views.log(0, 100, LogFilter(actor=("nobody",))) == []
