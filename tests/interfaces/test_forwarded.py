"""What proxies say of a request counts when they are named in JOBLEDGER_PROXIES, and only then."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from application.keys import NewKey, make_key
from infrastructure.postgres.database import Database
from infrastructure.postgres.keys import PostgresKeys
from tests.infrastructure.nodes import migrated

if TYPE_CHECKING:
    from tests.conftest import Start

PROXY, ELSEWHERE = "127.0.0.2", "127.0.0.3"
"""Addresses of this machine, from which requests can be sent."""
HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}


@pytest.fixture(scope="module")
def secret(dsn: str) -> Iterator[str]:
    database = Database(dsn)
    yield make_key(PostgresKeys(database), NewKey(name="first", role="admin"), "test").secret
    database.close()


def sign_in(url: str, secret: str, headers: dict[str, str], come_from: str = "127.0.0.1") -> str:
    """The cookie that a browser gets, whose requests come through a proxy at `come_from`."""
    transport = httpx2.HTTPTransport(local_address=come_from)
    with httpx2.Client(transport=transport, timeout=30) as http:
        answer = http.post(f"{url}/sign-in", data={"key": secret}, headers={"Origin": url, **headers})
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == "/"
    return str(answer.headers["set-cookie"])


def is_secure(cookie: str) -> bool:
    return "secure" in [part.strip().lower() for part in cookie.split(";")]


@pytest.mark.parametrize(
    ("named", "believed"),
    [
        (PROXY, (PROXY,)),
        (f"10.0.0.1, {PROXY}", (PROXY,)),
        ("127.0.0.2/31", (PROXY, ELSEWHERE)),
        ("10.0.0.1", ()),
        ("", ()),
    ],
)
def test_only_named_proxies_are_believed(
    start: "Start", dsn: str, secret: str, named: str, believed: tuple[str, ...]
) -> None:
    # uvicorn's own variable does not let anybody in beside ours.
    server = start("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_PROXIES=named, FORWARDED_ALLOW_IPS="*")
    for place in ("127.0.0.1", PROXY, ELSEWHERE):
        assert is_secure(sign_in(server.url, secret, HTTPS, place)) == (place in believed), place
        assert not is_secure(sign_in(server.url, secret, {}, place))


def test_not_even_a_named_proxy_says_which_host_is_asked(start: "Start", new_database: Any) -> None:
    """An open service is driven by its own pages at a loopback Host, whatever is said of another."""
    server = start("api", "--port", "0", DATABASE_URL=migrated(new_database()), JOBLEDGER_PROXIES="127.0.0.1")
    job = {"kind": "k", "input": 1}
    elsewhere = {"X-Forwarded-Host": "jobs.example.org", "Forwarded": "host=jobs.example.org;proto=https", **HTTPS}
    made = httpx2.post(f"{server.url}/v1/jobs", json=job, headers=elsewhere)
    assert made.status_code == 202
    told = made.text + made.headers["location"]
    assert "example.org" not in told
    assert "203.0.113.7" not in told
    for lie in ({"X-Forwarded-Host": "localhost"}, {"Forwarded": "host=localhost"}, {"X-Forwarded-For": "127.0.0.1"}):
        refused = httpx2.get(f"{server.url}/v1/jobs", headers={"Host": "jobs.example.org", **lie})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    foreign = {"Origin": "https://jobs.example.org", **elsewhere}
    assert httpx2.post(f"{server.url}/v1/jobs", json=job, headers=foreign).status_code == 403
