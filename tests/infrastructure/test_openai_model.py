"""The OpenAI model against a small real server that speaks chat completions, well and badly."""

import asyncio
import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from application.language import (
    Analysis,
    Counterpart,
    LanguageModelBusy,
    LanguageModelRefused,
    Page,
    Question,
    Rejected,
    Story,
    Usage,
)
from infrastructure.language.openai import DELAY, OpenAIModel
from tests.chat_server import KEY, Answer, ChatServer, as_json, chat_server, chunk, completion, error, stream

USAGE = Usage("m", 100, 20)
TWICE = Usage("m", 200, 40)
QUESTION = Question("Why is the sky blue?")
ANALYSIS = Analysis(
    type="science", subject="light", difficulty="medium", concepts=["sky", "blue"], asked="Why the sky is blue."
)
STORY = Story(
    title="The long way of the light",
    setting="Above a town at noon.",
    text="Once a ray of light set out.",
    mapping=[Counterpart("the crowd", "molecules of air")],
)
PAGE = f"<!doctype html>\n<html><body>{'<p>sky</p>' * 900}</body></html>\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with chat_server() as server:
        yield server


def asked(server: ChatServer, ask: Callable[[OpenAIModel], Any], *answers: Answer, timeout: float = 10.0) -> Any:
    async def run() -> Any:
        model = OpenAIModel(KEY, server.base_url, "model-of-the-test", timeout)
        try:
            return await ask(model)
        finally:
            await model.aclose()

    server.answers = list(answers)
    return asyncio.run(run())


def analyse(model: OpenAIModel) -> Any:
    return model.analyse(QUESTION)


def tell(model: OpenAIModel) -> Any:
    return model.tell(QUESTION, ANALYSIS)


def draw(model: OpenAIModel) -> Any:
    return draw_with([])(model)


def draw_with(told: list[float]) -> Callable[[OpenAIModel], Any]:
    async def progress(part: float) -> None:
        told.append(part)

    return lambda model: model.draw(QUESTION, ANALYSIS, STORY, progress)


def test_analysis_and_story_are_structured_outputs(server: ChatServer) -> None:
    assert asked(server, analyse, completion(as_json(ANALYSIS))) == replace(ANALYSIS, usage=USAGE)
    assert asked(server, tell, completion(as_json(STORY))) == replace(STORY, usage=USAGE)
    (analysis, story) = server.requests
    assert analysis["model"] == "model-of-the-test"
    assert analysis["messages"][-1] == {"role": "user", "content": QUESTION.question}
    schema = analysis["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["required"] == ["type", "subject", "difficulty", "concepts", "asked"]
    assert schema["schema"]["additionalProperties"] is False
    told = story["response_format"]["json_schema"]["schema"]
    assert told["required"] == ["title", "setting", "text", "mapping"]
    assert told["properties"]["mapping"] == {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"element": {"type": "string"}, "concept": {"type": "string"}},
            "required": ["element", "concept"],
            "additionalProperties": False,
        },
    }
    assert json.loads(story["messages"][-1]["content"])["analysis"]["subject"] == "light"
    assert server.keys == [f"Bearer {KEY}"] * 2


def test_page_is_streamed_and_progress_moves(server: ChatServer) -> None:
    told: list[float] = []
    assert asked(server, draw_with(told), stream(PAGE)) == Page(PAGE, USAGE)
    assert server.requests[0]["stream"] is True
    assert server.requests[0]["stream_options"] == {"include_usage": True}
    assert told == sorted(told)
    assert 3 <= len(told) <= 10


def test_models_are_listed_and_nothing_else_is_asked(server: ChatServer) -> None:
    assert asked(server, lambda model: model.models()) == ["model-of-the-test"]
    assert server.requests == []
    server.models = error(401)
    with pytest.raises(LanguageModelRefused, match="check OPENAI_API_KEY"):
        asked(server, lambda model: model.models())
    server.models = Answer("<html>")
    with pytest.raises(LanguageModelRefused, match="check OPENAI_BASE_URL"):
        asked(server, lambda model: model.models())


def test_a_server_that_counts_no_tokens_bills_none(server: ChatServer) -> None:
    answer = completion(as_json(ANALYSIS))
    del answer.body["usage"]
    assert asked(server, analyse, answer) == ANALYSIS


def test_a_rejected_page_goes_back_with_what_was_found(server: ChatServer) -> None:
    async def progress(part: float) -> None:
        pass

    rejected = Rejected("<!doctype html><p>old", ["line 3: the script is no JavaScript", "it has no end"])
    asked(server, lambda model: model.draw(QUESTION, ANALYSIS, STORY, progress, rejected), stream(PAGE))
    (*_, before, again) = server.requests[0]["messages"]
    assert before == {"role": "assistant", "content": rejected.html}
    assert all(finding in again["content"] for finding in rejected.findings)


def test_what_earlier_answers_cost_is_no_part_of_a_brief(server: ChatServer) -> None:
    asked(server, lambda model: model.tell(QUESTION, replace(ANALYSIS, usage=USAGE)), completion(as_json(STORY)))
    assert "usage" not in server.requests[0]["messages"][-1]["content"]


def test_options_and_answer_are_part_of_what_is_asked(server: ChatServer) -> None:
    choice = Question("Which is it?", options=["red", "blue"], answer="B")
    asked(server, lambda model: model.analyse(choice), completion(as_json(ANALYSIS)))
    assert server.requests[0]["messages"][-1]["content"] == "Which is it?\nA) red\nB) blue\nAnswer: B"


