"""A drift report as one self-contained HTML page, worst features first.

Belongs here: markup and style. Does not: counting (`measure.Picture`), outlines of distributions
(`pictures`). No script, no font, no image from anywhere else, so that the page can be mailed and
opened for ever; light or dark as the reader's system is, readable on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import escape

import numpy as np

from retrain_assets.drift.measure import Picture
from retrain_assets.drift.pictures import HEIGHT, outlines, plain, shares
from retrain_assets.drift.render import severity_word, worst_first
from retrain_assets.drift.report import DriftReport, FeatureDrift

__all__ = ["report_page"]

DRAWN = 200
"""Features with a card of their own; a wide table's others are a list, so that the page opens."""

_WIDTH, _TOP, _PLOT, _FOOT, _ROW = 360, 12, 110, 20, 26
_LONGEST_BAR = 5.0
_STATISTICS = {
    "ks": ("KS", ".3g"), "wasserstein_scaled": ("W/sd", ".3g"), "cramers_v": ("V", ".3g"),
    "psi": ("PSI", ".3g"), "js": ("JS", ".3g"), "unseen": ("new", ".2%"),
    "null_rate_change": ("Δ nulls", ".2%"),
}  # fmt: skip

_STYLE = """
:root{color-scheme:light dark;--ref:#6f8bad;--cur:#e8743b;--ink:#1d2530;--muted:#5d6875;
--line:#e4e8ee;--page:#f6f7f9;--card:#fff;--drifted:#b8400c;--stable:#1b7a45;--undecided:#8a5a00}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--muted:#9ba7b5;--line:#2f3843;--page:#12161b;
--card:#1a2027;--ref:#84a3c9;--drifted:#ff9a66;--stable:#5fcf92;--undecided:#f0b94a}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);
background:var(--page);max-width:1240px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.6rem 0 .2rem;text-wrap:balance}
h2{font-size:1.05rem;margin:2.2rem 0 .8rem}h2 small,.muted{color:var(--muted);font-weight:400}
p{margin:.25rem 0}ul{padding-left:1.2rem}header{overflow-wrap:anywhere}
.badge{display:inline-block;padding:.1rem .7rem;border-radius:99px;border:1.5px solid;font-weight:600;
letter-spacing:.02em}
.drifted{color:var(--drifted)}.stable{color:var(--stable)}.undecided{color:var(--undecided)}
.facts{display:flex;flex-wrap:wrap;gap:.4rem 2.2rem;margin:1rem 0}.facts dt{color:var(--muted);
font-size:.8rem}.facts dd{margin:0;font-size:1.15rem;font-weight:600;font-variant-numeric:tabular-nums}
.facts .key::before{content:"";display:inline-block;width:.75em;height:.75em;border-radius:3px;
margin-right:.4em;background:var(--c)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:1rem}
.card{border:1px solid var(--line);border-radius:12px;padding:1rem 1.1rem;background:var(--card);
min-width:0}
.card h3{display:flex;gap:.6rem;align-items:baseline;justify-content:space-between;font-size:1rem;
margin:0;overflow-wrap:anywhere}.card h3 small{flex:none;font-size:.8rem}
.card p{font-size:.875rem;overflow-wrap:anywhere}
.card .muted{font-size:.8rem;font-variant-numeric:tabular-nums}
.bar{position:relative;height:5px;border-radius:3px;background:var(--line);margin:.5rem 0 .6rem}
.bar i{position:absolute;inset:0 auto 0 0;border-radius:3px;background:var(--ref)}
.moved .bar i{background:var(--cur)}.bar b{position:absolute;top:-3px;bottom:-3px;left:20%;width:2px;
background:var(--muted)}
svg{width:100%;height:auto;display:block;margin-top:.6rem;overflow:visible}
svg text{fill:var(--muted);font-size:11px}svg .name{fill:var(--ink)}
.grid{stroke:var(--line)}.r{fill:var(--ref);fill-opacity:.55}
.c{fill:var(--cur);fill-opacity:.22;stroke:var(--cur);stroke-width:1.6}.s{fill:var(--cur)}
.list{columns:16rem;font-size:.875rem}.list li{overflow-wrap:anywhere}
@media print{body{background:#fff;padding:0}.card{break-inside:avoid}}
"""


