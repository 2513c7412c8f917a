"""Broken specs in the Dagster UI: one asset per file, or row of a fleet, that says what is wrong."""

import re
from collections.abc import Iterator
from typing import Any

import dagster as dg

from retrain_assets.errors import SpecError
from retrain_assets.orchestration.keys import QUARANTINE
from retrain_assets.spec.loading import BrokenSpec, load_specs

__all__ = ["quarantine_assets"]


def quarantine_assets(broken: tuple[BrokenSpec, ...]) -> list[dg.AssetsDefinition]:
    """One asset in group `quarantine` per broken spec; two with one name get two assets."""
    assets: dict[str, dg.AssetsDefinition] = {}
    for spec in broken:
        name = re.sub(r"[^A-Za-z0-9_]+", "_", spec.name) or "spec"
        while name in assets:
            name += "_"
        assets[name] = _asset(name, spec)
    return list(assets.values())


def _asset(name: str, broken: BrokenSpec) -> dg.AssetsDefinition:
    report = str(SpecError(list(broken.problems)))
    key = dg.AssetKey([QUARANTINE, name])

    @dg.asset(
        key=key,
        group_name=QUARANTINE,
        kinds={"yaml"},
        description=(
            f"**This spec is broken; its model is not loaded.** All others are.\n\n```\n{report}\n```\n\n"
            "Mend the file and reload the definitions. `retrain check` says the same on the command line."
        ),
        check_specs=[dg.AssetCheckSpec("spec_is_valid", asset=key)],
        metadata={"file": dg.MetadataValue.path(str(broken.file))},
    )
    def quarantined() -> Iterator[Any]:
        text = _check_again(broken)
        if text is not None:
            raise dg.Failure(description=text, allow_retries=False)
        yield dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(
                    passed=True,
                    check_name="spec_is_valid",
                    description="the file is valid now: reload the definitions",
                )
            ]
        )

    return quarantined


def _check_again(broken: BrokenSpec) -> str | None:
    """What is wrong with the file now, None where nothing is."""
    rivals = [file for file in broken.rivals if file.exists()]
    try:
        found = load_specs([broken.file, *rivals])
    except SpecError as error:
        return str(error)
    problems = [
        problem
        for spec in found.broken
        if spec.file == broken.file and (None in (spec.row, broken.row) or spec.name == broken.name)
        for problem in spec.problems
    ]
    return str(SpecError(problems)) if problems else None