def test_fenced_page_is_unwrapped(server: ChatServer) -> None:
    assert asked(server, draw, stream(f"Here it is:\n```html\n{PAGE}```\nEnjoy!")) == Page(PAGE, USAGE)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_names_its_setting(server: ChatServer, status: int) -> None:
    with pytest.raises(LanguageModelRefused, match="OPENAI_API_KEY"):
        asked(server, analyse, error(status, f"Incorrect API key provided: {KEY}"))


def test_unknown_model_names_its_setting(server: ChatServer) -> None:
    with pytest.raises(LanguageModelRefused, match=r"'model-of-the-test'.*OPENAI_MODEL"):
        asked(server, draw, error(404))


def test_exhausted_account_is_final(server: ChatServer) -> None:
    with pytest.raises(LanguageModelRefused, match="no quota"):
        asked(server, analyse, error(429, code="insufficient_quota"))


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("999999", 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", DELAY),
        ("nan", DELAY),
    ],
)
def test_rate_limit_is_busy_for_as_long_as_it_says(server: ChatServer, retry_after: str, delay: float) -> None:
    with pytest.raises(LanguageModelBusy) as raised:
        asked(server, analyse, error(429, Retry_After=retry_after))
    assert raised.value.delay == delay


@pytest.mark.parametrize("status", [408, 500, 502, 503])
def test_failing_server_is_busy_and_asked_only_once(server: ChatServer, status: int) -> None:
    with pytest.raises(LanguageModelBusy, match=str(status)):
        asked(server, draw, error(status))
    assert len(server.requests) == 1


def test_refused_request_says_why(server: ChatServer) -> None:
    with pytest.raises(LanguageModelRefused, match="context too long") as raised:
        asked(server, analyse, error(400, f"context too long for {KEY}"))
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("ask", [analyse, draw])
def test_silent_server_is_busy_once_time_is_up(server: ChatServer, ask: Callable[[OpenAIModel], Any]) -> None:
    with pytest.raises(LanguageModelBusy, match="too long"):
        asked(server, ask, Answer(server.hang), timeout=0.2)


def test_unreachable_server_is_busy() -> None:
    async def run() -> None:
        model = OpenAIModel(KEY, "http://127.0.0.1:9/v1", "m")
        try:
            await model.analyse(QUESTION)
        finally:
            await model.aclose()

    with pytest.raises(LanguageModelBusy, match="cannot be reached"):
        asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        stream(PAGE, finish_reason=None, cut=True),
        stream(PAGE, finish_reason=None),
        Answer([chunk({"content": PAGE}, None), {"error": {"message": "overloaded"}}]),
    ],
    ids=["connection cut", "no finish", "error within"],
)
def test_cut_stream_is_busy_and_no_half_page(server: ChatServer, answer: Answer) -> None:
    with pytest.raises(LanguageModelBusy):
        asked(server, draw, answer)


@pytest.mark.parametrize(
    ("unusable", "reason"),
    [
        (completion("{not json"), "schema"),
        (completion(as_json(STORY)), "schema"),
        (completion("", refusal="I would rather not."), "rather not"),
        (completion('{"type', finish_reason="length"), "length limit"),
        (completion(None), "empty"),
        (Answer("{half", status=200), "JSON"),
        (Answer({}), "no chat completion"),
    ],
)
def test_unusable_answer_is_asked_for_once_more_with_the_reason(
    server: ChatServer, unusable: Answer, reason: str
) -> None:
    answer = asked(server, analyse, unusable, completion(as_json(ANALYSIS)))
    billed = isinstance(unusable.body, dict) and "usage" in unusable.body
    assert answer == replace(ANALYSIS, usage=TWICE if billed else USAGE)
    assert reason in server.requests[1]["messages"][-1]["content"]


def test_second_refusal_is_final(server: ChatServer) -> None:
    refused = completion(None, refusal="I would rather not.")
    with pytest.raises(LanguageModelRefused, match="I would rather not"):
        asked(server, tell, refused, refused)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "page",
    [
        stream("I cannot draw."),
        stream(PAGE[:-10]),
        stream(PAGE, finish_reason="length"),
        stream(PAGE.replace("sky", "\ud800", 1)),
    ],
    ids=["no page", "half a page", "length limit", "half a character"],
)
def test_page_that_is_none_is_asked_for_once_more(server: ChatServer, page: Answer) -> None:
    assert asked(server, draw, page, stream(PAGE)) == Page(PAGE, TWICE)
    with pytest.raises(LanguageModelRefused, match="two answers"):
        asked(server, draw, page, page)


def test_failing_progress_is_not_blamed_on_the_model(server: ChatServer) -> None:
    async def fail(part: float) -> None:
        raise ValueError("the lease is lost")

    with pytest.raises(ValueError, match="the lease is lost"):
        asked(server, lambda model: model.draw(QUESTION, ANALYSIS, STORY, fail), stream(PAGE))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_key_is_in_no_error_and_no_traceback(server: ChatServer, status: int) -> None:
    with pytest.raises((LanguageModelRefused, LanguageModelBusy)) as raised:
        asked(server, analyse, error(status, f"not with {KEY}"))
    assert KEY not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("key", ["", "sk-with space", "sk-línea", "sk-two\nlines"])
def test_key_that_no_header_can_carry_is_refused_unquoted(key: str) -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as raised:
        OpenAIModel(key, None, "m")
    assert not key or key not in str(raised.value)
