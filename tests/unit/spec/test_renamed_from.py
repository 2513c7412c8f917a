"""`renamed_from` in a spec: what it may be, and what happens while both names are there."""

import pytest

from retrain_assets.errors import SpecError
from retrain_assets.spec.loading import load_specs, parse_spec

SPEC = """\
name: leavers
renamed_from: churn
partitions: {every: day, start: 2024-01-01}
source: {files: "data/{partition}.parquet"}
target: label
task: binary
train: {window: 10, holdout: 4}
"""


def test_a_new_name_while_the_old_one_is_still_a_model_is_quarantined(tmp_path):
    (tmp_path / "leavers.yaml").write_text(SPEC)
    old = SPEC.replace("renamed_from: churn\n", "").replace("leavers", "churn")
    (tmp_path / "churn.yaml").write_text(old)
    found = load_specs(tmp_path)
    assert list(found.models) == ["churn"]
    (broken,) = found.broken
    assert (broken.name, broken.rivals) == ("leavers", (tmp_path / "churn.yaml",))
    assert str(broken.problems[0]) == (
        f"line 2  renamed_from: 'churn' is still a model ({tmp_path / 'churn.yaml'}); "
        "remove it there, or this"
    )
    (tmp_path / "churn.yaml").unlink()
    assert list(load_specs(tmp_path).models) == ["leavers"]


def test_a_model_is_not_renamed_from_its_own_name(tmp_path):
    (tmp_path / "leavers.yaml").write_text(SPEC.replace("churn", "leavers"))
    with pytest.raises(
        SpecError, match="renamed_from: must be another name, got 'leavers' for both"
    ):
        parse_spec(tmp_path / "leavers.yaml")