def report_page(report: DriftReport, pictures: Mapping[str, Picture]) -> str:
    """The page.

    Args:
        report: what was found.
        pictures: distributions by feature; a feature without one is told in words only.
    """
    rows = worst_first(report)
    drifted = [row for row in rows if row.drifted]
    others = [row for row in rows if not row.drifted]
    beside = [replace(row, feature=f"{role}: {row.feature}") for role, row in report.outcomes]
    room = max(0, DRAWN - len(drifted[:DRAWN]))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.verdict)}: {_text(report.current)}</title>"
        f"<style>{_STYLE}</style></head><body>{_head(report)}"
        f"{_features('Beside the features', beside, DRAWN, {})}"
        f"{_features('Drifted', drifted, DRAWN, pictures)}"
        f"{_features('Not drifted', others, room, pictures)}</body></html>\n"
    )


def _head(report: DriftReport) -> str:
    """Verdict, sides, score, what could not be compared, and how it was measured."""
    headline = report.reasons[0] if report.reasons else ""
    notes = "".join(f"<li>{_text(reason)}</li>" for reason in report.news)
    how = "Distances are exact" if report.exact else "Distances are lower ends of certified bounds"
    if report.calibrated_on:
        how += f"; thresholds are calibrated on {report.calibrated_on} partitions of the reference"
    facts = "".join(
        f"<div><dt{colour}>{name}</dt><dd>{value}</dd></div>"
        for name, value, colour in (
            (_text(report.reference), f"{report.n_reference:,} rows", ' class=key style="--c:var(--ref)"'),
            (_text(report.current), f"{report.n_current:,} rows", ' class=key style="--c:var(--cur)"'),
            ("drift score, 0 to 1", f"{report.score:.2f}", ""),
            ("share drifted", f"{report.share_drifted:.0%}", ""),
        )
    )  # fmt: skip
    return (
        f"<header><span class='badge {report.verdict}'>{report.verdict}</span>"
        f"<h1>{_text(headline)}</h1><dl class=facts>{facts}</dl>"
        f"{'<ul>' + notes + '</ul>' if notes else ''}"
        f"<p class=muted>{how}. The mark on a bar is the threshold.</p></header>"
    )


def _features(
    title: str, rows: list[FeatureDrift], n_drawn: int, pictures: Mapping[str, Picture]
) -> str:
    if not rows:
        return ""
    cards = "".join(_card(row, pictures.get(row.feature)) for row in rows[:n_drawn])
    listed = "".join(
        f"<li>{_text(row.feature)} <span class=muted>{_times(row)}</span></li>"
        for row in rows[n_drawn:]
    )
    return (
        f"<section><h2>{title} <small>{len(rows):,}</small></h2>"
        f"<div class=cards>{cards}</div>{f'<ul class=list>{listed}</ul>' if listed else ''}</section>"
    )


def _card(row: FeatureDrift, picture: Picture | None) -> str:
    prefix = f"`{row.feature}`: "
    words = "".join(f"<p>{_text(reason.removeprefix(prefix))}</p>" for reason in row.reasons)
    numbers = " · ".join(
        f"{label} {row.statistics[key]:{form}}"
        for key, (label, form) in _STATISTICS.items()
        if row.statistics.get(key)
    )
    weight = "" if row.importance is None else f" · weight {row.importance:.1%}"
    length = min(row.severity, _LONGEST_BAR) / _LONGEST_BAR
    shade = " class=drifted" if row.drifted else " class=muted"
    drawn = "" if picture is None else _svg(picture)
    return (
        f"<article class='card{' moved' if row.drifted else ''}'><h3>{_text(row.feature)}"
        f"<small{shade}>{severity_word(row)} {_times(row)}</small></h3>"
        f"<div class=bar><i style='width:{length:.1%}'></i><b></b></div>{words}"
        f"<p class=muted>{escape(numbers)}{weight}</p>{drawn}</article>"
    )


