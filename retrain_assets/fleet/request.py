"""Whom a person means who asks for retrainings: names, a group, all, and the partition to train up to."""

from collections.abc import Collection, Mapping

from retrain_assets.errors import RequestError
from retrain_assets.spec.model import ModelSpec

__all__ = ["chosen"]


def chosen(
    specs: Mapping[str, ModelSpec],
    models: Collection[str],
    group: str | None,
    partition: str | None,
    *,
    everything: bool = False,
) -> list[ModelSpec]:
    """The models that a request means, by name.

    Raises:
        RequestError: a model, the group or the partition is unknown, or nothing is chosen; all
            problems at once.
    """
    problems = [
        f"no model named {name}; known: {', '.join(sorted(specs))}"
        for name in sorted(set(models) - set(specs))
    ]
    groups = {spec.group for spec in specs.values() if spec.group}
    if group is not None and group not in groups:
        problems.append(f"no group named {group}; known: {', '.join(sorted(groups)) or 'none'}")
    found = [
        spec
        for name, spec in sorted(specs.items())
        if everything or name in models or (group is not None and spec.group == group)
    ]
    if not found and not problems:
        problems.append("nothing is chosen: name models, or give a group, or all")
    if partition is not None:
        problems += [text for spec in found if (text := _misfit(spec, partition))]
    if problems:
        raise RequestError("\n".join(problems))
    return found


def _misfit(spec: ModelSpec, partition: str) -> str:
    if spec.scheme is None:
        return f"{spec.name}: has no partitions, so that it cannot be trained up to {partition}"
    try:
        spec.scheme.parse(partition)
    except ValueError as error:
        return f"{spec.name}: {error}"
    return ""
