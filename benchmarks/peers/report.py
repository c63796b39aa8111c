"""What was compared, as a table and as a chart: medians with least and most, and ratios within each round."""

import statistics
from collections.abc import Sequence
from html import escape

from benchmarks.peers.comparison import (
    BETTER_LESS,
    BULK,
    IDLE_50,
    IDLE_95,
    MANY,
    MEASURES,
    ONE,
    PROCESSED,
    Comparison,
)
from benchmarks.peers.peers import BARE_LOG, JOBLEDGER

GOALS = {
    BULK: "≥ 0.75",
    PROCESSED[1]: "≥ 1.25",
    PROCESSED[2]: "≥ 1",
    ONE: "≥ 1",
    MANY: "≥ 3",
    IDLE_50: "≤ 1",
    IDLE_95: "≤ 1",
}
"""Of the best peer's, as a ratio."""
LIMITS = {PROCESSED[1]: "≥ 0.75"}
"""Of the bare log's."""


def tables(comparison: Comparison) -> str:
    """Markdown: what each did, ratios to the best peer within each round, and who is absent and why."""
    names = _names(comparison)
    lines = [f"| measure | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for measure in MEASURES:
        cells = [_cell(comparison.values[measure].get(name)) for name in names]
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    lines += [
        "",
        "| jobledger / the best peer, within each round | median | least | most | goal |",
        "|---|---:|---:|---:|---|",
    ]
    for measure in MEASURES:
        lines += _ratio(measure, _best(comparison, measure), comparison, GOALS)
    bare = BARE_LOG.name
    if any(bare in values for values in comparison.values.values()):
        lines += ["", "| jobledger / the bare log | median | least | most | goal |", "|---|---:|---:|---:|---|"]
        for measure in MEASURES:
            lines += _ratio(measure, comparison.values[measure].get(bare, []), comparison, LIMITS)
    lines += ["", "| peer | release | settings |", "|---|---|---|"]
    for peer in comparison.peers:
        lines.append(f"| {peer.name} | {', '.join(peer.requirements) or 'this one'} | {peer.settings} |")
    for what, reason in comparison.absent.items():
        lines.append(f"\nNot measured: {what}: {reason}")
    return "\n".join(lines)


def chart(comparison: Comparison, title: str) -> str:
    """SVG: a panel for each measure, a bar for each peer, with a line from the least to the most. Light and dark."""
    names = _names(comparison)
    panels = [measure for measure in MEASURES if comparison.values[measure]]
    height = len(names) * ROW + 52
    rows = -(-len(panels) // 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {rows * height + 56}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{rows * height + 56}"/>',
        f'<text class="title" x="24" y="34">{escape(title)}</text>',
    ]
    for n, measure in enumerate(panels):
        parts.append(f'<g transform="translate({24 + n % 2 * WIDTH // 2} {56 + n // 2 * height})">')
        parts += _panel(measure, comparison, names)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


WIDTH, ROW, LABEL, BAR = 1000, 24, 108, 240
STYLE = """
svg { --ground: #fff; --text: #1f2328; --quiet: #59636e; --ours: #0b6e4f; --theirs: #9aa4ae; --range: #1f2328 }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --text: #f0f6fc; --quiet: #9198a1; --ours: #3fb68b; --theirs: #4b545e; --range: #f0f6fc }
}
text { font: 13px system-ui, sans-serif; fill: var(--text) }
.title { font-size: 18px; font-weight: 600 } .measure { font-weight: 600 } .quiet { fill: var(--quiet) }
.ground { fill: var(--ground) } .ours { fill: var(--ours) } .theirs { fill: var(--theirs) }
.range { stroke: var(--range); stroke-width: 1.5 } .end { text-anchor: end }
"""


def _panel(measure: str, comparison: Comparison, names: Sequence[str]) -> list[str]:
    values = comparison.values[measure]
    longest = max(max(one) for one in values.values())
    better = "less is better" if measure in BETTER_LESS else "more is better"
    parts = [f'<text class="measure" y="16">{escape(measure)} <tspan class="quiet">{better}</tspan></text>']
    for n, name in enumerate(names):
        y = 28 + n * ROW
        parts.append(f'<text class="end" x="{LABEL - 8}" y="{y + 14}">{escape(name)}</text>')
        if name not in values:
            parts.append(f'<text class="quiet" x="{LABEL}" y="{y + 14}">–</text>')
            continue
        median, least, most = (n / longest * BAR for n in _spread(values[name]))
        kind = "ours" if name == JOBLEDGER.name else "theirs"
        parts.append(f'<rect class="{kind}" x="{LABEL}" y="{y + 2}" width="{max(median, 1):.1f}" height="16" rx="2"/>')
        parts.append(
            f'<line class="range" x1="{LABEL + least:.1f}" x2="{LABEL + most:.1f}" y1="{y + 10}" y2="{y + 10}"/>'
        )
        parts.append(f'<text x="{LABEL + most + 8:.1f}" y="{y + 14}">{_number(statistics.median(values[name]))}</text>')
    return parts


def _names(comparison: Comparison) -> list[str]:
    measured = {name for values in comparison.values.values() for name in values}
    known = [peer.name for peer in comparison.peers]
    return [*known, *sorted(measured - set(known))]


def _best(comparison: Comparison, measure: str) -> list[float]:
    """The value of each round of the best peer that has workers: a recorder alone does less."""
    workers = {peer.name for peer in comparison.peers if peer.works} - {JOBLEDGER.name}
    others = [values for name, values in comparison.values[measure].items() if name in workers]
    choose = min if measure in BETTER_LESS else max
    return [choose(each) for each in zip(*others, strict=False)]


def _ratio(measure: str, other: Sequence[float], comparison: Comparison, goals: dict[str, str]) -> list[str]:
    each = [a / b for a, b in zip(comparison.values[measure].get(JOBLEDGER.name, []), other, strict=False)]
    if not each:
        return []
    median, least, most = _spread(each)
    return [f"| {measure} | {median:.2f} | {least:.2f} | {most:.2f} | {goals.get(measure, '')} |"]


def _cell(values: Sequence[float] | None) -> str:
    if not values:
        return "–"
    median, least, most = map(_number, _spread(values))
    return f"{median} ({least}–{most})" if len(values) > 1 else median


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)