def _svg(picture: Picture) -> str:
    """The distributions, with their scale in words for those who cannot see it."""
    height, marks = (_bars if picture.edges is None else _steps)(picture)
    told = "distribution of the reference and the current rows"
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role=img aria-label="{told}">{marks}</svg>'


def _steps(picture: Picture) -> tuple[int, str]:
    """Numbers and times: the reference filled, the current side outlined."""
    drawn, bottom = outlines(picture), _TOP + _PLOT
    assert picture.edges is not None
    ends = np.linspace(picture.edges[0], picture.edges[-1], 3)
    anchors = ("start", "middle", "end")
    feet = "".join(
        f'<text x="{_WIDTH * i / 2:g}" y="{bottom + 15}" text-anchor={anchor}>'
        f"{escape(_told(value, picture.family))}</text>"
        for i, (value, anchor) in enumerate(zip(ends.tolist(), anchors, strict=True))
        if i != 1 or picture.family not in _TIMES
    )
    lines = "".join(
        f"<line class=grid x1=0 x2={_WIDTH} y1={y} y2={y} />"
        for y in (_TOP, _TOP + _PLOT / 2, bottom)
    )
    return bottom + _FOOT, (
        f"{lines}<text x={_WIDTH} y={_TOP - 3} text-anchor=end>{drawn.top:.0%} per bar</text>"
        f'<svg y={_TOP} width={_WIDTH} height={_PLOT} viewBox="0 0 {drawn.width} {HEIGHT}" '
        f'preserveAspectRatio=none><path class=r d="{drawn.reference}"/>'
        f'<path class=c d="{drawn.current}" vector-effect=non-scaling-stroke /></svg>{feet}'
    )


def _bars(picture: Picture) -> tuple[int, str]:
    """Categories: one line each, a pair of bars and both shares."""
    labels = [plain(label) or "(empty)" for label in picture.labels or []]
    pairs = list(zip(shares(picture.reference), shares(picture.current), strict=True))
    named = pairs[:-1] if picture.n_others else pairs
    longest = max([share for pair in named for share in pair], default=0.0) or 1.0
    left = 10 + round(6.4 * min(20, max(map(len, labels), default=0)))
    room = _WIDTH - left - 98
    marks = []
    for i, (label, (before, after)) in enumerate(zip(labels, pairs, strict=True)):
        y = i * _ROW
        marks.append(
            f"<text class=name x={left - 8} y={y + 15} text-anchor=end>{escape(plain(label, 20))}"
            f"<title>{escape(label)}</title></text>"
            f"<text x={_WIDTH} y={y + 15} text-anchor=end>{before:.1%} → {after:.1%}</text>"
        )
        if i >= len(named):
            continue  # all other categories: a bar of theirs would dwarf the named ones
        marks += [
            f'<rect class={side} x={left} y={y + 2 + 9 * place} width="{share / longest * room:.1f}" '
            "height=8 rx=1 />"
            for place, (side, share) in enumerate((("r", before), ("s", after)))
        ]
    return max(1, len(labels)) * _ROW, "".join(marks)


_TIMES = ("timestamp", "date")


def _told(value: float, family: str) -> str:
    if family in _TIMES:
        try:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)
        except OverflowError:
            return f"{value:.4g} s"
        return moment.strftime("%Y-%m-%d %H:%M")
    return f"{value:.4g}"


def _times(row: FeatureDrift) -> str:
    return f"{row.severity:.1f}×" if row.severity < 1000 else "> 1000×"


def _text(text: str) -> str:
    return escape(plain(text))
