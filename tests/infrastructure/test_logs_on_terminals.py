"""What a caller wrote, and an error repeats, is shown by a log for people, and acted on by no terminal."""

import json

import pytest

from tests.infrastructure.test_logs import logged

PROGRAM = """
import logging, sys
import structlog
from infrastructure.logs import configure

configure(sys.argv[1])
WORDS = "\\x1b]0;title\\x07 \\x9b2J \\u202e"
try:
    raise ValueError(f"no such order: {WORDS}")
except ValueError:
    structlog.get_logger().exception("handler.failed", reason=f"no paper {WORDS}")
logging.getLogger("shop").warning("no ink %s", WORDS)
"""


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_terminal_acts_on_nothing_that_a_caller_wrote(style: str) -> None:
    said = logged(PROGRAM, style)
    assert not set("\x1b\x07\x9b\u202e") & set(said)
    for words in ("no such order", "no paper", "no ink"):
        assert words in said
    if style == "json":
        assert json.loads(said.splitlines()[0])["reason"] == "no paper \x1b]0;title\x07 \x9b2J \u202e"
    else:
        assert said.count(r"\x1b]0;title\x07 \x9b2J \u202e") == 3
