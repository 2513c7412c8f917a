"""The page: nothing from anywhere else, and no row can break out of its data."""

import json
import re
from datetime import UTC, datetime

import pytest

from retrain_assets.fleet.page import live_page, page_data, static_page
from retrain_assets.fleet.snapshot import Snapshot
from retrain_assets.fleet.status import STATES, StatusRow

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
EVIL = "</script><script>alert(1)</script><!-- \u2028 &amp;"
SNAPSHOT = Snapshot(NOW, "", NOW, (StatusRow("churn", "broken", note=EVIL),))


def _data(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


@pytest.mark.parametrize("page", [static_page(SNAPSHOT), live_page(page_data(SNAPSHOT))])
def test_a_note_comes_back_as_it_was_and_ends_no_element(page):
    assert _data(page)["models"][0]["note"] == EVIL
    assert "alert(1)</script>" not in page
    assert page.count("<script") == 2


def test_the_page_asks_nobody_for_anything():
    page = static_page(SNAPSHOT)
    assert (
        re.findall(r"(?:src|href)=[\"']?(?!#|data:|\$)[^\"'> ]+", page.split("<script>")[0]) == []
    )
    assert not re.search(r"@import|url\(", page)
    assert "/*STYLE*/" not in page
    assert "/*DATA*/" not in page
    assert "/*SCRIPT*/" not in page


def test_a_saved_page_is_not_live_and_a_served_one_says_why_it_is_old():
    assert _data(static_page(SNAPSHOT))["live"] is False
    served = _data(live_page(page_data(SNAPSHOT, error="the ledger is away")))
    assert (served["live"], served["error"]) == (True, "the ledger is away")


def test_the_style_knows_every_state():
    page = static_page(SNAPSHOT)
    for state in STATES:
        assert f"[data-state={state}]" in page
        assert f"--{state}:#" in page
