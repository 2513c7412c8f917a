"""A drift report for people: Markdown for the Dagster UI.

Belongs here: wording and layout. Does not: what counts as drift (`verdict`), drawing (`pictures`).
Nothing here changes a number. Names and values come from data that anybody may have written: they
can neither end a table cell nor become markup.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from retrain_assets.drift.history import DriftHistory
from retrain_assets.drift.measure import Picture
from retrain_assets.drift.pictures import (
    CURRENT_COLOUR,
    REFERENCE_COLOUR,
    data_uri,
    heat_map,
    plain,
    swatch,
    thumbnail,
)
from retrain_assets.drift.report import DriftReport, FeatureDrift
from retrain_assets.errors import DriftError

__all__ = ["history_markdown", "report_markdown", "severity_word", "worst_first"]

_NAME_LENGTH, _TEXT_LENGTH = 48, 400
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|~&!#@]|(?<=[A-Za-z]):(?=//)|(?<=[Ww]{3})\.")
_CODE = re.compile(r"`([\w .-]+)`")


def severity_word(row: FeatureDrift) -> str:
    """Severity in words.

    A drifted feature is moderate (below twice its threshold), strong (below five times) or
    extreme; any other is "none" (below half its threshold), "slight", or "unproven" (beyond the
    threshold, but it may be chance).
    """
    if row.drifted:
        return "moderate" if row.severity < 2 else "strong" if row.severity < 5 else "extreme"
    return "none" if row.severity < 0.5 else "slight" if row.severity < 1 else "unproven"


def worst_first(report: DriftReport) -> list[FeatureDrift]:
    """Drifted features first: a large effect that may be chance is not the news."""
    return sorted(report.features, key=lambda row: (not row.drifted, -row.severity, row.feature))


def report_markdown(
    report: DriftReport, pictures: Mapping[str, Picture] | None = None, limit: int = 20
) -> str:
    """The report as Markdown: verdict, reasons, and a table of the `limit` worst features.

    Args:
        report: what was found.
        pictures: distributions by feature; with any of them each row has its own.
        limit: rows, at least 1. Texts are cut, so that 20 rows stay below 100 KB whatever the names.

    Raises:
        DriftError: `limit` is below 1.
    """
    if limit < 1:
        raise DriftError(f"limit: must be >= 1, got {limit}")
    headline = report.reasons[0] if report.reasons else ""
    sides = [
        (CURRENT_COLOUR, report.current, report.n_current),
        (REFERENCE_COLOUR, report.reference, report.n_reference),
    ]
    current, reference = (
        f"{_image(swatch(colour)) + ' ' if pictures else ''}{_text(name)} ({rows:,} rows)"
        for colour, name, rows in sides
    )
    lines = [
        f"**{report.verdict}**: {_text(headline)}",
        "",
        f"{current} against {reference}; drift score {report.score:.2f}",
        "",
    ]
    notes = [f"- {_text(reason)}" for reason in report.news]
    lines += [*notes, ""] if notes else []
    if report.features:
        lines += _table(worst_first(report), pictures or {}, limit)
    if report.outcomes:
        rows = [replace(row, feature=f"{role}: {row.feature}") for role, row in report.outcomes]
        lines += ["", "Beside the features, and not counted among them:", ""]
        lines += _table(rows, {}, limit)
    return "\n".join(lines).rstrip() + "\n"


def history_markdown(history: DriftHistory) -> str:
    """The heat map as a Markdown image."""
    told = f"drift of {len(history.features)} features over {len(history.partitions)} partitions"
    return _image(heat_map(history), told) + "\n"


def _table(rows: Sequence[FeatureDrift], pictures: Mapping[str, Picture], limit: int) -> list[str]:
    """Columns that would be empty in every row are left out."""
    weighted = any(row.importance is not None for row in rows)
    columns = ["Feature", *["Distribution"] * bool(pictures), "Drift", *["Weight"] * weighted]
    columns += ["What changed"] * any(row.reasons for row in rows[:limit])
    columns += ["Key statistics"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows[:limit]:
        picture = pictures.get(row.feature)
        cells = {
            "Feature": _escaped(plain(row.feature, _NAME_LENGTH)),
            "Distribution": "" if picture is None else _image(thumbnail(picture)),
            "Drift": _drift(row),
            "Weight": f"{row.importance or 0.0:.1%}",
            "What changed": _changed(row),
            "Key statistics": _key_statistics(row),
        }
        lines.append(f"| {' | '.join(cells[column] for column in columns)} |")
    hidden = rows[limit:]
    if hidden:
        drifted = sum(row.drifted for row in hidden)
        state = f"{drifted} of them drifted" if drifted else "stable"
        lines += ["", f"and {len(hidden)} other{'s' if len(hidden) > 1 else ''}, {state}"]
    return lines


def _drift(row: FeatureDrift) -> str:
    word = f"**{severity_word(row)}**" if row.drifted else severity_word(row)
    return f"{word} {row.severity:.1f}×" if row.severity < 1000 else f"{word} > 1000×"


def _changed(row: FeatureDrift) -> str:
    # Every reason begins with the feature's name, which the first column says already.
    prefix = f"`{row.feature}`: "
    return _text("; ".join(reason.removeprefix(prefix) for reason in row.reasons))


def _key_statistics(row: FeatureDrift) -> str:
    found = row.statistics
    labels = {"ks": "KS", "wasserstein_scaled": "W/sd", "cramers_v": "V", "psi": "PSI"}
    parts = [f"{label} {found[key]:.2f}" for key, label in labels.items() if key in found]
    if found.get("unseen"):
        parts.append(f"new {found['unseen']:.1%}")
    nulls = [f"{found.get(f'null_rate_{side}', 0.0):.1%}" for side in ("reference", "current")]
    if nulls[0] != nulls[1]:
        parts.append(f"nulls {' → '.join(nulls)}")
    return " · ".join(parts)


def _image(svg: str, told: str = "") -> str:
    return f"![{told}]({data_uri(svg)})"


def _text(text: str) -> str:
    """One line in which nothing is markup but names in backticks that are simple."""
    text_or_code = _CODE.split(plain(text, _TEXT_LENGTH))
    return "".join(f"`{part}`" if i % 2 else _escaped(part) for i, part in enumerate(text_or_code))


def _escaped(line: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], line)
