"""Tables of many pages: each says how to go on, and that leads through all there is."""

import re
import shlex

import pytest

from interfaces.cli.main import main
from tests.interfaces.conftest import Service


def asked(service: Service, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--url", service.url])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    return printed.out


def walked(service: Service, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What all pages say."""
    said, more = "", list[str]()
    for _ in range(10):
        page = asked(service, capsys, *arguments, "--limit", "2", *more)
        rows, _, further = page.partition("there are more: ")
        said += rows
        if not further:
            return said
        more = shlex.split(further)
    raise AssertionError(f"there is no end to it: {said}")


def test_jobs(service: Service, queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [service.create(queue=queue)["id"] for _ in range(5)]
    said = walked(service, capsys, "jobs", "--queue", queue)
    assert re.findall("|".join(ids), said) == ids[::-1]


def test_events(service: Service, queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    id = service.completed(queue)["id"]
    said = walked(service, capsys, "events", id)
    assert re.findall(r"job\.\w+", said) == ["job.created", "job.started", "job.completed"]


def test_queues(service: Service, queue: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{queue} {n}" for n in range(3)]
    for name in names:
        service.create(queue=name)
    said = walked(service, capsys, "queues")
    assert all(said.count(name) == 1 for name in names)
