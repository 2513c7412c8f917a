"""`retrain drift` and `retrain profile`: drift of any two files, without Dagster or a spec.

Belongs here: arguments, what is printed, exit codes. Does not: anything about statistics. Imports
happen inside the commands: the whole process should cost little more than reading the files.

Exit codes of `drift`: 0 stable, 3 drifted, 2 usage or unreadable input.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from retrain_assets.drift.measure import Picture
    from retrain_assets.drift.profile import TableProfile
    from retrain_assets.drift.report import DriftReport, FeatureDrift, Sections
    from retrain_assets.drift.verdict import Comparable

__all__ = ["drift", "profile"]

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True)
class _Thresholds:
    """Effect sizes; the defaults are those of a spec, a test holds them together."""

    ks: float = 0.1
    wasserstein: float = 0.25
    psi: float = 0.2
    cramers_v: float = 0.1
    null_rate: float = 0.05
    unseen: float = 0.02


# Just beyond what nobody would call a change; what decides is then significance.
_SMALL = _Thresholds(0.01, 0.02, 0.005, 0.01, 0.01, 0.002)


@dataclass(frozen=True)
class _Multivariate:
    """The default is that of a spec."""

    auc: float = 0.65
    rows: int = 10_000


_SMALL_MULTIVARIATE = _Multivariate(auc=0.52)


@dataclass(frozen=True)
class _Alert:
    share_of_features: float = 1e-12  # any
    of_last: int = 1
    at_least: int = 1


@dataclass(frozen=True)
class _Rules:
    min_rows: int = 100
    alpha: float = 0.01
    thresholds: _Thresholds = field(default_factory=_Thresholds)
    alert: _Alert = field(default_factory=_Alert)
    exclude: tuple[str, ...] = ()


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)


def _open(path: str) -> Comparable:
    """A stored profile by its first bytes, else a table."""
    from retrain_assets.drift.columns import open_table
    from retrain_assets.errors import DriftError

    try:
        with open(path, "rb") as file:
            if file.read(4) != b"RDP1":
                return open_table(path)
            file.seek(0)
            data = file.read()
    except FileNotFoundError:
        raise DriftError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DriftError(f"{path}: cannot be read: {error.strerror or error}") from None
    from retrain_assets.drift.profile import TableProfile

    return TableProfile.from_bytes(data, path)


@click.command(context_settings=_CONTEXT)
@click.argument("reference", type=click.Path())
@click.argument("current", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--html", type=click.Path(), help="Write one self-contained page with pictures.")
@click.option("--column", "-c", "only", multiple=True, help="Compare only these columns.")
@click.option("--exclude", "-x", multiple=True, help="Leave these columns out.")
@click.option("--multivariate", is_flag=True,
              help="All columns together too: a classifier, and correlations that changed.")  # fmt: skip
@click.option("--target", metavar="COLUMN",
              help="Compare this column apart, as the label; it is no feature then.")  # fmt: skip
@click.option(
    "--effect", type=click.Choice(["small", "large"]), default="small", show_default=True,
    help="What counts: any proven change, or the thresholds of a spec (KS 0.1, PSI 0.2, …).",
)  # fmt: skip
@click.option("--alpha", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.01,
              show_default=True, help="False-discovery rate over the columns.")  # fmt: skip
@click.option("--min-rows", type=click.IntRange(min=10), default=100, show_default=True,
              help="Fewest rows on either side; below, the verdict is undecided.")  # fmt: skip
@click.option("--calibrate", "partitions", multiple=True, type=click.Path(),
              help="Profile of one partition of the reference; give at least 8.")  # fmt: skip
def drift(
    reference: str,
    current: str,
    as_json: bool,
    html: str | None,
    only: tuple[str, ...],
    exclude: tuple[str, ...],
    multivariate: bool,
    target: str | None,
    effect: str,
    alpha: float,
    min_rows: int,
    partitions: tuple[str, ...],
) -> None:
    """How far CURRENT has moved from REFERENCE, column by column.

    Each is a Parquet or CSV file, or a profile that `retrain profile` wrote. Exits 0 when stable
    (or undecided: too few rows), 3 when drifted, 2 when a file cannot be read.

    \b
    Examples:
      retrain drift january.parquet february.parquet
      retrain drift training.profile today.parquet --json | tail -1 | jq .flags
      retrain drift a.csv b.csv --html report.html
      retrain drift a.csv b.csv --multivariate --target churned
    """
    from retrain_assets.errors import DriftError

    limits = _SMALL if effect == "small" else _Thresholds()
    joint = _SMALL_MULTIVARIATE if effect == "small" else _Multivariate()
    left_out = exclude if target is None else (*exclude, target)
    rules = _Rules(min_rows, alpha, limits, _Alert(), left_out)
    try:
        sides = _open(reference), _open(current)
        columns, uncompared = (list(only), {}) if only else _comparable_columns(*sides)
        report, pictures = _compare(
            sides, columns, rules, (reference, current), partitions, pictures=html is not None
        )
        extra = _extra(sides, columns, rules, joint if multivariate else None, target)
        report = report.completed(extra)
        if html is not None:
            _write_page(report, pictures, html)
    except DriftError as error:
        _fail(str(error))
    except MemoryError:
        _fail(f"{reference}, {current}: not enough memory to compare them")
    if as_json:
        click.echo(json.dumps(_document(report, uncompared), ensure_ascii=False, default=str))
    else:
        for line in _table(report, uncompared):
            click.echo(line)
    sys.exit(3 if report.verdict == "drifted" else 0)


def _types(side: Comparable) -> dict[str, tuple[str, bool]]:
    """Per column its type, and whether that can be compared."""
    from retrain_assets.drift.columns import column_family
    from retrain_assets.drift.profile import TableProfile

    if isinstance(side, TableProfile):
        known = {name: (column.type, True) for name, column in side.columns.items()}
        return known | {name: (kind, False) for name, kind in side.left_out.items()}
    return {
        column.name: (str(column.type), column_family(column.type) is not None)
        for column in side.schema
    }


def _comparable_columns(
    reference: Comparable, current: Comparable
) -> tuple[list[str], dict[str, str]]:
    """The reference's columns, and the types of those that neither side holds in a comparable one.

    A list, struct or bytes that became numbers (or the reverse) is a change of type, and compared.
    """
    from retrain_assets.errors import DriftError

    before, after = _types(reference), _types(current)
    left_out = {
        name: kind
        for name, (kind, comparable) in before.items()
        if not comparable and not after.get(name, (kind, False))[1]
    }
    names = [name for name in before if name not in left_out]
    if not names:
        raise DriftError("reference: no column can be compared; it needs numbers, text or times")
    return names, left_out


def _compare(
    sides: tuple[Comparable, Comparable],
    columns: list[str],
    rules: _Rules,
    names: tuple[str, str],
    partitions: tuple[str, ...],
    *,
    pictures: bool,
) -> tuple[DriftReport, dict[str, Picture]]:
    from retrain_assets.drift.verdict import compare_with_pictures

    calibration = None
    if partitions:
        from retrain_assets.drift.calibration import calibrate

        profiles = [_profile_of(path) for path in partitions]
        calibration = calibrate(profiles, rules, columns)
    return compare_with_pictures(
        *sides, rules, columns=columns, reference_name=names[0], current_name=names[1],
        calibration=calibration, pictures=pictures,
    )  # fmt: skip


def _write_page(report: DriftReport, pictures: dict[str, Picture], html: str) -> None:
    from retrain_assets.drift.page import report_page
    from retrain_assets.errors import DriftError

    try:
        Path(html).write_text(report_page(report, pictures), encoding="utf-8")
    except OSError as error:
        raise DriftError(f"{html}: cannot be written: {error.strerror or error}") from None


def _extra(
    sides: tuple[Comparable, Comparable],
    columns: list[str],
    rules: _Rules,
    joint: _Multivariate | None,
    target: str | None,
) -> Sections:
    """What was asked for beside the single columns."""
    from retrain_assets.drift.report import Sections

    multivariate = label = None
    if joint is not None:
        from retrain_assets.drift.multivariate import compare_jointly, rows_of

        multivariate = compare_jointly(
            rows_of(sides[0], "reference"), rows_of(sides[1], "current"), joint,
            columns=[name for name in columns if name not in rules.exclude],
            min_rows=rules.min_rows,
        )  # fmt: skip
    if target is not None:
        from retrain_assets.drift.outcomes import label_drift

        label = label_drift(*sides, rules, target)
    return Sections(multivariate, (), label)


def _profile_of(path: str) -> TableProfile:
    from retrain_assets.drift.profile import TableProfile
    from retrain_assets.errors import DriftError

    found = _open(path)
    if not isinstance(found, TableProfile):
        raise DriftError(f"{path}: must be a profile; `retrain profile {path} -o …` writes one")
    return found


def _document(report: DriftReport, left_out: dict[str, str]) -> dict[str, Any]:
    """For machines: flags and everything that the report holds, columns by name."""
    whole = json.loads(report.to_json())
    return {
        "verdict": report.verdict,
        "flags": {row.feature: row.drifted for row in report.features},
        "score": whole["score"],
        "share_drifted": whole["share_drifted"],
        "exact": report.exact,
        "rows": {"reference": report.n_reference, "current": report.n_current},
        "reasons": whole["reasons"],
        "left_out": left_out,
        "columns": {row.pop("feature"): row for row in whole["features"]},
        "multivariate": whole["multivariate"],
        "label": whole["label"],
    }


def _table(report: DriftReport, left_out: dict[str, str]) -> list[str]:
    """For people: the verdict, then one line per column, drifted ones first."""
    headline = report.reasons[0] if report.reasons else ""
    colour = {"drifted": "red", "stable": "green"}.get(report.verdict, "yellow")
    change = f"{report.row_change:+.1%}" if report.n_reference else "new"
    lines = [
        f"{click.style(report.verdict, fg=colour, bold=True)}: {headline}",
        f"rows {report.n_reference:,} → {report.n_current:,} ({change})",
        *report.news,
        *[f"left out: `{name}`, type {kind} cannot be compared" for name, kind in left_out.items()],
        "",
    ]
    rows = sorted(report.features, key=lambda row: (not row.drifted, -row.severity, row.feature))
    width = min(32, max([6, *(len(row.feature) for row in rows)]))
    lines.append(
        f"{'column':<{width}}  {'':<7}  {'KS | V':>7}  {'PSI':>7}  {'W/sd':>7}  {'nulls':>15}  what changed"
    )
    lines += [_line(row, width) for row in rows]
    for role, row in report.outcomes:
        lines += ["", f"{role}, not counted as a feature:", _line(row, width)]
    if report.multivariate is not None and report.multivariate.left_out:
        named = "; ".join(f"{name}: {why}" for name, why in report.multivariate.left_out.items())
        lines += ["", f"not among all columns together: {named}"]
    return lines


def _line(row: FeatureDrift, width: int) -> str:
    mark = "drifted" if row.drifted else ""
    prefix = f"`{row.feature}`: "
    words = "; ".join(reason.removeprefix(prefix) for reason in row.reasons)
    name = row.feature if len(row.feature) <= width else row.feature[: width - 1] + "…"
    return f"{name:<{width}}  {mark:<7}  {_numbers(row)}  {words}".rstrip()


def _numbers(row: FeatureDrift) -> str:
    found = row.statistics
    first = found.get("ks", found.get("cramers_v", found.get("length_ks")))
    cells = [
        f"{'' if x is None else format(x, '.4f' if x < 100 else '.3g'):>7}"
        for x in (first, found.get("psi"), found.get("wasserstein_scaled"))
    ]
    before, after = found.get("null_rate_reference"), found.get("null_rate_current")
    nulls = f"{before:.1%} → {after:.1%}" if before or after else ""
    return "  ".join([*cells, f"{nulls:>15}"])


@click.command(context_settings=_CONTEXT)
@click.argument("file", type=click.Path())
@click.option("--output", "-o", required=True, type=click.Path(), help="Where the profile goes.")
@click.option("--like", type=click.Path(), help="A profile that the new one should merge with.")
def profile(file: str, output: str, like: str | None) -> None:
    """Summarise FILE (Parquet or CSV) for later comparisons, without keeping its rows.

    \b
    Examples:
      retrain profile training.parquet -o training.profile
      retrain profile 2013-03-02.parquet -o 2013-03-02.profile --like 2013-03-01.profile
    """
    from retrain_assets.drift.profile import TableProfile, build_profile
    from retrain_assets.errors import DriftError

    try:
        source = _open(file)
        if isinstance(source, TableProfile):
            raise DriftError(f"{file}: is a profile already; give a Parquet or CSV file")
        import pyarrow as pa

        assert not isinstance(source, pa.Table)
        earlier = _profile_of(like) if like else None
        made = build_profile(source, like=earlier)
        data = made.to_bytes()
        Path(output).write_bytes(data)
    except DriftError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{output}: cannot be written: {error.strerror or error}")
    click.echo(
        f"{output}: {made.rows:,} rows, {len(made.columns)} columns, {len(data) / 1024:,.1f} KB"
    )
    for name, kind in made.left_out.items():
        click.echo(f"'{name}': type {kind} cannot be compared, left out")
