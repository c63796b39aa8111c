"""What is wrong with the scripts of a page: no JavaScript, or a call for the network. None of them is run."""

import re
from collections.abc import Iterator, Sequence

import msgspec
import quickjs  # type: ignore[import-untyped]
import tree_sitter_javascript
from tree_sitter import Language, Node, Parser, Query, QueryCursor

COMPILED = "it compiles"
LARGEST_MEMORY = 256 * 1024 * 1024
NETWORK = (
    *("fetch", "XMLHttpRequest", "WebSocket", "EventSource", "WebTransport", "RTCPeerConnection"),
    *("importScripts", "Worker", "SharedWorker"),
)
"""Names by which the global object reaches the network, or other scripts."""
ABSOLUTE = re.compile(r"\s*(?:https?:|wss?:|ftp:|//)", re.IGNORECASE)
MARKUP = re.compile(
    r"""(?:\b(?:src|href|srcset|poster|action)\s*=|url\(|@import)\s*["']?\s*((?:https?:|ftp:)?//[^\s"')>]*)""",
    re.IGNORECASE,
)
"""An outside URL in markup or CSS that a script puts together."""
ONE_OF = " ".join(f'"{name}"' for name in NETWORK)
LANGUAGE = Language(tree_sitter_javascript.language())
QUERY = Query(
    LANGUAGE,
    f"""
    ((identifier) @network (#any-of? @network {ONE_OF}))
    (member_expression object: (identifier) @global property: (property_identifier) @reached
      (#any-of? @global "window" "self" "globalThis") (#any-of? @reached {ONE_OF}))
    (subscript_expression object: (identifier) @global index: (string (string_fragment) @reached)
      (#any-of? @global "window" "self" "globalThis") (#any-of? @reached {ONE_OF}))
    ((property_identifier) @reached (#eq? @reached "sendBeacon"))
    (import_statement) @import
    (export_statement source: (string)) @import
    (call_expression function: (import)) @import
    (assignment_expression left: (member_expression property: (property_identifier) @place) right: (_) @url
      (#any-of? @place "src" "href" "srcset" "poster" "location"))
    (assignment_expression left: (identifier) @place right: (_) @url (#eq? @place "location"))
    (call_expression function: (member_expression property: (property_identifier) @place)
      arguments: (arguments (_) @url)
      (#any-of? @place "setAttribute" "setAttributeNS"))
    (call_expression function: (member_expression object: (_) @of property: (property_identifier) @place)
      arguments: (arguments . (_) @url)
      (#match? @of "(^|[.])(location|window)$") (#any-of? @place "assign" "replace" "open"))
    (string_fragment) @text
    (function_declaration name: (identifier) @declared)
    (generator_function_declaration name: (identifier) @declared)
    (class_declaration name: (identifier) @declared)
    (variable_declarator name: (identifier) @declared)
    (formal_parameters (identifier) @declared)
    (arrow_function parameter: (identifier) @declared)
    """,
)


class Script(msgspec.Struct, frozen=True):
    """A piece of code, and where in the page it stands."""

    where: str
    code: str
    module: bool = False
    handler: bool = False
    """It is the body of a function, as in `onclick`."""


def script_findings(scripts: Sequence[Script]) -> Iterator[str]:
    """What is wrong with the scripts of one page, which share their global names.

    What does not compile is looked at no further: to mend it can take tree-sitter minutes.
    """
    wrong = {script: said for script in scripts if (said := _syntax_error(script)) is not None}
    yield from (f"{script.where}: {said}" for script, said in wrong.items())
    parsed = [(script, _captures(script.code)) for script in scripts if script not in wrong]
    declared = {_text(node) for _, found in parsed for node in found.get("declared", [])}
    for script, found in parsed:
        yield from (f"{script.where}, line {line}: {what}" for line, what in _asked(found, declared))


def _asked(found: dict[str, list[Node]], declared: set[str]) -> list[tuple[int, str]]:
    """What is asked of the network, by line. A name that the page declares is its own."""
    asked = set()
    for node in found.get("network", []):
        if _text(node) not in declared:
            asked.add((_line(node), f"{_text(node)} asks for what is outside the page"))
    for node in found.get("reached", []):
        asked.add((_line(node), f"{_text(node)} asks for what is outside the page"))
    for node in found.get("import", []):
        asked.add((_line(node), "it imports what is outside the page"))
    for node in found.get("url", []):
        if ABSOLUTE.match(written := _text(node).strip("'\"`")) and "www.w3.org/" not in written:
            asked.add((_line(node), f"it leads outside the page: {written}"))
    for node in found.get("text", []):
        if markup := MARKUP.search(_text(node)):
            asked.add((_line(node), f"it leads outside the page: {markup[1]}"))
    return sorted(asked)


def _captures(code: str) -> dict[str, list[Node]]:
    return QueryCursor(QUERY).captures(Parser(LANGUAGE).parse(code.encode(errors="replace")).root_node)


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


def _line(node: Node) -> int:
    return node.start_point[0] + 1


def _syntax_error(script: Script) -> str | None:
    """The words of a JavaScript engine, which compiles all of it and runs the first statement: ours."""
    engine = quickjs.Context()
    engine.set_memory_limit(LARGEST_MEMORY)
    before, code, after = f'throw "{COMPILED}";', script.code, ""
    if script.module:
        before, code, after = f"{before} async function module() {{", _without_imports(code), "}"
    elif script.handler:
        before, after = f"{before} function handler() {{", "}"
    try:
        engine.eval(f"{before}\n{code}\n{after}")
    except quickjs.JSException as error:
        return None if str(error).startswith(COMPILED) else _placed(str(error), script.code)
    return None


def _without_imports(code: str) -> str:
    """A module's code as a function could have it; what it imports is found elsewhere."""
    code = re.sub(r"^\s*import\b(?!\s*[(.])[^;\n]*", "", code, flags=re.MULTILINE)
    code = re.sub(r"(^|[;}])\s*export\s+(?:default\s+)?(?=[\w\[({])", r"\1 ", code, flags=re.MULTILINE)
    return code.replace("import.meta", "({})")


def _placed(said: str, code: str) -> str:
    """`SyntaxError: … at <input>:3:9` as a line of the code, which begins at the second, and the text of that line."""
    message = said.partition("\n")[0]
    place = re.search(r"<input>:(\d+):(\d+)", said)
    lines = code.splitlines()
    line = int(place[1]) - 1 if place else 0
    if not 1 <= line <= len(lines):
        return message
    return f"line {line}: {message}: {lines[line - 1].strip()[:120]}"
