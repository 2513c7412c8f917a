"""The HTML page: self-contained, sorted, and deaf to markup in names."""

import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from retrain_assets.drift.page import DRAWN, report_page
from retrain_assets.drift.report import DriftReport, FeatureDrift
from retrain_assets.drift.verdict import compare_with_pictures
from retrain_assets.spec.model import Drift

ODD = ["<script>alert(1)</script>", "a'b\"c&amp;", "`x`|y\nz", "n" * 200, "$日本$", "\x00\x1b[0m"]


class _Page(HTMLParser):
    """Tags in order, and the text."""

    VOID = ("meta", "line", "path", "rect")

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def _tables():
    rng = np.random.default_rng(0)

    def table(n, shift):
        return pa.table(
            {
                "amount": rng.gamma(2, 10 + 20 * shift, n),
                "<b>name</b>": rng.normal(shift, size=n),
                "text": rng.choice(ODD, n),
                "flag": rng.random(n) < 0.3 + 0.3 * shift,
                "when": pa.array((rng.integers(0, 10**6, n) + 10**9), pa.timestamp("s")),
                "far": pa.array((rng.integers(0, 10**6, n) + 10**15), pa.timestamp("s")),
                "constant": np.full(n, 5.0),
                "huge": rng.normal(size=n) * 1e305,
                "infinite": np.where(rng.random(n) < 0.5, np.inf, 1.0),
                "empty": pa.nulls(n),
                "codes": [f"code number {i}" for i in rng.integers(0, 90, n)],
                "retyped": rng.normal(size=n) if shift else [f"{i % 3}" for i in range(n)],
                ODD[0]: rng.normal(size=n),
                ODD[3]: rng.normal(size=n),
            }
        )

    return table(800, 0), table(300, 1).drop_columns([ODD[3]])


def _page(reference, current):
    report, pictures = compare_with_pictures(
        reference, current, Drift(), columns=reference.column_names,
        reference_name="<i>last year</i>", current_name="now & then",
    )  # fmt: skip
    return report_page(report, pictures)


def test_every_kind_of_column_is_on_a_well_formed_page_that_asks_for_nothing():
    text = _page(*_tables())
    page = _Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= {
        "html", "head", "body", "meta", "title", "style", "header", "span", "h1", "h2", "h3", "dl",
        "div", "dt", "dd", "p", "ul", "li", "section", "small", "article", "i", "b", "svg", "line",
        "text", "path", "rect",
    }  # fmt: skip
    asked = {"src", "href", "onload", "onclick", "action", "data"}
    assert not [attributes for _, attributes in page.tags if asked & attributes.keys()]
    assert not re.search(r"url\(|@import|https?:", text)
    words = " ".join(page.words)
    for name in ("<b>name</b>", "<script>alert(1)</script>", "n" * 200, "<i>last year</i>"):
        assert name in words
    assert "\x00" not in text
    assert "\x1b" not in text


def test_drifted_features_come_first_and_every_card_has_its_severity():
    words = _Page(_page(*_tables())).words
    assert words.index("Drifted ") < words.index("amount") < words.index("Not drifted ")
    assert words.index("Not drifted ") < words.index("constant")
    assert len([word for word in words if re.fullmatch(r"\w+ ([\d.]+|> 1000)×", word)]) == 14


@pytest.mark.parametrize("n", [DRAWN, DRAWN + 3])
def test_a_wide_table_has_so_many_cards_and_then_a_list(n):
    rows = tuple(
        FeatureDrift(f"x{i:04}", "numeric", 9, 9, i < 5, 1.0, None, None, {}, ()) for i in range(n)
    )
    report = DriftReport("stable", ("5 drifted",), rows, 9, 9, 0.0, 0.0, "a", "b")
    page = _Page(report_page(report, {}))
    assert [tag for tag, _ in page.tags].count("article") == DRAWN
    assert [tag for tag, _ in page.tags].count("li") == n - DRAWN


def test_light_and_dark_and_a_phone_are_provided_for():
    text = _page(*_tables())
    assert "color-scheme:light dark" in text
    assert "prefers-color-scheme:dark" in text
    assert "width=device-width" in text
