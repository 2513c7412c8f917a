"""A replay's result as one self-contained HTML page.

Belongs here: markup, style and the two pictures as SVG. Does not: any figure that is not in the result.
No script, no font, no image from anywhere else; light or dark as the reader's system is, readable on
a phone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from retrain_assets.replay.render import table_rows

if TYPE_CHECKING:
    from retrain_assets.replay.result import Result
    from retrain_assets.replay.staleness import Age

__all__ = ["replay_page"]

_WIDTH, _HEIGHT = 420, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 410, 14, 248
_LINEAR_UP_TO = 10
"""Retrainings up to which the axis of the frontier is linear; logarithmic beyond."""
_LETTER, _LINE = 6.6, 12
"""Width and height of a letter of a label, in units of the picture."""

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2530;--muted:#5d6875;--line:#e4e8ee;--page:#f6f7f9;--card:#fff;
--never:#6f8bad;--every:#c26a12;--random:#8a93a0;--combined:#c02f2f;--drift:#2f62c9;
--performance:#1b7a45;--cost:#7745c4;--took:#1b7a45}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--muted:#9ba7b5;--line:#2f3843;--page:#12161b;
--card:#1a2027;--never:#84a3c9;--every:#f0a04b;--random:#a7b0bc;--combined:#ff8a80;--drift:#8ab0ff;
--performance:#5fcf92;--cost:#c3a1ff;--took:#5fcf92}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);
background:var(--page);max-width:1240px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.6rem 0 .2rem;text-wrap:balance}
h2{font-size:1.05rem;margin:0 0 .6rem}.muted{color:var(--muted)}
p{margin:.25rem 0}header{overflow-wrap:anywhere}
.facts{display:flex;flex-wrap:wrap;gap:.4rem 2.2rem;margin:1rem 0}.facts dt{color:var(--muted);
font-size:.8rem}.facts dd{margin:0;font-size:1.15rem;font-weight:600;font-variant-numeric:tabular-nums}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1rem}
section{border:1px solid var(--line);border-radius:12px;padding:1rem 1.1rem;background:var(--card);
min-width:0;margin-top:1rem}.cards section{margin:0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.875rem;
font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{text-align:right;padding:.35rem .7rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
th{color:var(--muted);font-weight:500}td:first-child{color:var(--c);font-weight:600}
.took td:first-child::after{content:" ✓";color:var(--took)}
pre{background:var(--page);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;margin:.4rem 0;
overflow-x:auto;font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}
details{margin:.3rem 0}summary{cursor:pointer}
svg{width:100%;height:auto;display:block}svg text{fill:var(--muted);font-size:11px}
svg .name{fill:var(--c);font-weight:600}svg circle{fill:var(--c)}.grid{stroke:var(--line)}
.best{fill:none;stroke:var(--ink);stroke-dasharray:5 4}.mark{stroke:var(--muted);stroke-dasharray:2 3}
.aging{fill:none;stroke:var(--combined);stroke-width:1.8}.band{fill:var(--combined);fill-opacity:.15}
@media print{body{background:#fff;padding:0}section{break-inside:avoid}}
"""


def replay_page(result: "Result") -> str:
    """The page."""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>Replay: {escape(result.model)}</title><style>{_STYLE}</style></head><body>"
        f"{_head(result)}<div class=cards>"
        f"<section><h2>What each policy would have served</h2>{_frontier(result)}"
        "<p class=muted>Dashed: the best that hindsight could have done with as many retrainings.</p>"
        f"</section><section><h2>Loss of a model by its age</h2>{_aging(result)}"
        f"<p class=muted>{escape(_age_told(result))}</p></section></div>"
        f"<section><h2>Policies</h2>{_table(result)}</section>"
        f"<section><h2>To paste into the spec</h2>{_specs(result)}</section>"
        f"{_notes(result)}</body></html>\n"
    )


def _head(result: "Result") -> str:
    found = result.recommendation
    headline = f"{result.model}: nothing to choose from" if found is None else (
        f"{result.model}: take {found.policy}"
    )  # fmt: skip
    reason = "" if found is None else f"<p>{escape(found.reason)}.</p>"
    better = "larger" if result.direction == "maximize" else "smaller"
    facts = {
        "served": f"{result.first} to {result.last}",
        "partitions": f"{result.partitions:,}",
        "rows": f"{result.rows:,}",
        f"metric, {better} is better": result.metric,
        "models trained": f"{result.trainings:,} in {result.training_seconds:,.0f} CPU s",
    }
    told = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f"<header><h1>{escape(headline)}</h1>{reason}<dl class=facts>{told}</dl></header>"


