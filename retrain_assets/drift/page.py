"""A drift report as one self-contained HTML page, worst features first.

Belongs here: markup and small SVG pictures from counts. Does not: counting (`measure.Picture`). No
script, no font, no image from anywhere else, so that the page can be mailed and opened for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from retrain_assets.drift.measure import Picture
from retrain_assets.drift.report import DriftReport, FeatureDrift

__all__ = ["report_page"]

WIDTH, HEIGHT, FOOT = 360, 130, 18

_STYLE = """
:root{color-scheme:light dark;--ref:#8a9bb0;--cur:#e8743b;--ink:#2b3440;--muted:#6b7683;
--line:#e3e7ec;--page:#fff;--card:#fafbfc}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--muted:#9aa6b4;--line:#333c47;
--page:#14181d;--card:#1b2027}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page);
max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}.stable{color:#1f8a4c}.drifted{color:#c2410c}.undecided{color:#a16207}
.muted{color:var(--muted)}ul{padding-left:1.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:1rem;margin-top:1rem}
.card{border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;background:var(--card)}
.card.moved{border-left:4px solid var(--cur)}
.card h2{font-size:1rem;margin:0;overflow-wrap:anywhere}.card p{margin:.2rem 0;font-size:.85rem}
svg{width:100%;height:auto;display:block;margin-top:.4rem}svg text{fill:var(--muted);font-size:10px}
.r{fill:var(--ref);fill-opacity:.55}.c{fill:var(--cur);fill-opacity:.5}
.key span{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .8em}
"""


def report_page(report: DriftReport, pictures: Mapping[str, Picture]) -> str:
    """The page.

    Args:
        report: what was found.
        pictures: distributions by feature; a feature without one is told in words only.
    """
    headline, *others = report.reasons or ("",)
    told = {reason for row in report.features for reason in row.reasons}
    notes = "".join(f"<li>{escape(reason)}</li>" for reason in others if reason not in told)
    rows = sorted(report.features, key=lambda row: (not row.drifted, -row.severity, row.feature))
    cards = "".join(_card(row, pictures.get(row.feature)) for row in rows)
    beside = "".join(_card(row, None, f"{role}: ") for role, row in report.outcomes)
    if beside:
        cards = f"{beside}</div><div class=cards>{cards}"
    how = (
        "distances are exact" if report.exact else "distances are lower ends of certified intervals"
    )
    if report.calibrated_on:
        how += f"; thresholds calibrated on {report.calibrated_on} partitions of the reference"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.verdict)}: {escape(report.current)}</title>"
        f"<style>{_STYLE}</style>"
        f"<h1><span class={report.verdict}>{report.verdict}</span></h1>"
        f"<p>{escape(headline)}</p>"
        f'<p class="key muted"><span style="background:var(--ref)"></span>{escape(report.reference)}'
        f" ({report.n_reference:,} rows)"
        f'<span style="background:var(--cur)"></span>{escape(report.current)}'
        f" ({report.n_current:,} rows)</p>"
        f"<p class=muted>drift score {report.score:.2f}; {how}</p>"
        f"{'<ul>' + notes + '</ul>' if notes else ''}"
        f"<div class=cards>{cards}</div></html>\n"
    )


def _card(row: FeatureDrift, picture: Picture | None, role: str = "") -> str:
    prefix = f"`{row.feature}`: "
    words = "".join(f"<p>{escape(reason.removeprefix(prefix))}</p>" for reason in row.reasons)
    labels = {
        "ks": "KS", "wasserstein_scaled": "W/sd", "cramers_v": "V", "psi": "PSI", "js": "JS",
        "unseen": "new", "null_rate_change": "Δ nulls",
    }  # fmt: skip
    numbers = " · ".join(
        f"{label} {row.statistics[key]:.3g}"
        for key, label in labels.items()
        if key in row.statistics
    )
    moved = " moved" if row.drifted else ""
    drawn = "" if picture is None else _svg(picture)
    return (
        f'<section class="card{moved}"><h2>{role}{escape(row.feature)}</h2>'
        f"<p class=muted>{escape(numbers)}</p>{words}{drawn}</section>"
    )


def _svg(picture: Picture) -> str:
    """Both sides' shares per bar, overlaid; edges or labels below."""
    sides = [_shares(picture.reference), _shares(picture.current)]
    top = max(max(sides[0], default=0.0), max(sides[1], default=0.0)) or 1.0
    n = max(1, len(sides[0]))
    step = WIDTH / n
    bars = []
    for shares, name in zip(sides, "rc", strict=True):
        overlaid = picture.edges is not None
        width = step if overlaid else step * 0.4
        shift = 0.0 if overlaid else step * (0.1 if name == "r" else 0.5)
        for i, share in enumerate(shares):
            height = share / top * HEIGHT
            if height > 0:
                bars.append(
                    f'<rect class={name} x="{i * step + shift:.1f}" y="{HEIGHT - height:.1f}" '
                    f'width="{width:.1f}" height="{height:.1f}"/>'
                )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role=img>{"".join(bars)}'
        f'<line x1=0 x2={WIDTH} y1={HEIGHT} y2={HEIGHT} stroke="var(--line)"/>'
        f"{_foot(picture, step)}</svg>"
    )


def _foot(picture: Picture, step: float) -> str:
    if picture.edges is not None:
        ends = [_told(edge, picture.family) for edge in (picture.edges[0], picture.edges[-1])]
        return (
            f'<text x=0 y="{HEIGHT + 13}">{escape(ends[0])}</text>'
            f'<text x={WIDTH} y="{HEIGHT + 13}" text-anchor=end>{escape(ends[1])}</text>'
        )
    room = max(3, int(step / 6))
    texts = []
    for i, label in enumerate(picture.labels or []):
        short = label if len(label) <= room else label[: room - 1] + "…"
        title = f"<title>{escape(label)}</title>"
        texts.append(
            f'<text x="{(i + 0.5) * step:.1f}" y="{HEIGHT + 13}" text-anchor=middle>'
            f"{escape(short)}{title}</text>"
        )
    return "".join(texts)


def _told(value: float, family: str) -> str:
    if family in ("timestamp", "date"):
        try:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)
        except OverflowError:
            return f"{value:.4g} s"
        return moment.strftime("%Y-%m-%d %H:%M")
    return f"{value:.4g}"


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]
