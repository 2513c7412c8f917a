"""The exception tree: everything that this package raises on purpose.

    RetrainError
    ├── SpecError            one or more problems in spec files (file, line, rule, value, remedy)
    ├── RevisionError        no such Git revision to compare spec files with
    ├── SettingsError        the environment: an unset or unusable variable
    ├── RequestError         a person asks for models or data that there are not
    ├── SourceError          a source cannot be read, or has no such partition
    ├── ContractError        raw data breaks the model's data contract
    ├── FeatureError         the user's SQL or Python transform failed or broke its rules
    ├── TableError           a table at rest is missing or unreadable
    ├── DriftError           two tables cannot be compared
    ├── TrainingError        too little data, a bad target, a trainer that failed
    ├── ReplayError          a history that cannot be replayed, or no such policy
    ├── RegistryError        the model registry: unreachable, or holds something else than it should
    ├── StatusError          the status cannot be shown: a file, a port
    └── LedgerError          the promotion ledger
        ├── ChampionChanged  somebody else promoted in between: compare-and-set lost
        ├── RolledBack       this very version was rolled back, by a person or by the guard
        ├── Declined         a person has rejected this very candidate
        └── NotAwaiting      the version does not wait for approval (any more)

Messages name the subject, the rule, the value and the remedy. A message never contains the value of
an environment variable.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = [
    "ChampionChanged",
    "ContractError",
    "Declined",
    "DriftError",
    "FeatureError",
    "LedgerError",
    "NotAwaiting",
    "Problem",
    "RegistryError",
    "ReplayError",
    "RequestError",
    "RetrainError",
    "RevisionError",
    "RolledBack",
    "SettingsError",
    "SourceError",
    "SpecError",
    "StatusError",
    "TableError",
    "TrainingError",
]


_FEW_ROWS = 5
"""Rows of a fleet that a report names before it counts the rest."""


class RetrainError(Exception):
    """Base of every error that this package raises on purpose."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in one spec file.

    Attributes:
        file: path of the file as the user gave it.
        line: 1-based line; 0 where the problem is the file as a whole.
        path: dotted path of the field, "" for the file as a whole.
        message: the rule, the value and the remedy.
        row: 1-based row of a fleet file; 0 where it is no fleet, or the problem has no row.
    """

    file: str
    line: int
    path: str
    message: str
    row: int = 0

    def __str__(self) -> str:
        return self.shown([self.row] if self.row else [])

    def shown(self, rows: Sequence[int]) -> str:
        """The problem as it is in `rows` of the fleet: many rows may share one."""
        parts = [f"line {self.line}"] if self.line else []
        if rows:
            few = ", ".join(map(str, sorted(rows)[:_FEW_ROWS]))
            more = f" and {len(rows) - _FEW_ROWS} more" if len(rows) > _FEW_ROWS else ""
            parts.append(f"row{'s' if len(rows) > 1 else ''} {few}{more}")
        where = f"{', '.join(parts)}  " if parts else ""
        field = f"{self.path}: " if self.path else ""
        return f"{where}{field}{self.message}"


class SpecError(RetrainError):
    """All problems of one or more spec files at once.

    `str()` of it is the report that the command line prints::

        model_specs/churn.yaml: 2 problems
          line 14  gate.metric: 'aucc' is not one of ... (did you mean 'auc'?)
          line 21  train.holdout: must be >= 1, got 0
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__(self._render())

    def _render(self) -> str:
        by_file: dict[str, dict[Problem, list[int]]] = {}
        for problem in self.problems:
            problems = by_file.setdefault(problem.file, {})
            rows = problems.setdefault(replace(problem, row=0), [])
            if problem.row:
                rows.append(problem.row)
        lines: list[str] = []
        for file, problems in by_file.items():
            lines.append(f"{file}: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
            lines.extend(f"  {problem.shown(rows)}" for problem, rows in problems.items())
        return "\n".join(lines)


class RevisionError(RetrainError):
    """Spec files cannot be compared with a Git revision: there is none of that name, or no Git."""


class SettingsError(RetrainError):
    """An environment variable is unset or unusable."""


class RequestError(RetrainError):
    """A person asks for models or data that there are not."""


class SourceError(RetrainError):
    """A source cannot be read, or does not have the partition."""


class ContractError(RetrainError):
    """Raw data breaks the model's data contract."""


class FeatureError(RetrainError):
    """The feature transform failed, or its result breaks the rules for a feature table."""


class TableError(RetrainError):
    """A table at rest is missing or unreadable."""


class DriftError(RetrainError):
    """Two tables cannot be compared."""


class TrainingError(RetrainError):
    """A model cannot be trained or evaluated."""


class ReplayError(RetrainError):
    """A model's history cannot be replayed, or there is no policy of that name."""


class RegistryError(RetrainError):
    """The model registry is unreachable, or holds something else than it should."""


class StatusError(RetrainError):
    """The status of the fleet cannot be written or served."""


class LedgerError(RetrainError):
    """The promotion ledger cannot be read or written."""


class ChampionChanged(LedgerError):
    """Compare-and-set lost: the champion is no longer the one the candidate was compared with."""


class RolledBack(LedgerError):
    """The version was champion and was rolled back: it does not come back by itself."""


class Declined(LedgerError):
    """A person rejected the candidate: the same data does not propose it again by itself."""


class NotAwaiting(LedgerError):
    """The version does not wait for approval: it never did, or somebody has decided."""