def _table(result: "Result") -> str:
    header, *rows = table_rows(result)
    took = "" if result.recommendation is None else result.recommendation.policy
    lines = "".join(
        f"<tr{' class=took' if row[0] == took else ''} style='--c:{_colour(row[0])}'>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    heads = "".join(f"<th>{escape(name)}</th>" for name in header)
    return f"<div class=wide><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"


def _specs(result: "Result") -> str:
    found = result.recommendation
    first = "" if found is None else f"<pre>{escape(found.spec)}</pre>"
    return first + "".join(
        f"<details><summary>{escape(one.name)}</summary><pre>{escape(one.spec)}</pre></details>"
        for one in result.policies
        if one.spec and (found is None or one.name != found.policy)
    )


def _notes(result: "Result") -> str:
    notes = list(result.notes)
    if result.baseline is not None:
        notes.insert(
            0, "no change* is a reference, no policy: the last labelled partition's labels"
        )
    return "".join(f"<p class=muted>{escape(note)}.</p>" for note in notes)


def _age_told(result: "Result") -> str:
    if result.max_age is None:
        return "A model's age is not shown to matter, so no max_age is suggested."
    return (
        f"From {result.max_age} partitions on more than {result.matters:.3g} of {result.metric} is lost "
        "against a fresh model: suggested max_age."
    )


def _colour(policy: str) -> str:
    if policy.startswith("every_"):
        return "var(--every)"
    named = ("never", "random", "combined", "drift", "performance", "cost")
    return f"var(--{policy})" if policy in named else "var(--muted)"


# -- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """From a value to a place in the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


def _spanned(values: Sequence[float], start: float, end: float) -> _Scale:
    """The values with 8% of their span beyond either end."""
    low, high = min(values), max(values)
    beyond = 0.08 * (high - low) or 0.01 * (abs(high) or 1.0)
    return _Scale(low - beyond, high + beyond, start, end)


def _of_count(count: float) -> float:
    """Linear up to `_LINEAR_UP_TO`, logarithmic from there on, without a kink."""
    if count <= _LINEAR_UP_TO:
        return count / _LINEAR_UP_TO
    return 1 + math.log(count / _LINEAR_UP_TO)


def _frontier(result: "Result") -> str:
    counts = [one.retrainings for one in result.policies]
    most = max([*counts, *(float(n) for n, _ in result.oracle), 1.0])
    across = _Scale(0.0, _of_count(most), _LEFT + 8, _RIGHT - 8)
    values = [*(one.value for one in result.policies), *(value for _, value in result.oracle)]
    up = _spanned(values, _BOTTOM, _TOP)
    best = " ".join(f"{across(_of_count(n)):.1f},{up(value):.1f}" for n, value in result.oracle)
    points = [(across(_of_count(one.retrainings)), up(one.value)) for one in result.policies]
    names = [one.name for one in result.policies]
    marks = [f"<polyline class=best points='{best}' />"]
    if result.baseline is not None and up.low <= result.baseline <= up.high:
        y = up(result.baseline)
        marks.append(f"<line class=mark x1={_LEFT} x2={_RIGHT} y1={y:.1f} y2={y:.1f} />")
        marks.append(f"<text x={_RIGHT} y={y - 3:.1f} text-anchor=end>no change</text>")
    for one, (x, y), (left, base) in zip(
        result.policies, points, _labels(points, names), strict=True
    ):
        told = f"{one.name}: {one.value:.4f} with {one.retrainings:g} retrainings"
        marks.append(
            f"<g style='--c:{_colour(one.name)}'><title>{escape(told)}</title>"
            f"<circle cx={x:.1f} cy={y:.1f} r=4.5 />"
            f"<text class=name x={left:.1f} y={base:.1f}>{escape(one.name)}</text></g>"
        )
    ticks = [(across(_of_count(n)), f"{n}") for n in (0, 1, 3, 10, 30, 100, 300, 1000) if n <= most]
    return _drawn(
        "metric of each policy over its number of retrainings",
        [*_axes(up, ticks, "retrainings after the first"), *marks],
    )


def _labels(
    points: Sequence[tuple[float, float]], names: Sequence[str]
) -> Iterator[tuple[float, float]]:
    """Where each name begins, its base line: beside its point, clear of points and other names."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for (x, y), name in zip(points, names, strict=True):
        wide = _LETTER * len(name)
        places = [
            (left, base)
            for step in range(8)
            for base in (y + 4 + _LINE * step / 2, y + 4 - _LINE * step / 2)
            for left in (x + 8, x - 10 - wide)
        ]
        inside = [
            (left, base)
            for left, base in places
            if left >= _LEFT and left + wide <= _WIDTH and _TOP - 4 <= base <= _BOTTOM
        ]
        free = (
            place for place in inside
            if not any(_meet((place[0], place[1] - 9, place[0] + wide, place[1] + 2), box)
                       for box in taken)
        )  # fmt: skip
        left, base = next(free, (inside or places)[0])
        taken.append((left, base - 9, left + wide, base + 2))
        yield left, base


_Box = tuple[float, float, float, float]


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _aging(result: "Result") -> str:
    curve = result.staleness
    if not curve:
        return "<p class=muted>There are too few models to tell.</p>"
    judged = [age for age in curve if age.low is not None and age.high is not None]
    bounds = [bound for age in judged for bound in (age.low, age.high) if bound is not None]
    across = _Scale(0.0, float(curve[-1].last), _LEFT + 8, _RIGHT - 8)
    up = _spanned([0.0, result.matters, *(age.loss for age in curve), *bounds], _BOTTOM, _TOP)
    marks = [_band(judged, across, up)]
    line = " ".join(f"{across(_middle(age)):.1f},{up(age.loss):.1f}" for age in curve)
    matters = up(result.matters)
    marks += [
        f"<polyline class=aging points='{line}' />",
        f"<line class=mark x1={_LEFT} x2={_RIGHT} y1={matters:.1f} y2={matters:.1f} />",
    ]
    if result.max_age is not None:
        x = across(result.max_age)
        marks.append(f"<line class=mark x1={x:.1f} x2={x:.1f} y1={_TOP} y2={_BOTTOM} />")
        marks.append(f"<text x={x + 4:.1f} y={_TOP + 8}>max_age {result.max_age}</text>")
    last = curve[-1].last
    step = next(s for s in (1, 5, 10, 20, 50, 100, 200, 500, last) if last / s <= 7)
    ticks = [(across(n), f"{n}") for n in range(0, last + 1, step)]
    told = f"{result.metric} lost against a fresh model, by age"
    return _drawn(told, [*_axes(up, ticks, "age of the model, partitions"), *marks])


def _band(judged: Sequence["Age"], across: _Scale, up: _Scale) -> str:
    if len(judged) < 2:
        return ""
    upper = [
        f"{across(_middle(age)):.1f},{up(age.high):.1f}" for age in judged if age.high is not None
    ]
    lower = [
        f"{across(_middle(age)):.1f},{up(age.low):.1f}" for age in judged if age.low is not None
    ]
    return f"<polygon class=band points='{' '.join([*upper, *reversed(lower)])}' />"


def _middle(age: "Age") -> float:
    return (age.first + age.last) / 2


def _axes(up: _Scale, ticks: Sequence[tuple[float, str]], below: str) -> Iterator[str]:
    for value in _round_values(up.low, up.high):
        y = up(value)
        yield f"<line class=grid x1={_LEFT} x2={_RIGHT} y1={y:.1f} y2={y:.1f} />"
        yield f"<text x={_LEFT - 5} y={y + 4:.1f} text-anchor=end>{value:.4g}</text>"
    for x, label in ticks:
        yield f"<text x={x:.1f} y={_BOTTOM + 16} text-anchor=middle>{label}</text>"
    yield f"<text x={(_LEFT + _RIGHT) / 2} y={_HEIGHT - 8} text-anchor=middle>{below}</text>"


def _round_values(low: float, high: float) -> list[float]:
    """Three to seven multiples of 1, 2 or 5 times a power of ten.

    >>> _round_values(0.597, 0.649)
    [0.6, 0.61, 0.62, 0.63, 0.64]
    """
    power = 10.0 ** math.floor(math.log10(high - low))
    step = next(s * power for s in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / (s * power) < 7)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _drawn(told: str, marks: Sequence[str]) -> str:
    """The picture, with what it shows in words for those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img aria-label="{escape(told)}">'
        f"{''.join(marks)}</svg>"
    )
