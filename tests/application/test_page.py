"""What a page must be: one whole document, nothing from outside, and scripts that are JavaScript."""

import asyncio
import re

import pytest

from application.page import DEEPEST, MAX_PAGE, Opened, check_page, css_urls, page_findings

GOOD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sorting</title>
<style>/* @import "no.css" */ a { fill: url(#g); src: url(data:font/woff2;base64,AA) }
a::after { content: "@import url(x)" }</style>
</head><body><h1>It is sorted</h1><p>Unclosed, as HTML allows<p>And again
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><use xlink:href="#a"/><rect fill="url(#g)"/></svg>
<a href="#top">Up</a> <a href="javascript:void(0)">Step</a>
<img src="data:image/png;base64,AA" srcset="data:image/png,a 2x">
<button onclick="step(); return false">Step</button><iframe srcdoc="&lt;!doctype html&gt;&lt;p&gt;in"></iframe>
<script type="application/json">{"no": script,}</script>
<script>
// fetch("https://example.com") is only spoken of
class Stack { #items = []; static of(...items) { return new Stack() } get size() { return this.#items?.length ?? 0 } }
const svg = document.createElementNS("http://www.w3.org/2000/svg", "g"), text = "see https://example.com";
cache.fetch(1); const edge = {src: "A", href: "B"}; edge.src = "C"; "https://a".replace("https://a", "b");
label: for (const [a, b] of Object.entries({x: 1_000n})) { if (/[/"']/.test(a)) continue label }
const later = async () => { for await (const x of y()) await x };
</script>
<script type="module">const { a } = await Promise.resolve({ a: 1 });
export const b = import.meta.url;</script>
</body></html>
"""


def in_script(code: str) -> list[str]:
    return page_findings(f"<!doctype html><p>x</p><script>{code}</script>")


def in_body(markup: str) -> list[str]:
    return page_findings(f"<!doctype html><body><p>x</p>{markup}</body>")


def test_a_good_page_has_no_findings() -> None:
    assert page_findings(GOOD) == []


@pytest.mark.parametrize(
    ("page", "finding"),
    [
        ("<p>x</p>", "does not begin with <!doctype html>"),
        ("<!doctype html><html><body> \n </body></html>", "its body is empty"),
        ("<!doctype html><p>x</p><!-- and so on", "line 1: it ends within"),
        ("<!doctype html><p>x</p>\n<script>let x = 1;", "line 2: it ends within script"),
        ("<!doctype html><p>x</p>\n<p class='a", "it ends within"),
        ("<!doctype html><p>x</p><style>a { b: c }", "it ends within style"),
    ],
)
def test_a_page_that_is_not_whole_is_found(page: str, finding: str) -> None:
    assert any(finding in found for found in page_findings(page))


@pytest.mark.parametrize(
    ("markup", "url"),
    [
        ('<img src="https://a.example/b.png">', "https://a.example/b.png"),
        ('<img src=" \n//a.example/b.png">', "//a.example/b.png"),
        ('<img src="b.png">', "b.png"),
        ('<IMG SRC="h&#116;tps://a.example">', "https://a.example"),
        ('<img srcset="data:image/png,a 1x, b.png 2x">', "b.png"),
        ('<a href="https://a.example">x</a>', "https://a.example"),
        ('<link rel="stylesheet" href="a.css">', "a.css"),
        ('<script src="a.js"></script>', "a.js"),
        ('<svg><image xlink:href="a.svg"/></svg>', "a.svg"),
        ('<svg><use href="a.svg#b"/></svg>', "a.svg#b"),
        ('<video poster="a.jpg"></video>', "a.jpg"),
        ('<object data="a.swf"></object>', "a.swf"),
        ('<form action="/go"></form>', "/go"),
        ('<base href="https://a.example/">', "https://a.example/"),
        ('<meta http-equiv="refresh" content="0; url=https://a.example">', "https://a.example"),
        ('<p style="background: url(  a.png  )">x</p>', "a.png"),
        ('<rect fill="url(https://a.example/#g)"></rect>', "https://a.example/#g"),
        ("<style>@import 'a.css';</style>", "a.css"),
        ("<style>@import url(a.css) screen;</style>", "a.css"),
        (r"<style>p { background: u\72l('https://a.example') }</style>", "https://a.example"),
        ("<style>@media print { p { background: image-set('a.png' 1x) } }</style>", "a.png"),
        ("<style>@font-face { src: local('x'), url(a.woff2) }</style>", "a.woff2"),
        ('<iframe srcdoc="&lt;!doctype html&gt;&lt;img src=a.png&gt;"></iframe>', "a.png"),
    ],
)
def test_a_url_that_leads_outside_is_found(markup: str, url: str) -> None:
    assert [finding.partition(" leads outside the page: ")[2] for finding in in_body(markup)] == [url]


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        ('fetch("/x")', "fetch asks for what is outside the page"),
        ("const get = fetch; get('x')", "fetch asks"),
        ("window.fetch('x')", "fetch asks"),
        ("globalThis['fetch']('x')", "fetch asks"),
        ("new XMLHttpRequest()", "XMLHttpRequest asks"),
        ("\n\nnew WebSocket('wss://a.example')", "script 1, line 3: WebSocket asks"),
        ("new EventSource('/events')", "EventSource asks"),
        ("navigator.sendBeacon('/x')", "sendBeacon asks"),
        ("new Worker('a.js')", "Worker asks"),
        ("import('a.js')", "it imports"),
        ("image.src = 'https://a.example/b.png'", "https://a.example/b.png"),
        ("image.src = `//a.example/${name}`", "//a.example/${name}"),
        ("image.setAttribute('src', 'https://a.example')", "https://a.example"),
        ("location = 'https://a.example'", "https://a.example"),
        ("window.location.href = 'https://a.example'", "https://a.example"),
        ("location.replace('https://a.example')", "https://a.example"),
        ("window.open('https://a.example')", "https://a.example"),
        ("body.innerHTML = '<img src=\"https://a.example/b.png\">'", "https://a.example/b.png"),
        ("style.textContent = '@import \"https://a.example/b.css\"'", "https://a.example/b.css"),
    ],
)
def test_a_script_that_asks_for_what_is_outside_is_found(code: str, finding: str) -> None:
    (found,) = in_script(code)
    assert finding in found


def test_a_module_that_imports_is_found_and_is_no_syntax_error() -> None:
    found = page_findings("<!doctype html><p>x</p><script type=module>import { a } from './a.js';\na();</script>")
    assert found == ["script 1, line 1: it imports what is outside the page"]


@pytest.mark.parametrize(
    "own", ["function fetch(n) {} fetch(1)", "const run = fetch => fetch(1)", "class Worker {} new Worker()"]
)
def test_a_name_of_the_pages_own_is_not_the_networks(own: str) -> None:
    assert in_script(own) == []


@pytest.mark.parametrize(
    "code",
    [
        "let a = ;",
        "foo(",
        "const a;",
        "let a; let a;",
        "x = {a: 1,, b: 2}",
        "for (let i = 0; i < 3; i++ {}",
        "'abc",
        "}); alert(1); (() => {",
        "*/ alert(1) /*",
    ],
)
def test_a_script_that_is_no_javascript_is_found_with_its_line(code: str) -> None:
    (found,) = in_script(f"step();\n{code}")
    assert found.startswith("script 1: ")
    assert "SyntaxError" in found


def test_a_script_that_is_hard_to_mend_is_not_mended() -> None:
    (found,) = in_script("(" * 100_000 + "fetch('x')")
    assert found == "script 1: RangeError: Maximum call stack size exceeded"


def test_a_syntax_error_shows_the_line_it_is_in() -> None:
    assert in_script("step();\n  let a = ;")[0].endswith("let a = ;")
    assert in_script("step();\n  let a = ;")[0].startswith("script 1: line 2: ")


def test_scripts_in_attributes_are_read_too() -> None:
    (found,) = in_body('<button onclick="step(">x</button>')
    assert found.startswith("onclick of <button>: ")
    (found,) = in_body("<a href=\"javascript:fetch('x')\">x</a>")
    assert found == "href of <a>, line 1: fetch asks for what is outside the page"


def test_no_script_of_a_page_is_run() -> None:
    assert in_script("while (true) {}") == []
    assert in_script("throw new Error('run')") == []
    in_body('<script type="module">} while (true) {} {</script>')  # it would never return
    in_body('<button onclick="} while (true) {} {">x</button>')


def test_a_url_in_a_comment_or_a_string_of_css_is_none() -> None:
    assert list(css_urls("/* url(a) */ p { content: 'url(b)' } /* @import 'c'; */")) == []


@pytest.mark.parametrize("depth", [DEEPEST - 2, 200, 2])
def test_elements_may_stand_deep_within_each_other(depth: int) -> None:
    assert page_findings(f"<!doctype html>{'<div>' * depth}x{'</div>' * depth}") == []


@pytest.mark.parametrize("opened", ["<div>", "<table><tr><td>", "<svg>"])
def test_a_page_that_is_too_deep_is_read_no_further(opened: str) -> None:
    """The whole of it would take minutes: how far it was read is seen by the line."""
    lines = f"{opened}\n" * 30_000
    (finding,) = page_findings(f"<!doctype html>\n{lines}")
    found = re.fullmatch(rf"line (\d+): more than {DEEPEST} elements stand within each other", finding)
    assert found is not None
    assert int(found[1]) <= DEEPEST


def test_findings_are_bounded_in_number_and_length() -> None:
    class NoBrowser:
        async def open(self, html: str) -> Opened | None:
            return None

    many = "<!doctype html>" + "".join(f'<img src="{"x" * 1000}{n}">' for n in range(100))
    checked = asyncio.run(check_page(many, NoBrowser()))
    assert len(checked.findings) == 20
    assert max(map(len, checked.findings)) == 300
    assert asyncio.run(check_page("x" * (MAX_PAGE + 1), NoBrowser())).findings == [
        f"the page has {MAX_PAGE + 1} bytes, more than {MAX_PAGE}"
    ]
