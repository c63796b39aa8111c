"""What a page must be: one whole HTML document that asks nothing of the network, whose scripts are JavaScript."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import unquote

import html5lib  # type: ignore[import-untyped]
import msgspec
import tinycss2  # type: ignore[import-untyped]

from application.scripts import Script, script_findings

MAX_PAGE = 512 * 1024
"""Bytes a page may have."""
DEEPEST = 512
"""Elements within each other: Chromium nests no deeper, and the time of the parser grows with the square."""
MOST_FINDINGS = 20
LONGEST_FINDING = 300
PAGE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; media-src data:; form-action 'none'; base-uri 'none'"
)
"""The Content-Security-Policy under which a page is shown, and opened when it is checked."""
URL_ATTRIBUTES = frozenset(
    ("src", "href", "poster", "data", "action", "formaction", "background", "manifest", "ping", "codebase", "longdesc")
)
JAVASCRIPT = frozenset(("", "module", "text/javascript", "application/javascript", "text/ecmascript"))
WITHIN = re.compile(r"#|data:|blob:|about:blank|javascript:", re.IGNORECASE)
"""How a URL begins that leads to nowhere outside the page."""
CUT_OFF = re.compile(r"eof-in-|expected-named-closing-tag-but-got-eof|expected-closing-tag-but-got-eof")


class Opened(msgspec.Struct, frozen=True):
    """What a browser says of a page; `browser` is its name and version."""

    browser: str
    findings: list[str]


class Browser(Protocol):
    """The port to a browser that opens a page as a reader's would, with PAGE_POLICY and without a network."""

    async def open(self, html: str) -> Opened | None:
        """None when there is no browser, or none that works. Bounded in time."""
        ...


async def check_page(html: str, browser: Browser) -> Opened:
    """What is wrong with a page; nothing, if it may be shown. `browser` is empty when no browser opened it."""
    if (size := len(html.encode())) > MAX_PAGE:
        return Opened("", [f"the page has {size} bytes, more than {MAX_PAGE}"])
    findings = await asyncio.to_thread(page_findings, html)
    opened = await browser.open(html)
    found = [*findings, *(opened.findings if opened else [])]
    return Opened(opened.browser if opened else "", [_clipped(finding) for finding in found[:MOST_FINDINGS]])


def page_findings(html: str) -> list[str]:
    """What is wrong with a page that no browser is needed to see."""
    parser = html5lib.HTMLParser(_Tree, namespaceHTMLElements=False)
    try:
        root = parser.parse(html)
    except _TooDeep:
        line, _ = parser.tokenizer.stream.position()
        return [f"line {line}: more than {DEEPEST} elements stand within each other"]
    elements = [element for element in root.iter() if isinstance(element.tag, str)]
    scripts = list(_scripts(elements))
    return [
        *_document_findings(parser.errors, root),
        *(f"{where} leads outside the page: {url.strip()}" for where, url in _outside(elements)),
        *script_findings(scripts),
        *(finding for element in elements if (inner := element.get("srcdoc")) for finding in page_findings(inner)),
    ]


class _TooDeep(Exception):
    """Elements stand within each other beyond DEEPEST."""


class _Tree(html5lib.getTreeBuilder("etree")):  # type: ignore[misc]
    """html5lib's own tree, which grows no deeper than DEEPEST."""

    def insertElementNormal(self, token: Any) -> Any:  # noqa: N802  html5lib's name
        if len(self.openElements) >= DEEPEST:
            raise _TooDeep
        return super().insertElementNormal(token)


def _document_findings(errors: list[tuple[tuple[int, int], str, dict[str, str]]], root: Any) -> Iterator[str]:
    """Browsers mend almost everything: what counts is what a reader would miss."""
    for (line, _), code, said in errors:
        if "doctype" in code and line <= 1:
            yield "it does not begin with <!doctype html>"
        elif CUT_OFF.match(code):
            yield f"line {line}: it ends within {said.get('name', 'what is not closed')} ({code})"
    body = root.find("body")
    if body is None or not (len(body) or (body.text or "").strip()):
        yield "it has no content: its body is empty"


def _outside(elements: list[Any]) -> Iterator[tuple[str, str]]:
    """Where a URL stands that leads outside, and the URL."""
    for element in elements:
        tag = _local(element.tag)
        for name, value in element.attrib.items():
            for url in _urls_of(tag, _local(name), value):
                if not _within(url):
                    yield f"{_local(name)} of <{tag}>", url
        if tag == "style":
            yield from (("the CSS of <style>", url) for url in css_urls(element.text or "") if not _within(url))


def _urls_of(tag: str, name: str, value: str) -> Iterator[str]:
    if name in URL_ATTRIBUTES and not (name == "data" and tag != "object"):
        yield value
    elif name in ("srcset", "imagesrcset"):
        yield from re.findall(r"[\s,]*(\S*[^\s,])(?:\s[^,]*)?(?:,|$)", value)
    elif (
        tag == "meta" and name == "content" and (refresh := re.search(r"^\s*[\d.]*\s*[;,]?\s*url\s*=(.*)", value, re.I))
    ):
        yield refresh[1].strip("'\" ")
    elif "(" in value or "@" in value:
        yield from css_urls(value)


def css_urls(css: str) -> Iterator[str]:
    """The URLs that CSS asks for: of `url()`, `src()`, `image-set()` and `@import`."""
    left = [*reversed(tinycss2.parse_component_value_list(css, skip_comments=True))]
    importing = False
    while left:
        token = left.pop()
        if token.type == "url" or (token.type == "string" and importing):
            yield token.value
        elif token.type == "function" and token.lower_name in ("url", "src", "image", "image-set", "-webkit-image-set"):
            yield from (inner.value for inner in token.arguments if inner.type == "string")
        if token.type != "whitespace":
            importing = token.type == "at-keyword" and token.lower_value == "import"
        left.extend(reversed(getattr(token, "arguments", None) or getattr(token, "content", None) or []))


def _within(url: str) -> bool:
    """Browsers pass over blanks and line ends in URLs."""
    bare = re.sub(r"[\t\n\r]", "", url).strip("\0\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f \x1f")
    return not bare or bool(WITHIN.match(bare))


def _scripts(elements: list[Any]) -> Iterator[Script]:
    number = 0
    for element in elements:
        tag = _local(element.tag)
        if tag == "script":
            number += 1
            type = (element.get("type") or "").strip().lower()
            if type in JAVASCRIPT:
                yield Script(f"script {number}", "".join(element.itertext()), module=type == "module")
        for name, value in element.attrib.items():
            if re.fullmatch(r"on[a-z]+", _local(name)):
                yield Script(f"{_local(name)} of <{tag}>", value, handler=True)
            elif code := re.match(r"\s*javascript:(.*)", value, re.IGNORECASE | re.DOTALL):
                yield Script(f"{_local(name)} of <{tag}>", unquote(code[1]))


def _local(name: str) -> str:
    return name.rpartition("}")[2].rpartition(":")[2].lower()


def _clipped(finding: str) -> str:
    one_line = " ".join(finding.split())
    return one_line if len(one_line) <= LONGEST_FINDING else one_line[: LONGEST_FINDING - 1] + "…"
