"""Signing in to the console, and what each role finds there."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from application.keys import NewKey, Role, make_key
from infrastructure.postgres.database import Database
from infrastructure.postgres.keys import PostgresKeys
from interfaces.http.guard import COOKIE
from tests.console.conftest import Console, Look, Theme, tab_to

PAGES = {
    "client": ["Jobs", "New"],
    "auditor": ["Jobs", "Log", "Audit"],
    "operator": ["Overview", "Jobs", "New", "Failures", "Workers", "Queues", "Projections"],
    "admin": ["Overview", "Jobs", "New", "Log", "Failures", "Workers", "Queues", "Projections", "Audit", "Keys"],
}


@pytest.fixture(scope="module")
def secrets(dsn: str) -> Iterator[dict[str, str]]:
    """A key of each role, and one of a namespace."""
    database = Database(dsn)
    store = PostgresKeys(database)
    roles: tuple[Role, ...] = ("admin", "client", "worker", "auditor", "operator")
    made: dict[str, str] = {
        role: make_key(store, NewKey(name=f"the-{role}", role=role), "test").secret for role in roles
    }
    made["of-a"] = make_key(store, NewKey(name="of-a", role="client", namespace="a"), "test").secret
    yield made
    database.close()


@pytest.fixture(scope="module")
def closed(secrets: dict[str, str], dsn: str, start_for_module: Any) -> Iterator[Console]:
    """A service with keys, behind a proxy of this machine."""
    server = start_for_module("api", "--port", "0", DATABASE_URL=dsn, JOBLEDGER_PROXIES="127.0.0.1")
    console = Console(server.url, secrets["admin"])
    yield console
    console.http.close()


def signed_in(look: Look, closed: Console, secret: str, path: str = "/", *, strict: bool = True) -> Page:
    page = look(f"{closed.url}{path}", strict=strict)
    expect(page).to_have_title("Sign in · jobledger")
    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    return page


def test_a_key_opens_the_page_that_was_asked_for_until_somebody_signs_out(
    closed: Console, look: Look, secrets: dict[str, str]
) -> None:
    page = look(f"{closed.url}/jobs?queue=by-hand", strict=False)  # a refused key is an error to the browser
    page.get_by_label("Key").fill("jl_client_nonsense")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    page.get_by_label("Key").fill(secrets["client"])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{closed.url}/jobs?queue=by-hand")
    expect(page.locator(".actor")).to_have_text("key:the-client")
    [cookie] = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_title("Sign in · jobledger")
    assert page.context.cookies() == []
    page.goto(f"{closed.url}/jobs")
    expect(page).to_have_title("Sign in · jobledger")


def test_somebody_signs_in_and_out_with_the_keyboard_alone(
    closed: Console, look: Look, secrets: dict[str, str]
) -> None:
    page = look(f"{closed.url}/jobs?queue=by-hand")
    key = page.get_by_label("Key")
    expect(key).to_be_focused()
    page.keyboard.type(secrets["operator"])
    tab_to(page, page.get_by_role("button", name="Sign in"), 1)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{closed.url}/jobs?queue=by-hand")
    assert [cookie["name"] for cookie in page.context.cookies()] == [COOKIE]
    # The skip link and the name come before the pages.
    tab_to(page, page.get_by_role("button", name="Sign out"), len(PAGES["operator"]) + 3)
    page.keyboard.press("Enter")
    expect(page).to_have_title("Sign in · jobledger")
    expect(key).to_be_focused()
    expect(key).to_have_value("")
    assert page.context.cookies() == []
    for _ in range(2):
        page.go_back()
        expect(page).to_have_title("Sign in · jobledger")
    page.goto(f"{closed.url}/jobs?queue=by-hand")
    expect(page).to_have_title("Sign in · jobledger")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_to_sign_in_is_fit_for_all(closed: Console, look: Look, theme: Theme) -> None:
    page = look(f"{closed.url}/jobs", theme=theme, width=360, strict=False)  # a refused key is an error to the browser
    expect(page.get_by_label("Key")).to_be_focused()
    page.keyboard.type("jl_client_" + "x" * 300)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        results = Axe().run(page)
        assert not results.violations_count, results.generate_report()
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not known")
    assert page.context.cookies() == []


@pytest.mark.parametrize("role", PAGES)
def test_each_role_finds_its_own_pages_and_actions(
    closed: Console, look: Look, secrets: dict[str, str], role: str
) -> None:
    id = closed.create(queue=f"of-{role}")
    page = signed_in(look, closed, secrets[role], strict=False)
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_text(PAGES[role])
    for name in PAGES["admin"]:
        answer = page.goto(f"{closed.url}/{name.lower()}")
        assert answer is not None
        assert answer.status == (200 if name in PAGES[role] else 403), name
    page.goto(f"{closed.url}/jobs?queue=of-{role}")
    assert page.locator("#bulk").count() == (role in ("operator", "admin"))
    page.goto(f"{closed.url}/jobs/{id}")
    assert page.locator("#actions").count() == (role != "auditor")
    assert page.locator("#seal").count() == (role in ("auditor", "admin"))
    if role != "auditor":
        page.get_by_role("textbox", name="Reason").fill("a test")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#state .badge")).to_have_text("cancelled")
        events = closed.http.get(f"/v1/jobs/{id}/events").json()["items"]
        assert events[-1]["by"] == f"key:the-{role}"


def test_an_admin_sees_what_each_key_was_used_for_and_revokes_one(
    closed: Console, look: Look, secrets: dict[str, str]
) -> None:
    made = closed.http.post("/v1/keys", json={"name": "lost", "role": "client", "namespace": "a", "rate": 5}).json()
    lost = {"Authorization": f"Bearer {made['secret']}"}
    page = signed_in(look, closed, secrets["admin"], "/keys", strict=False)
    row = page.locator(".row", has=page.get_by_role("heading", name="lost", exact=True))
    for said in ("namespace a", "5 requests a second", "by key:the-admin", "never used"):
        expect(row).to_contain_text(said)
    assert httpx2.get(f"{closed.url}/v1/jobs", headers=lost).status_code == 200
    expect(row).to_contain_text("last used")
    assert not [secret for secret in (*secrets.values(), made["secret"]) if secret in page.content()]
    row.get_by_text("Revoke lost").click()
    row.get_by_role("button", name="Revoke").click()
    expect(row.locator(".badge")).to_have_text("revoked")
    expect(row).to_contain_text("by key:the-admin")
    assert httpx2.get(f"{closed.url}/v1/jobs", headers=lost).status_code == 401
    own = page.locator(".row", has=page.get_by_role("heading", name="the-admin (yours)", exact=True))
    own.get_by_text("Revoke the-admin").click()
    own.get_by_role("button", name="Revoke").click()
    expect(own.get_by_role("alert")).to_contain_text("last admin key")
    page.set_viewport_size({"width": 360, "height": 800})
    schemes: tuple[Theme, ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        results = Axe().run(page)
        assert not results.violations_count, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("place", ["log", "jobs", "overview", "job"])
def test_whose_key_is_revoked_meanwhile_is_led_to_where_one_signs_in(
    closed: Console, look: Look, secrets: dict[str, str], place: str
) -> None:
    made = closed.http.post("/v1/keys", json={"name": f"goes-{place}", "role": "admin"}).json()
    path = f"/jobs/{closed.create(queue='goes')}" if place == "job" else f"/{place}"
    page = signed_in(look, closed, made["secret"], path, strict=False)
    expect(page.locator(".actor")).to_have_text(f"key:goes-{place}")
    if place in ("log", "job"):
        expect(page.locator("#connection")).to_have_text("live")
    closed.http.delete(f"/v1/keys/{made['key']['id']}").raise_for_status()
    expect(page).to_have_url(re.compile(r"/sign-in\?next="), timeout=30_000)


def test_jobs_of_another_namespace_are_as_if_there_were_none(
    closed: Console, look: Look, secrets: dict[str, str]
) -> None:
    id = closed.create(queue="default-namespace")
    page = signed_in(look, closed, secrets["of-a"], "/jobs", strict=False)
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    for path in (f"/jobs/{id}", f"/jobs/{id}?at_version=1"):
        answer = page.goto(f"{closed.url}{path}")
        assert answer is not None
        assert answer.status == 404


def test_a_worker_is_told_that_there_is_nothing_to_see(closed: Console, look: Look, secrets: dict[str, str]) -> None:
    page = signed_in(look, closed, secrets["worker"])
    expect(page.get_by_role("heading", name="Nothing to see here")).to_be_visible()


def test_no_other_page_signs_anybody_in_or_out(closed: Console, secrets: dict[str, str]) -> None:
    for path in ("/sign-in", "/sign-out"):
        for headers in ({}, {"Origin": "https://elsewhere.example"}):
            answer = httpx2.post(f"{closed.url}{path}", data={"key": secrets["client"]}, headers=headers)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("wanted", ["https://elsewhere.example/", "//elsewhere.example/", "/\\elsewhere.example", "x"])
def test_signing_in_leads_nowhere_else(closed: Console, secrets: dict[str, str], wanted: str) -> None:
    form = {"key": secrets["client"], "next": wanted}
    answer = httpx2.post(f"{closed.url}/sign-in", data=form, headers={"Origin": closed.url})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_behind_https_the_cookie_is_secure(closed: Console, secrets: dict[str, str]) -> None:
    form = {"key": secrets["client"]}
    headers = {"Origin": closed.url}
    plain = httpx2.post(f"{closed.url}/sign-in", data=form, headers=headers)
    behind = httpx2.post(f"{closed.url}/sign-in", data=form, headers={**headers, "X-Forwarded-Proto": "https"})
    assert "secure" not in plain.headers["set-cookie"].lower()
    assert "secure" in behind.headers["set-cookie"].lower()
