"""The registry follows the ledger, whatever somebody did to it by hand.

Belongs here: comparing, and what is done about each difference. Does not: when it is asked for, and
who is told (`orchestration`).

| in the registry | what is done |
|---|---|
| an alias was moved or deleted | it is set again |
| the champion's version was deleted | the newest earlier champion that loads takes over, on record |
| that one does not load either, but exists | nothing: it may be the storage that is away |
| no earlier champion is left | the ledger records that there is none; a first training follows |

What a person rolled back never takes over. A version counts as deleted only if the registry answers
that it is gone and knows the run that logged it: an unreachable registry, or another one, is an error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from retrain_assets.errors import ChampionChanged, RegistryError
from retrain_assets.promotion.ledger import taken_down
from retrain_assets.promotion.promote import project_champion

if TYPE_CHECKING:
    from datetime import datetime

    from retrain_assets.promotion.ledger import Ledger, Promotion
    from retrain_assets.promotion.registry import MlflowRegistry

__all__ = ["Repair", "reconcile"]

Kind = Literal["aliases", "fallback", "vacancy", "unresolved", "no_previous", "known"]
_ACTOR = "reconciler"


@dataclass(frozen=True)
class Repair:
    """One model whose aliases differed from the ledger.

    Attributes:
        kind: `aliases` were set again; `fallback` and `vacancy` as the ledger's rows; `unresolved`:
            a person must act; `no_previous`: the champion before was deleted, so that its alias
            cannot be set; `known`: that again, named in `settled`, and not looked into.
        event: names the difference, the same at every look until it changes.
        since: when the ledger's row was written that the aliases should follow.
        text: what was found and what was done, for people.
    """

    model: str
    kind: Kind
    event: str
    since: "datetime"
    text: str


def reconcile(
    models: Collection[str],
    *,
    registry: "MlflowRegistry",
    ledger: "Ledger",
    settled: Collection[str] = (),
) -> list[Repair]:
    """Make the aliases of `models` follow the ledger.

    One query of the ledger and one of the registry, however many models; only models whose aliases
    differ are looked at further. Models without a row in the ledger are left alone. Safe to repeat,
    to kill, and to run in several processes at once.

    Args:
        models: names.
        settled: events of kind `no_previous` of earlier calls.

    Returns:
        What differed, by model, in the order of names.

    Raises:
        RegistryError, LedgerError: one of them cannot be asked, or is another one than before.
    """
    rows = ledger.newest(models)
    if not rows:
        return []
    few = len(rows) == 1
    present = {name: registry.aliases(name) for name in rows} if few else registry.all_aliases()
    repairs: list[Repair] = []
    strangers: list[str] = []
    for name in sorted(rows):
        row, found = rows[name], present.get(name, {})
        wanted = (None if row.is_vacancy else row.version, row.previous_version)
        if (found.get("champion"), found.get("previous")) == wanted:
            continue
        event = f"{name} {row.sequence}: {_shown(found)}"
        if event in settled:
            repairs.append(Repair(name, "known", event, row.promoted_at, ""))
            continue
        try:
            kind, text = _repaired(row, registry, ledger)
        except ChampionChanged:
            continue  # somebody else has changed the champion meanwhile, and sets the aliases
        except _UnknownRun as error:
            kind, text = "unresolved", str(error)
            strangers.append(name)
        repairs.append(Repair(name, kind, event, row.promoted_at, text))
    if len(strangers) == len(rows) > 1:
        raise RegistryError(
            f"the registry knows none of the {len(rows)} champions of the ledger, nor the runs that "
            "logged them; nothing was changed. Check RETRAIN_MLFLOW_URI: is it another registry?"
        )
    return repairs


class _UnknownRun(Exception):
    """The registry has neither the champion nor the run that logged it."""


def _shown(aliases: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {aliases.get(name, '-')}" for name in ("champion", "previous"))


def _repaired(row: "Promotion", registry: "MlflowRegistry", ledger: "Ledger") -> tuple[Kind, str]:
    """What was done about one model, and the sentence about it."""
    if row.is_vacancy or registry.exists(row.model, row.version, run_id=row.run_id):
        changes = project_champion(row.model, registry=registry, ledger=ledger)
        if changes:
            return "aliases", f"aliases were changed outside of the ledger: {'; '.join(changes)}"
        return "no_previous", (
            f"v{row.previous_version}, the champion before v{row.version}, was deleted from the "
            "registry; there is no alias `previous`"
        )
    if not registry.knows_run(row.run_id):
        raise _UnknownRun(
            f"the registry has neither champion v{row.version} nor the run {row.run_id} that logged "
            "it; nothing was changed. Check RETRAIN_MLFLOW_URI: is it another registry?"
        )
    target, unreadable = _successor(row, registry, ledger)
    gone = f"champion v{row.version} was deleted from the registry"
    if target is None and unreadable:
        return "unresolved", (
            f"{gone}, and no earlier champion loads ({'; '.join(unreadable)}); nothing was changed. "
            f"Restore the files, or promote another version"
        )
    done = (
        f"v{target.version}, champion before it, serves again" if target else
        "no earlier champion is left, so that there is none; a first training follows"
    )  # fmt: skip
    ledger.replace_lost(row, target, actor=_ACTOR, reason=f"{gone}; {done}")
    project_champion(row.model, registry=registry, ledger=ledger)
    return ("fallback" if target else "vacancy"), f"{gone}; {done}"


def _successor(
    lost: "Promotion", registry: "MlflowRegistry", ledger: "Ledger"
) -> tuple["Promotion | None", list[str]]:
    """The newest earlier champion that loads; and why those that exist before it do not."""
    past = ledger.history(lost.model)[::-1]
    refused = taken_down(past)
    unreadable: list[str] = []
    seen = {lost.run_id}
    for row in past:
        if row.run_id in seen or row.fingerprint in refused:
            continue
        seen.add(row.run_id)
        if not registry.exists(row.model, row.version, run_id=row.run_id):
            continue
        try:
            registry.load_verified(row.model, row.version, run_id=row.run_id)
        except RegistryError as error:
            unreadable.append(str(error))
            continue
        return row, unreadable
    return None, unreadable
