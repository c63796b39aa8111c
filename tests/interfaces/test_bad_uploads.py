"""Bad uploads and questions: each is refused by the field and the fault, and nothing is recorded."""

from typing import TYPE_CHECKING, Any

import pytest

from tests.interfaces.malformed import KIB, MIB, MULTIPART

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service

Json = Any

pytestmark = pytest.mark.usefixtures("nothing_recorded")


def field(content: bytes, name: str = "file", *headers: str) -> bytes:
    """A form with one field, which is no file."""
    head = "\r\n".join(("--b", f'Content-Disposition: form-data; name="{name}"', *headers, "", ""))
    return head.encode() + content + b"\r\n--b--\r\n"


def part(name: str, content: bytes) -> bytes:
    """A form with one file, in `multipart/form-data`."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("media_type", "body", "status", "code"),
    [
        ("multipart/form-data", part("q.txt", b"Why?"), 400, "invalid"),
        (MULTIPART, b"", 400, "invalid"),
        (MULTIPART, b"--b", 400, "invalid"),
        (MULTIPART, b"no form at all", 400, "invalid"),
        (MULTIPART, part("q.txt", b"Why?")[:-10], 400, "invalid"),
        (MULTIPART, part("q.txt", b"\xff\xfe"), 400, "invalid"),
        (MULTIPART, part("q.txt", b"a\x00b"), 400, "invalid"),
        (MULTIPART, field(b"\xff\xfe"), 400, "invalid"),
        (MULTIPART, field(b"Why?", "file", "Content-Type: text/plain; charset=klingon"), 400, "invalid"),
        (MULTIPART, field(b"Why?", "question"), 400, "invalid"),
        (MULTIPART, field(b" "), 400, "invalid"),
        (MULTIPART, field(b"x" * (256 * KIB + 1)), 413, "too-large"),
        (MULTIPART, part("q.txt", b" \n "), 400, "invalid"),
        (MULTIPART, part("q.txt", b"Why?")[:-7] + part("r.txt", b"How?"), 400, "invalid"),
        (MULTIPART, part("q.exe", b"Why?"), 415, "unsupported-media-type"),
        (MULTIPART, part("q.txt", b"x" * (256 * KIB + 1)), 413, "too-large"),
        (MULTIPART, part("q.txt", b"x" * MIB), 413, "too-large"),
    ],
    ids=[
        "no boundary",
        "nothing",
        "an end",
        "no form",
        "half a form",
        "no UTF-8",
        "a NUL",
        "a field of no UTF-8",
        "a field in an unknown charset",
        "a field of another name",
        "a field of blanks",
        "too large a field",
        "blanks",
        "two files",
        "a program",
        "too large a file",
        "too large a body",
    ],
)
def test_a_bad_upload_is_refused(service: "Service", media_type: str, body: bytes, status: int, code: str) -> None:
    answer = service.http.post("/v1/visualizations", content=body, headers={"content-type": media_type})
    told = service.problem(answer, status, code)
    assert all(error["field"] in ("file", "Content-Type", "question") for error in told.get("errors", ()))


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"--b--\r\n", "file", "is missing"),
        (part("q.txt", b""), "file", "is empty"),
        (part("q.md", b"\xef\xbb\xbf \n"), "file", "is empty"),
        (part("q.txt", b"a\x00b"), "file", "NUL"),
        (part("q.txt", b"\x89PNG\r\n\xff"), "file", "no text in UTF-8"),
        (part("q.txt", "Why?".encode("utf-16")), "file", "no text in UTF-8"),
        (part("q.txt", b"Why?")[:-7] + part("r.txt", b"How?"), "file", "more than once"),
        (field(b"Why?", "question"), "question", "is not taken"),
    ],
    ids=["no file", "empty", "a mark and blanks", "a NUL", "a picture", "UTF-16", "two files", "another field"],
)
def test_a_refused_upload_names_the_field_and_the_fault(
    service: "Service", body: bytes, field: str, message: str
) -> None:
    answer = service.http.post("/v1/visualizations", content=body, headers={"content-type": MULTIPART})
    (error,) = service.problem(answer, 400, "invalid")["errors"]
    assert error["field"] == field
    assert message in error["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"question": " \n"}, "question"),
        ({"question": "Why?", "options": ["a", " "]}, "options[1]"),
        ({"question": "Why?", "options": ["a"] * 27}, "options"),
        ({"question": "Why?", "options": "a"}, "options"),
        ({"question": "Why?", "answer": ""}, "answer"),
        ({"question": "Why?", "answer": "x\0"}, "answer"),
    ],
)
def test_a_refused_question_names_the_field(service: "Service", body: "Json", field: str) -> None:
    assert service.invalid(service.http.post("/v1/visualizations", json=body)) == [field]


def test_a_question_that_is_too_large_is_told_so(service: "Service") -> None:
    answer = service.http.post("/v1/visualizations", json={"question": "x" * (256 * KIB)})
    assert "question has" in service.problem(answer, 413, "too-large")["detail"]
