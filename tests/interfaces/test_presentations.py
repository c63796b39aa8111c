"""Decks are refused by the field at fault, and a presentation is shown while it is made."""

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any
SLIDE = {"title": "Facts do not change"}
DECK = {"title": "Event sourcing", "slides": [SLIDE, SLIDE]}


def with_slide(**fields: Json) -> Json:
    """A deck whose second slide has these fields."""
    return {**DECK, "slides": [SLIDE, {**SLIDE, **fields}]}


BAD_DECKS: dict[str, tuple[Json, str]] = {
    "no title": ({"slides": [SLIDE]}, "title"),
    "a blank title": ({**DECK, "title": " \n"}, "title"),
    "a title that is too long": ({**DECK, "title": "x" * 301}, "title"),
    "no slides": ({**DECK, "slides": []}, "slides"),
    "slides that are none": ({**DECK, "slides": "many"}, "slides"),
    "101 slides": ({**DECK, "slides": [SLIDE] * 101}, "slides"),
    "an unknown theme": ({**DECK, "theme": "neon"}, "theme"),
    "an unknown size": ({**DECK, "size": "4k"}, "size"),
    "an unknown renderer": ({**DECK, "renderer": "cinema"}, "renderer"),
    "an unknown field": ({**DECK, "music": True}, "music"),
    "a slide without a title": ({**DECK, "slides": [SLIDE, {}]}, "slides[1].title"),
    "a slide with an unknown field": (with_slide(colour="red"), "slides[1].colour"),
    "a blank slide title": (with_slide(title="\t"), "slides[1].title"),
    "a title of control characters": (with_slide(title="\x01\x02"), "slides[1].title"),
    "an empty bullet": (with_slide(bullets=["a", ""]), "slides[1].bullets[1]"),
    "a bullet that is too long": (with_slide(bullets=["x" * 10_001]), "slides[1].bullets[0]"),
    "51 bullets": (with_slide(bullets=["x"] * 51), "slides[1].bullets"),
    "notes that are too long": (with_slide(notes="x" * 10_001), "slides[1].notes"),
    "no time at all": (with_slide(seconds=0), "slides[1].seconds"),
    "negative seconds": (with_slide(seconds=-3), "slides[1].seconds"),
    "an hour": (with_slide(seconds=3600), "slides[1].seconds"),
    "seconds in words": (with_slide(seconds="ten"), "slides[1].seconds"),
}


@pytest.mark.usefixtures("nothing_recorded")
@pytest.mark.parametrize(("deck", "field"), BAD_DECKS.values(), ids=BAD_DECKS.keys())
def test_unfit_deck_is_refused_by_the_field_at_fault(service: "Service", deck: Json, field: str) -> None:
    assert service.invalid(service.http.post("/v1/presentations", json=deck)) == [field]


@pytest.mark.usefixtures("nothing_recorded")
def test_blank_text_is_refused_in_plain_words(service: "Service") -> None:
    told = service.http.post("/v1/presentations", json=with_slide(bullets=["a", " "])).json()
    assert told["errors"] == [{"field": "slides[1].bullets[1]", "message": "is blank"}]


@pytest.mark.usefixtures("nothing_recorded")
def test_deck_of_more_than_256_kib_is_refused(service: "Service") -> None:
    deck = {**DECK, "slides": [{**SLIDE, "notes": "x" * 10_000}] * 27}
    service.problem(service.http.post("/v1/presentations", json=deck), 413, "too-large")


def test_largest_deck_is_taken(service: "Service") -> None:
    slides = [{**SLIDE, "bullets": ["x" * 2000], "seconds": 600}] * 100
    assert service.http.post("/v1/presentations", json={**DECK, "slides": slides}).status_code == 202


def test_presentation_with_a_key_is_created_once(service: "Service") -> None:
    headers = {"idempotency-key": uuid4().hex}
    first, second = (service.http.post("/v1/presentations", json=DECK, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"


def test_new_presentation_has_slides_without_images(service: "Service") -> None:
    id = service.http.post("/v1/presentations", json=DECK).json()["id"]
    shown = service.http.get(f"/v1/presentations/{id}").json()
    assert shown["id"] == id
    assert (shown["status"], shown["progress"], shown["title"]) == ("queued", 0.0, "Event sourcing")
    assert shown["slides"] == [{"image_url": None, "continued": []}] * 2
    assert [shown[name] for name in ("video_url", "thumbnail_url", "error", "completed_at", "last_heartbeat")] == (
        [None] * 5
    )
    for part in ("video", "thumbnail", "slides/1", "slides/3"):
        service.problem(service.http.get(f"/v1/presentations/{id}/{part}"), 404, "not-found")


@pytest.mark.parametrize("n", ["0", "101", "-1", "one", "1.5", "01"])
def test_slide_that_is_no_number_is_refused(service: "Service", n: str) -> None:
    assert service.invalid(service.http.get(f"/v1/presentations/{uuid4()}/slides/{n}")) == ["n"]


def test_another_jobs_id_is_no_presentation(service: "Service") -> None:
    id = service.create()["id"]
    for part in ("", "/video", "/thumbnail", "/slides/1"):
        service.problem(service.http.get(f"/v1/presentations/{id}{part}"), 404, "not-found")


def test_video_of_another_job_is_not_served(service: "Service", queue: str) -> None:
    """A worker elsewhere reports any result: what it names has to be a file of the job itself."""
    foreign = {"name": "video.mp4", "sha256": "0" * 64, "size": 1, "media_type": "video/mp4"}
    result = {
        "video": foreign,
        "thumbnail": {**foreign, "name": "thumbnail.png"},
        "slides": [],
        "duration": 1.0,
        "width": 2,
        "height": 2,
        "renderer": "elai",
    }
    job = service.completed(queue, result, kind="presentation", input=DECK)
    assert service.http.get(f"/v1/presentations/{job['id']}").json()["video_url"] is None
    service.problem(service.http.get(f"/v1/presentations/{job['id']}/video"), 404, "not-found")


def test_link_to_a_slide_is_good_for_that_slide_only(service: "Service", queue: str) -> None:
    job = service.running(queue, kind="presentation", input=DECK)
    for number in (1, 2):
        service.http.put(
            f"/v1/jobs/{job['id']}/attempts/1/artifacts/slide-{number:03}.png",
            params={"worker": "w1"},
            content=b"png" * number,
        )
    first, second = service.http.get(f"/v1/presentations/{job['id']}").json()["slides"]
    assert service.http.get(first["image_url"]).content == b"png"
    assert service.http.get(second["image_url"]).content == b"pngpng"
    swapped = first["image_url"].replace("/slides/1", "/slides/2")
    service.problem(service.http.get(swapped), 403, "forbidden")
