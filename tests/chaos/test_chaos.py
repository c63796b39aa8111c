"""Chaos, a short round: whatever is struck, nothing acknowledged is lost, repeated or told in another order."""

from pathlib import Path

import pytest

from tests.chaos.report import table
from tests.chaos.round import Plan, Round

SEED = 20
CALM = 1.0
KINDS = (
    "api killed",
    "worker killed",
    "worker stopped for seconds",
    "far worker killed",
    "projector killed",
    "everything killed",
    "database killed",
    "database stopped for seconds",
    "backend killed",
    "connections exhausted",
    "network to the database cut",
    "network to the servers silent",
    "clock jumps ahead",
    "disk of artifacts full",
    "disk of the database full",
)
ENOUGH = 0.1
"""Of the throughput before: that jobs end again, on a machine that may be busy with other things as well."""


@pytest.mark.timeout(900)
def test_every_fault_is_survived(tmp_path: Path) -> None:
    plan = Plan(seed=SEED, minutes=None, calm=CALM, kinds=KINDS, enough=ENOUGH)
    outcome = Round(plan, tmp_path, lambda line: print(line, flush=True)).run()
    print(table(outcome.strikes))
    assert outcome.violations == []
    assert [strike.kind for strike in outcome.strikes if strike.recovery is None] == []
    assert outcome.jobs > 200
    assert outcome.hops >= 2
    assert outcome.checkpoints >= 2
