"""What all sections of a spec have in common. The sections are in `model` and `resources`."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """A frozen group of fields that refuses unknown ones; its errors do not repeat the input."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )
