"""A shop for each test of a worker."""

from pathlib import Path

import pytest

from tests.application.services import Play, in_shop


@pytest.fixture
def play(dsn: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a story in a shop with a queue of the test's own."""
    monkeypatch.setattr("infrastructure.postgres.notifications.LOOK_SECONDS", 0.05)  # how long closing takes
    return lambda story: in_shop(dsn, tmp_path, str(request.node.name), story)
