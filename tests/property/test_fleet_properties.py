"""A fleet is the specs that it expands to: written out by hand they are the same models."""

from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain_assets.spec.fleet import expand
from retrain_assets.spec.loading import validate_document
from retrain_assets.spec.source_lines import parse_yaml

HERE = Path("specs")
TEMPLATE = {
    "name": "m_{id}",
    "description": "{note} of {id}",
    "partitions": {"every": "day", "start": "2024-01-01"},
    "source": {"files": "data/{id}/{partition}.parquet"},
    "target": "{target}",
    "task": "binary",
    "train": {"window": "{window}", "holdout": 2, "params": {"num_leaves": 15}},
    "tags": {"id": "{id}"},
}
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
OVERRIDES = {
    "owner": st.sampled_from(["team:a", "a@b.cd"]),
    "train.holdout": st.integers(1, 4),
    "train.params": st.dictionaries(
        st.sampled_from(["num_leaves", "max_depth"]), st.integers(2, 9)
    ),
    "train.params.min_child_samples": st.integers(1, 50),
    "gate": st.fixed_dictionaries({"floor": st.floats(0, 1)}),
    "retrain.schedule": st.sampled_from(["0 3 * * *", "5 4 * * 1"]),
    "retrain.on_drift": st.booleans(),
    "alerts": st.lists(st.sampled_from(["ops", "sales"]), max_size=2),
    "resources.candidate_model.gpu": st.integers(0, 2),
}
ROWS = st.lists(
    st.fixed_dictionaries(
        {"note": TEXT, "target": st.sampled_from(["y", "label"]), "window": st.integers(5, 90)},
        optional=OVERRIDES,
    ),
    min_size=1,
    max_size=6,
)


def _expanded(rows):
    rows = [{"id": f"r{n}", **row} for n, row in enumerate(rows)]
    text = yaml.safe_dump({"template": TEMPLATE, "for_each": rows}, allow_unicode=True)
    return rows, expand(parse_yaml(text), "fleet.yaml", HERE).members


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_a_member_is_the_model_that_its_expansion_written_to_a_file_is(rows):
    _, members = _expanded(rows)
    for member in members:
        assert member.problems == ()
        alone = parse_yaml(yaml.safe_dump(member.document.data, allow_unicode=True))
        assert validate_document(member.document, "fleet.yaml", HERE) == validate_document(
            alone, "one.yaml", HERE
        )


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_each_row_is_one_model_and_its_overrides_are_in_it_and_in_no_other(rows):
    rows, members = _expanded(rows)
    specs = [validate_document(member.document, "fleet.yaml", HERE) for member in members]
    assert [spec.name for spec in specs] == [f"m_r{n}" for n in range(len(rows))]
    for row, spec in zip(rows, specs, strict=True):
        assert spec.train.window == row["window"]
        assert spec.train.holdout == row.get("train.holdout", 2)
        assert spec.owner == row.get("owner")
        assert spec.description == f"{row['note']} of {row['id']}"
        params = {"num_leaves": 15, **row.get("train.params", {})}
        if "train.params.min_child_samples" in row:
            params["min_child_samples"] = row["train.params.min_child_samples"]
        assert spec.train.params == params
