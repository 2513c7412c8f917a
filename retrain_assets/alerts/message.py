"""What is told to people: one message, independent of how it is sent.

Belongs here: the kinds of messages and their shape. Does not: sending (`send`), deciding when.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Message"]

Kind = Literal[
    "run_failed",
    "contract",
    "rejected",
    "approval",
    "aliases",
    "champion_lost",
    "drift",
    "stale",
    "broken_spec",
    "promoted",
    "rolled_back",
    "guard",
    "suspect_data",
]


@dataclass(frozen=True)
class Message:
    """One message to people.

    Attributes:
        kind: what happened.
        model: the model it is about, None for the platform as a whole.
        title: one line.
        body: Markdown.
        url: page with the details, None where there is none.
    """

    kind: Kind
    model: str | None
    title: str
    body: str
    url: str | None = None

    @property
    def severity(self) -> Literal["failure", "warning", "success"]:
        """How urgent it looks where the receiving service can show that."""
        if self.kind in ("run_failed", "contract", "broken_spec", "champion_lost"):
            return "failure"
        return "success" if self.kind == "promoted" else "warning"

    def subject(self) -> str:
        """The title on one line, with the model in front unless it names it already.

        >>> Message("drift", "churn", "3 of 9 features drifted", "").subject()
        'churn: 3 of 9 features drifted'
        """
        title = " ".join(self.title.split())
        return title if self.model is None or self.model in title else f"{self.model}: {title}"

    def markdown(self) -> str:
        """The body and, below, the link.

        >>> print(Message("promoted", "churn", "v3", "It won.", "http://ui/runs/1").markdown())
        It won.
        <BLANKLINE>
        [Details](http://ui/runs/1)
        """
        link = f"[Details]({self.url})" if self.url else ""
        return "\n\n".join(part for part in (self.body.strip(), link) if part)
