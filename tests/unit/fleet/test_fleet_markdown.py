"""The fleet in the Dagster UI: bounded, and no name or note breaks the table."""

from datetime import UTC, datetime
from urllib.parse import unquote
from xml.etree import ElementTree

from retrain_assets.fleet.markdown import fleet_markdown, trend_picture
from retrain_assets.fleet.status import StatusRow

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)


def test_a_large_fleet_is_told_by_its_urgent_models_and_a_count():
    rows = [StatusRow(f"m{i:04}", "healthy", trend=(0.1, None, 0.4) * 7) for i in range(1000)]
    rows += [StatusRow("last", "failing", note="the source is down")]
    text = fleet_markdown(rows, NOW)
    lines = text.splitlines()
    assert lines[0] == "**1001 models: 1 failing, 1000 healthy**"
    assert lines[4].startswith("| last | failing |")
    assert lines[-1].startswith("and 971 models: 971 healthy;")
    assert len(text) < 5000
    assert len(trend_picture(rows)) < 40_000


def test_every_row_has_all_cells_whatever_a_note_contains():
    rows = [StatusRow("a", "broken", note="x | y \\| `z`\n<img src=x> [l](http://e)")]
    header, _, row = fleet_markdown(rows, NOW).splitlines()[2:]
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == header.count("|")
    assert "<img" not in row.replace("\\<", "")


def test_the_picture_is_an_image_of_every_model_with_scores():
    rows = [StatusRow("a<b>", "drifting", trend=(0.2, 0.9)), StatusRow("c", "healthy")]
    head, _, rest = trend_picture(rows).partition("data:image/svg+xml,")
    assert head == "![drift scores]("
    texts = [e.text for e in ElementTree.fromstring(unquote(rest[:-1])).iter() if e.text]
    assert texts == ["a<b>", "0.90"]
    assert trend_picture(rows[1:]) == ""
