"""The SVG pictures: well-formed whatever the names, the right marks, and small."""

import re
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from retrain_assets.drift.history import DriftHistory
from retrain_assets.drift.measure import Picture
from retrain_assets.drift.pictures import data_uri, heat_map, outlines, thumbnail

ODD = ["<b>&'\"", "a|b\nc", "`x`", "\x00\x1b[31m\ud800", "n" * 200, "日本", ""]


def _history(severity, drifted=None, references=None, verdicts=None, names=None, n_left_out=0):
    severity = np.array(severity, dtype=float)
    k, n = severity.shape
    return DriftHistory(
        tuple(f"2013-03-{i + 1:02}" for i in range(n)),
        tuple(names or [f"x{i}" for i in range(k)]),
        severity,
        np.zeros((k, n), bool) if drifted is None else np.array(drifted),
        tuple(verdicts or ["stable"] * n),
        tuple(references or ["champion v1"] * n),
        n_left_out,
        (0.1,) * n,
    )


def _texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.text]


def _strokes(svg, width):
    """Path data by stroke opacity of the paths of a stroke width."""
    paths = [
        element.attrib for element in ElementTree.fromstring(svg).iter() if "d" in element.attrib
    ]
    return {p.get("stroke-opacity"): p["d"] for p in paths if p.get("stroke-width") == width}


def test_outlines_are_shares_of_each_side_on_one_scale():
    drawn = outlines(Picture([0, 1, 2, 3], None, [10, 10, 0], [0, 0, 4], "number"))
    assert (drawn.width, drawn.top) == (3, 1.0)
    assert drawn.reference == "M0,100V50h2V100h1V100z"
    assert drawn.current == "M0,100V100h2V0h1V100z"


def test_the_bar_of_all_other_categories_does_not_dwarf_the_named_ones():
    drawn = outlines(Picture(None, ["a", "(9 others)"], [10, 90], [20, 80], "text", n_others=9))
    assert (drawn.width, drawn.top) == (2, 0.2)
    assert drawn.reference == "M0,100V50h1V100z"
    assert drawn.current == "M1,100V0h1V100z"


@pytest.mark.parametrize(
    "picture",
    [
        Picture([0.0, 1.0], None, [0], [0], "number"),
        Picture(None, ODD, [1] * len(ODD), [2] * len(ODD), "text"),
        Picture(None, [], [], [], "text"),
    ],
)
def test_every_thumbnail_is_a_small_image(picture):
    svg = thumbnail(picture)
    ElementTree.fromstring(svg)
    assert len(data_uri(svg)) < 1500


def test_an_address_of_a_picture_is_one_word_without_markup():
    uri = data_uri("<svg a='#b (c)|\"'/>")
    assert not re.search(r"[\s|()<>\"#`\[\]\\]", uri)
    assert unquote(uri) == "data:image/svg+xml,<svg a='#b (c)|\"'/>"


def test_the_heat_map_has_a_colour_per_level_and_a_dot_where_a_feature_drifted():
    svg = heat_map(
        _history([[0.1, 0.1, 7.0], [np.nan, 1.5, 0.3]], [[False, False, True], [False] * 3])
    )
    # Cells are 18 wide, rows 16 high; equal neighbours are one stroke.
    assert _strokes(svg, "15") == {"0.13": "M0,8h36", "1.0": "M36,8h18", "0.5": "M18,24h18",
                                   "0.32": "M36,24h18"}  # fmt: skip
    assert _strokes(svg, "7")[None].count("M") == 1, "the dot in the legend"
    dots = [e.get("d") for e in ElementTree.fromstring(svg).iter() if e.get("stroke-width") == "7"]
    assert "M44.5,8h0" in dots
    assert [text for text in _texts(svg) if text.startswith("x")] == ["x0", "x1"]


def test_the_heat_map_marks_verdicts_and_another_reference():
    quiet = heat_map(_history([[0.1] * 3]))
    told = heat_map(
        _history(
            [[0.1] * 3],
            references=["champion v1", None, "champion v2"],
            verdicts=["drifted", None, "undecided"],
        )
    )
    assert quiet.count("stroke-dasharray='3 2'") == 1, "the legend's"
    assert told.count("stroke-dasharray='3 2'") == 2
    assert told.count("fill='none' stroke='#8096b0'") == 1
    assert quiet.count("fill='none' stroke='#8096b0'") == 0


def test_names_of_any_kind_are_text_in_the_heat_map():
    texts = _texts(heat_map(_history([[1.0]] * len(ODD), names=ODD, n_left_out=1234)))
    assert {"<b>&'\"", "a|b c", "`x`", "[31m", "n" * 25 + "…", "日本", "1,234 more"} <= set(texts)


def test_the_largest_heat_map_stays_small():
    rng = np.random.default_rng(0)
    severity = rng.choice([0.1, 0.3, 0.7, 1.5, 3.0, 9.0], (30, 60))
    history = _history(severity, severity > 1, names=[f"{i:02}" + "<" * 200 for i in range(30)])
    assert len(data_uri(heat_map(history))) < 50_000
    few = [text for text in _texts(heat_map(history)) if text.startswith("2013-03-")]
    assert few[0] == "2013-03-60"
    assert 4 < len(few) < 10


def test_an_empty_history_is_still_a_picture():
    ElementTree.fromstring(heat_map(_history(np.empty((0, 0)))))
