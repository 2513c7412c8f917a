"""What an asset's step asks of the machine that runs it: the spec's section `resources`.

Belongs here: the fields and their rules. Does not: what Kubernetes makes of them (the orchestration's).
"""

import re
from math import ceil
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from retrain_assets.spec.section import Section
from retrain_assets.spec.types import shown

__all__ = ["MemoryRetry", "Resources", "Toleration"]

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, without exponents
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_LABEL = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
_CLASS_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def bytes_of(quantity: str) -> int:
    """Bytes of a quantity such as `512Mi` or `4Gi`.

    Raises:
        ValueError: it is none.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"must be an amount of memory like 512Mi or 4Gi, got {shown(quantity)}")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def _check_size(value: str) -> str:
    least = 4 * 2**20  # a container runtime refuses less
    if bytes_of(value) < least:
        raise ValueError(f"must be at least 4Mi, got {shown(value)}")
    return value


Size = Annotated[str, AfterValidator(_check_size)]
LabelKey = Annotated[str, Field(pattern=_LABEL)]
LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE)]


class Toleration(Section):
    """A taint of nodes that the step's pod tolerates."""

    key: LabelKey | None = Field(None, description="Key of the taint; left out for every taint.")
    operator: Literal["Equal", "Exists"] = Field(
        "Equal", description="Whether the value must be equal, or the key just exist."
    )
    value: LabelValue | None = Field(None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint; left out for every effect."
    )

    @model_validator(mode="after")
    def _possible(self) -> "Toleration":
        if self.key is None and self.operator != "Exists":
            raise ValueError("without key, operator must be Exists")
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists takes no value")
        return self


class MemoryRetry(Section):
    """How much more memory an attempt gets after one that was killed for its memory."""

    factor: float = Field(
        2.0, gt=1, le=16, description="The next attempt's memory, as a multiple of the last one's."
    )
    limit: Size = Field(description="Most memory that an attempt asks for, like 16Gi.")

    def after(self, memory: str) -> str | None:
        """What the attempt after one with `memory` asks for, in whole MiB; None at the limit.

        >>> MemoryRetry(factor=2, limit="7Gi").after("3Gi")
        '6144Mi'
        >>> MemoryRetry(factor=2, limit="7Gi").after("6144Mi")
        '7Gi'
        >>> MemoryRetry(factor=2, limit="7Gi").after("7Gi")
        """
        used, most = bytes_of(memory), bytes_of(self.limit)
        if used >= most:
            return None
        more = ceil(used * self.factor / 2**20)
        return f"{more}Mi" if more * 2**20 < most else self.limit


class Resources(Section):
    """What one asset's step asks for; all of it is a request and, but for the CPU, a limit."""

    cpu: float | None = Field(None, gt=0, le=1024, description="CPU cores.")
    memory: Size | None = Field(None, description="Memory, like 512Mi or 4Gi.")
    memory_retry: MemoryRetry | None = Field(
        None,
        description="Kubernetes: a pod that is killed for its memory is tried again with more of it, as "
        "often as the instance's `run_retries` allow.",
    )
    ephemeral_storage: Size | None = Field(None, description="Local disk, like 10Gi.")
    gpu: int = Field(0, ge=0, le=64, description="GPUs.")
    gpu_type: LabelValue | None = Field(
        None, description="Value of the node label `nvidia.com/gpu.product`."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels that the node must have."
    )
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that are tolerated.")
    priority: str | None = Field(None, pattern=_CLASS_NAME, description="Name of a PriorityClass.")
    isolate: bool = Field(
        False, description="Whether the step gets a process or pod of its own in any case."
    )

    @model_validator(mode="after")
    def _possible(self) -> "Resources":
        if self.gpu_type is not None and not self.gpu:
            raise ValueError("gpu_type needs gpu: 1 or more")
        if self.memory_retry is not None:
            if self.memory is None:
                raise ValueError("memory_retry needs memory: what the first attempt gets")
            if bytes_of(self.memory_retry.limit) <= bytes_of(self.memory):
                raise ValueError(
                    f"memory_retry.limit must be more than memory, {self.memory}, "
                    f"got {shown(self.memory_retry.limit)}"
                )
        return self

    @property
    def isolated(self) -> bool:
        """Whether the step runs apart from the run's other steps: it asks for anything at all."""
        return self != Resources()
