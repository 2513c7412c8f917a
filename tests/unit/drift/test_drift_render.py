"""What people see in the Dagster UI: the report as a Markdown table."""

import re

import pytest

from retrain_assets.drift import DriftReport, FeatureDrift, report_markdown
from retrain_assets.drift.history import drift_history
from retrain_assets.drift.measure import Picture
from retrain_assets.drift.render import history_markdown, severity_word
from retrain_assets.drift.report import ReportSummary
from retrain_assets.errors import DriftError


def _row(name, severity, drifted, reasons=(), **statistics):
    importance = statistics.pop("importance", None)
    return FeatureDrift(
        name, "numeric", 9, 9, drifted, severity, 0.1, 0.2, statistics, tuple(reasons), importance
    )


def _report(*features, **changes):
    fields = {
        "verdict": "drifted", "reasons": ("1 of 2 features drifted",), "features": features,
        "n_reference": 12345, "n_current": 678, "share_drifted": 0.5, "score": 0.25,
        "reference": "champion v7", "current": "2013-03-01",
    }  # fmt: skip
    return DriftReport(**(fields | changes))


STEPS = Picture([0.0, 1.0, 2.0], None, [5, 5], [9, 1], "number")


def test_the_table_says_what_drifted_how_much_and_what_changed():
    report = _report(
        _row("dep_hour", 2.1, True, ["`dep_hour`: mean 13.1 → 14.9, KS 0.21"], ks=0.21, psi=0.4),
        _row("origin", 0.2, False, null_rate_reference=0.0, null_rate_current=0.015),
        reasons=("1 of 2 features drifted", "only in 2013-03-01, not compared: `gate`",
                 "`dep_hour`: mean 13.1 → 14.9, KS 0.21"),
    )  # fmt: skip
    assert report_markdown(report) == (
        "**drifted**: 1 of 2 features drifted\n"
        "\n"
        "2013-03-01 (678 rows) against champion v7 (12,345 rows); drift score 0.25\n"
        "\n"
        "- only in 2013-03-01, not compared: `gate`\n"
        "\n"
        "| Feature | Drift | What changed | Key statistics |\n"
        "|---|---|---|---|\n"
        "| dep\\_hour | **strong** 2.1× | mean 13.1 → 14.9, KS 0.21 | KS 0.21 · PSI 0.40 |\n"
        "| origin | none 0.2× |  | nulls 0.0% → 1.5% |\n"
    )


def test_each_row_has_its_distribution_and_its_weight_where_they_are_known():
    report = _report(_row("x", 2.0, True, importance=0.25), _row("y", 0.1, False, importance=0.75))
    text = report_markdown(report, {"x": STEPS})
    assert "| Feature | Distribution | Drift | Weight | Key statistics |" in text
    assert re.search(
        r"\| x \| !\[\]\(data:image/svg\+xml,[^ |()]+\) \| \*\*strong.* \| 25.0% \|", text
    )
    assert "| y |  | none 0.1× | 75.0% |" in text
    assert text.count("data:image/svg+xml,") == 3, "one distribution, two colours of the legend"


@pytest.mark.parametrize(("drifted", "state"), [(0, "stable"), (4, "1 of them drifted")])
def test_the_table_stops_at_its_limit_and_says_what_is_left_out(drifted, state):
    report = _report(*(_row(f"x{i}", i, i >= 5 - drifted) for i in range(5)))
    text = report_markdown(report, limit=3)
    assert text.count("\n| x") == 3
    assert text.endswith(f"and 2 others, {state}\n")


def test_drifted_features_come_before_larger_effects_that_may_be_chance():
    text = report_markdown(_report(_row("chance", 9.0, False), _row("real", 1.5, True)))
    assert text.index("| real |") < text.index("| chance | unproven 9.0× |")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b\nc", r"a\|b c"),
        ("<b>x</b>", r"\<b\>x\</b\>"),
        ("`code`", r"\`code\`"),
        ("`a|b`", r"\`a\|b\`"),
        ("![x](https://example.org/p.png)", r"\!\[x\](https\://example.org/p.png)"),
        ("www.example.org me@example.org", r"www\.example.org me\@example.org"),
        ("\\ ~~*_&amp;", r"\\ \~\~\*\_\&amp;"),
        ("right\u202eleft\x00\x1b[31m", r"right left \[31m"),
        ("n" * 200, "n" * 47 + "…"),
    ],
)
def test_a_name_is_neither_markup_nor_the_end_of_its_cell(name, shown):
    text = report_markdown(_report(_row(name, 2.0, True, [f"`{name}`: was | is"])), {name: STEPS})
    (row,) = [line for line in text.splitlines() if "**strong**" in line]
    assert row.startswith(f"| {shown} | ![](data:")
    assert r"was \| is" in row
    assert len(re.findall(r"(?<!\\)\|", row)) == 6


def test_the_report_stays_small_whatever_is_in_it():
    """The worst case of everything: bars of all heights, endless names, reasons and notes."""
    worst = Picture(
        [float(i) for i in range(41)], None,
        [(i * 37) % 100 for i in range(40)], [(i * 61) % 100 for i in range(40)], "number",
    )  # fmt: skip
    names = [f"{i:04}" + "<|" * 100 for i in range(3000)]
    rows = [_row(name, 9.0, True, [f"`{name}`: " + "`|" * 5000] * 3) for name in names]
    report = _report(*rows, reasons=("x", *["<" * 9000] * 3))
    text = report_markdown(report, dict.fromkeys(names, worst))
    assert len(text.encode()) < 100_000
    assert text.endswith("and 2980 others, 2980 of them drifted\n")


def test_the_history_is_one_image_that_says_what_it_shows():
    history = drift_history(
        {"2013-03-01": ReportSummary("drifted", "champion v1", {"<x>|": 2.0}, frozenset(), 0.6)},
        ["2013-03-01"],
    )
    text = history_markdown(history)
    assert re.fullmatch(
        r"!\[drift of 1 features over 1 partitions\]\(data:image/svg\+xml,[^ |()<>]+\)\n", text
    )


def test_a_report_without_features_is_still_readable():
    empty = _report(verdict="undecided", reasons=("too few rows",), features=())
    assert report_markdown(empty).startswith("**undecided**: too few rows\n")


@pytest.mark.parametrize(
    ("severity", "drifted", "word"),
    [(0, False, "none"), (0.5, False, "slight"), (1, False, "unproven"), (1, True, "moderate"),
     (2, True, "strong"), (5, True, "extreme"), (float("inf"), True, "extreme")],
)  # fmt: skip
def test_severity_has_a_word(severity, drifted, word):
    assert severity_word(_row("x", severity, drifted)) == word


def test_a_limit_below_one_is_refused():
    with pytest.raises(DriftError, match="limit: must be >= 1, got 0"):
        report_markdown(_report(), limit=0)
