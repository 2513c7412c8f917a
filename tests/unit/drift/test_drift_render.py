"""What people see: the table in the Dagster UI and the picture of the worst features."""

from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrain_assets.drift import DriftReport, FeatureDrift, compare, drift_picture, report_markdown
from retrain_assets.drift.render import severity_word
from retrain_assets.errors import DriftError
from retrain_assets.spec.model import Drift


def _row(name, severity, drifted, reasons=(), **statistics):
    return FeatureDrift(
        name, "numeric", 9, 9, drifted, severity, 0.1, 0.2, statistics, tuple(reasons)
    )


def _report(*features, **changes):
    fields = {
        "verdict": "drifted", "reasons": ("1 of 2 features drifted",), "features": features,
        "n_reference": 12345, "n_current": 678, "share_drifted": 0.5, "score": 0.25,
        "reference": "champion v7", "current": "2013-03-01",
    }  # fmt: skip
    return DriftReport(**(fields | changes))


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
        "| Feature | Drift | Key statistics | What changed |\n"
        "|---|---|---|---|\n"
        "| dep_hour | **strong** | KS 0.21 · PSI 0.40 | mean 13.1 → 14.9, KS 0.21 |\n"
        "| origin | none | nulls 0.0% → 1.5% |  |\n"
    )


def test_the_table_stops_at_its_limit_and_says_so():
    report = _report(*(_row(f"x{i}", i, False) for i in range(5)))
    text = report_markdown(report, limit=3)
    assert text.count("\n| x") == 3
    assert text.endswith("… and 2 more features\n")


def test_drifted_features_come_before_larger_effects_that_may_be_chance():
    text = report_markdown(_report(_row("chance", 9.0, False), _row("real", 1.5, True)))
    assert text.index("| real |") < text.index("| chance | unproven |")


def test_a_name_cannot_break_the_table():
    text = report_markdown(_report(_row("a|b\nc", 2.0, True, ["`a|b\nc`: was | is"])))
    assert "| a\\|b c | **strong** |  | was \\| is |" in text


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


def _tables():
    rng = np.random.default_rng(0)

    def table(n, shift):
        return pa.table(
            {
                "amount": rng.gamma(2, 10 + 20 * shift, n),
                "$weird_{name}^": rng.normal(shift, size=n),
                "日本": rng.choice(["東京", "a|b", "$x$", ""], n),
                "flag": rng.random(n) < 0.3 + 0.3 * shift,
                "count": rng.poisson(3 + shift, n),
                "when": pa.array((rng.integers(0, 10**6, n) + 10**9), pa.timestamp("s")),
                "constant": np.full(n, 5.0),
                "huge": rng.normal(size=n) * 1e305,
                "infinite": np.where(rng.random(n) < 0.5, np.inf, 1.0),
                "empty": pa.nulls(n),
                "codes": [f"code number {i}" for i in rng.integers(0, 90, n)],
                "retyped": rng.normal(size=n) if shift else [f"{i % 3}" for i in range(n)],
                "gone": rng.normal(size=n),
            }
        )

    return table(800, 0), table(300, 1).drop_columns(["gone"])


def _size(png):
    with Image.open(BytesIO(png)) as image:
        image.verify()
        return image.format, image.size


def test_the_picture_of_every_kind_of_column_is_a_png_of_900_pixels_width():
    """Warnings are errors here: no missing glyph, no overflow, no unclosed figure."""
    reference, current = _tables()
    report = compare(
        reference, current, Drift(), columns=reference.column_names,
        reference_name="champion", current_name="now",
    )  # fmt: skip
    kind, (width, height) = _size(drift_picture(report, reference, current, limit=20))
    assert (kind, width) == ("PNG", 900)
    assert 1000 < height < 1300
    assert _size(drift_picture(report, reference, current))[1][0] == 900


def test_the_picture_shows_the_current_colour_only_where_there_is_current_data():
    reference = pa.table({"x": np.arange(300.0)})
    picture = {}
    for name, current in (("moved", {"x": np.arange(300.0) + 900}), ("gone", {"y": [1] * 300})):
        report = compare(
            reference, pa.table(current), Drift(), columns=["x"], reference_name="a",
            current_name="b",
        )  # fmt: skip
        with Image.open(BytesIO(drift_picture(report, reference, pa.table(current)))) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        orange = (pixels[80:, :, 0] - pixels[80:, :, 2]) > 40
        picture[name] = int(orange.sum())
    assert picture["moved"] > 1000
    assert picture["gone"] < 50


def test_the_picture_of_nothing_is_still_a_picture():
    empty = pa.table({"x": pa.array([], pa.float64())})
    report = compare(empty, empty, Drift(), columns=["x"], reference_name="a", current_name="b")
    assert _size(drift_picture(report, empty, empty))[0] == "PNG"
    nothing = _report(features=())
    assert _size(drift_picture(nothing, empty, empty))[0] == "PNG"


def test_a_table_of_another_report_is_refused():
    table = pa.table({"x": [1.0]})
    with pytest.raises(DriftError, match="reference has no column 'y'; pass the tables that"):
        drift_picture(_report(_row("y", 1.0, False)), table, table)


def test_a_limit_below_one_is_refused():
    table = pa.table({"x": [1.0]})
    with pytest.raises(DriftError, match="limit: must be >= 1, got 0"):
        report_markdown(_report(), 0)
    with pytest.raises(DriftError, match="limit: must be >= 1, got 0"):
        drift_picture(_report(), table, table, 0)
