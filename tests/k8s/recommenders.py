"""The fleet of the cluster tests: eight of the fifty of model_specs/recommenders.yaml, four with a GPU.

All fifty with RETRAIN_K8S_FLEET=50.
"""

import os
from typing import Any

import yaml
from k8s.cluster import ROOT

__all__ = ["SIZE", "fleet", "fleet_files"]

SIZE = int(os.environ.get("RETRAIN_K8S_FLEET", "8"))


def fleet() -> dict[str, Any]:
    """The first SIZE of the example's models, all of which have two weeks of data."""
    text = (ROOT / "model_specs/recommenders.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    found["template"]["source"]["options"] |= {"opens": 0, "seconds_per_day": 1_000_000}
    found["for_each"] = found["for_each"][:SIZE]
    return found


def fleet_files() -> dict[str, str]:
    """Its spec file, by path."""
    return {"recommenders.yaml": yaml.safe_dump(fleet())}
