"""Moments as auditors write them, by a local clock."""

import pytest

from tests.interfaces.conftest import Service


@pytest.mark.parametrize("given", ["2026-10-25T02:30:00", "2026-10-25T02:30:00+02:00", "2026-10-25"])
@pytest.mark.parametrize(
    "place", ["/v1/jobs/{id}?as_of=", "/v1/events?from=", "/v1/jobs?created_after=", "/v1/stats?from="]
)
def test_one_that_is_not_understood_is_told_how_to_write_it(
    service: Service, queue: str, given: str, place: str
) -> None:
    """A plus that is not encoded is a space: the likeliest mistake with curl."""
    id = service.create(queue=queue)["id"]
    told = service.problem(service.http.get(place.format(id=id) + given), 400, "invalid")
    assert "in an address as %2B01:00" in told["detail"]
