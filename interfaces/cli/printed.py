"""Answers as JSON, on a terminal, too."""

import json
from typing import Any

from application.texts import ACTS


def as_json(answer: Any) -> str:
    """In one line: what a terminal acts on stands in strings alone, where JSON has escapes of its own."""
    return ACTS.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(answer, ensure_ascii=False))
