"""The HTML page of a replay: complete, self-contained, safe, and nothing on top of anything else."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from retrain_assets.replay.page import _labels, _round_values, replay_page
from retrain_assets.replay.result import PolicyResult, Recommendation, Result
from retrain_assets.replay.staleness import Age


def policy(name: str, value: float, retrainings: float) -> PolicyResult:
    return PolicyResult(
        name, value, retrainings, 1, 0, 0, 2.0, value - 0.6, -0.01, 0.05, None,
        f"retrain: {{on: {name}}}", {},
    )  # fmt: skip


RESULT = Result(
    model="churn<b>", metric="roc_auc", direction="maximize", first="2024-01-01", last="2024-03-01",
    partitions=60, rows=6000,
    policies=(policy("never", 0.6, 0), policy("every_1", 0.7, 59), policy("combined", 0.69, 4)),
    oracle=((0, 0.6), (1, 0.68), (4, 0.71)), baseline=0.65,
    staleness=(Age(1, 7, 0.0, -0.01, 0.01, 5), Age(8, 14, 0.03, 0.02, 0.04, 5)),
    max_age=7, matters=0.006, recommendation=Recommendation("combined", "it is < as good", "retrain: {}"),
    trainings=60, training_seconds=12.0, notes=("nothing live changes",),
)  # fmt: skip


class _Balanced(HTMLParser):
    """Fails on a tag that is closed and was not open."""

    _ALONE = ("meta", "line", "circle", "polyline", "polygon")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self._ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._ALONE:
            assert self.open.pop() == tag


def test_the_page_is_whole_names_every_policy_and_loads_nothing() -> None:
    page = replay_page(RESULT)
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    for one in RESULT.policies:
        assert f">{one.name}</text>" in page
        assert f"<td>{one.value:.4f}</td>" in page
    assert not re.search(r"https?:|<script|<img|<link|url\(", page)
    assert "max_age 7" in page


def test_text_of_the_spec_is_never_markup() -> None:
    page = replay_page(RESULT)
    assert "churn<b>" not in page
    assert "churn&lt;b&gt;: take combined" in page
    assert "it is &lt; as good" in page


@pytest.mark.parametrize(
    "changes",
    [
        {"recommendation": None},
        {"staleness": (), "max_age": None},
        {"staleness": (Age(1, 500, 0.0, None, None, 1),), "baseline": None, "max_age": None},
        {"policies": (policy("never", 0.6, 0), policy("combined", 0.6, 0)), "oracle": ((0, 0.6),)},
    ],
    ids=["no recommendation", "no staleness", "one age", "nothing ever retrained"],
)
def test_what_could_not_be_told_leaves_a_page(changes: dict[str, object]) -> None:
    page = replay_page(replace(RESULT, **changes))
    assert "nan" not in page
    assert page.endswith("</html>\n")


def test_names_of_policies_that_served_alike_do_not_cover_one_another() -> None:
    names = ["never", "every_14", "combined", "performance", "random"]
    points = [(200.0 + n, 100.0 + n) for n in range(5)]
    boxes = [
        (left, base - 9, left + 6.6 * len(name), base)
        for name, (left, base) in zip(names, _labels(points, names), strict=True)
    ]
    for n, one in enumerate(boxes):
        for other in boxes[n + 1 :]:
            apart = (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            )
            assert apart, (one, other)


@pytest.mark.parametrize("span", [(0.597, 0.649), (-3.0, 12.0), (0.0, 1e-6), (99.0, 1001.0)])
def test_an_axis_has_some_round_values_and_all_lie_on_it(span: tuple[float, float]) -> None:
    low, high = span
    values = _round_values(low, high)
    assert 3 <= len(values) <= 8
    assert low <= values[0] <= values[-1] <= high
