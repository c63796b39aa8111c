"""Questions that come as a form, with a file or with a field."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.interfaces.conftest import Service


@pytest.mark.parametrize("name", ['; filename="q.txt"', '; filename="Q.MD"', ""], ids=["a text", "Markdown", "a field"])
def test_a_question_may_come_in_a_form(service: "Service", name: str) -> None:
    body = f'--b\r\nContent-Disposition: form-data; name="file"{name}\r\n\r\n What is 2 × 2?\r\n--b--\r\n'.encode()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = service.http.post("/v1/visualizations", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["input"] == {"question": "What is 2 × 2?"}


def test_the_options_of_an_uploaded_question_are_read(service: "Service") -> None:
    text = "\ufeffWhich is blue?\r\n\r\nA) the sky\r\nB) the grass\r\n\r\nAnswer: A\r\n"
    answer = service.http.post("/v1/visualizations", files={"file": ("q.txt", text.encode())})
    assert answer.status_code == 202, answer.text
    asked = {"question": "Which is blue?", "options": ["A) the sky", "B) the grass"], "answer": "A"}
    assert answer.json()["input"] == asked
    shown = service.http.get(f"/v1/visualizations/{answer.json()['id']}").json()
    assert {name: shown[name] for name in asked} == asked


@pytest.mark.parametrize("line", ["x" * 15 + "\n", '"What?"\n'], ids=["long lines", "quotes and short lines"])
def test_a_file_may_have_all_of_256_kibibytes(service: "Service", line: str) -> None:
    text = (line * (256 * 1024))[: 256 * 1024 - 1] + "x"
    answer = service.http.post("/v1/visualizations", files={"file": ("q.txt", text.encode())})
    assert answer.status_code == 202, answer.text
    assert answer.json()["input"]["question"] == text
