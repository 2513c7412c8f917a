"""The fleet of the cluster tests: six of the fifty of model_specs/recommenders.yaml, three with a GPU.

All fifty with RETRAIN_K8S_FLEET=50.
"""

import os
from itertools import chain, zip_longest
from typing import Any

import yaml
from k8s.cluster import ROOT

__all__ = ["SIZE", "fleet", "fleet_files"]

SIZE = int(os.environ.get("RETRAIN_K8S_FLEET", "6"))


def fleet() -> dict[str, Any]:
    """SIZE of the example's models, of which every other asks for a GPU while there are any such; all have two
    weeks of data."""
    text = (ROOT / "model_specs/recommenders.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    found["template"]["source"]["options"] |= {"opens": 0, "seconds_per_day": 1_000_000}
    with_gpu, without = [], []
    for row in found["for_each"]:
        (with_gpu if "resources.candidate_model.gpu" in row else without).append(row)
    in_turn = chain.from_iterable(zip_longest(with_gpu, without))
    found["for_each"] = [row for row in in_turn if row][:SIZE]
    return found


def fleet_files() -> dict[str, str]:
    """Its spec file, by path."""
    return {"recommenders.yaml": yaml.safe_dump(fleet())}
