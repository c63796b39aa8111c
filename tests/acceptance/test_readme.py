"""What the README shows does what it says."""

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx2

from tests.acceptance.test_first_light import create, events, job

README = Path(__file__).parents[2] / "README.md"
Start = Callable[..., Any]
WaitUntil = Callable[[Callable[[], Any], str], Any]


def test_the_handler_of_the_readme_packs_an_order(
    start: Start, dsn: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    shown = re.search(r"^    # shop\.py.*\n(?:(?:    .*)?\n)+?(?=\S)", README.read_text(), re.MULTILINE)
    assert shown
    (tmp_path / "shop.py").write_text(dedent(shown[0]))
    environment = {"DATABASE_URL": dsn, "JOBLEDGER_ARTIFACTS": str(tmp_path / "artifacts")}
    url = start("api", "--port", "0", **environment).url
    start("worker", JOBLEDGER_HANDLERS="shop", **environment)

    id = create(url, "order", input={"order": "four apples"})
    wait_until(lambda: job(url, id)["status"] == "completed", "the order's end")

    parcel = "four apples, paid with payment of four apples"
    assert job(url, id)["result"] == parcel
    assert httpx2.get(f"{url}/v1/jobs/{id}/artifacts/label.txt", timeout=30).text == parcel
    recorded = [event["data"] for event in events(url, id)]
    assert [data["step"] for data in recorded if "handle" in data or "output" in data] == ["charge", "pack"]
    assert "packing" in [data.get("message") for data in recorded]
