"""A model gets a new name: its champion and its history go with it, once.

Belongs here: what is copied from the former name to the new one, in an order that a kill between any
two steps leaves harmless. Does not: when it is asked for (`orchestration`), the tables of rows, which
are read from the source again.

First what the champion needs beside the ledger is copied: versions in the registry, which point to the
same files and run, and what is stored of the champion's training. Then one transaction copies the
ledger's rows, with the new version numbers; it decides, since the unique keys let one of two writers
win. The aliases follow the ledger as always. Nothing under the former name is changed.
"""

from typing import TYPE_CHECKING, Any

from retrain_assets.errors import RegistryError
from retrain_assets.promotion.database import LostRace, insert_row
from retrain_assets.promotion.model_files import copy_model
from retrain_assets.promotion.promote import project_champion
from retrain_assets.promotion.tables import data_states, decisions, judgements, promotions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from retrain_assets.data.tables import TableStore
    from retrain_assets.promotion.ledger import Ledger, Promotion
    from retrain_assets.promotion.registry import MlflowRegistry

__all__ = ["adopt", "adopt_all"]

_REFERENCE = "reference"


def adopt(
    model: str, former: str, *, registry: "MlflowRegistry", ledger: "Ledger", store: "TableStore"
) -> bool:
    """Give `model` the champion and the history of `former`, if it has none of its own.

    Of the history, promotions whose version was deleted from the registry stay behind. Repeating it
    changes nothing; of two callers at the same time one does it.

    Returns:
        Whether this call did it.

    Raises:
        RegistryError: the former champion's version was deleted, or the registry cannot be reached.
        LedgerError, TableError: the ledger or the store cannot be reached.
    """
    if ledger.newest_of(model) is not None:
        return False
    past = ledger.history(former)
    if not past or past[-1].is_vacancy:
        return False
    champion = past[-1]
    versions = _copied_versions(model, former, past, registry)
    if champion.version not in versions:
        raise RegistryError(
            f"{model}: v{champion.version}, the champion of {former}, was deleted from the registry; "
            f"nothing was taken over. Remove renamed_from to begin without a champion, or promote "
            f"another version of {former} first"
        )
    _copy_reference(model, former, champion.fingerprint, store)
    copy_model(store, former, model, champion.fingerprint)
    try:
        with ledger.database.transaction(write=True) as connection:
            _copy_rows(connection, model, former, past, versions)
    except LostRace:
        return False  # another process has copied the same rows
    project_champion(model, registry=registry, ledger=ledger)
    return True


def adopt_all(
    former: "Mapping[str, str]",
    *,
    registry: "MlflowRegistry",
    ledger: "Ledger",
    store: "TableStore",
) -> list[str]:
    """`adopt` for many models: two queries, however many have taken over already.

    Args:
        former: model → its former name.

    Returns:
        The models that took over now.
    """
    known = ledger.newest(list(former)) if former else {}
    missing = {model: old for model, old in former.items() if model not in known}
    there = ledger.newest(list(missing.values())) if missing else {}
    return [
        model
        for model, old in missing.items()
        if old in there and adopt(model, old, registry=registry, ledger=ledger, store=store)
    ]


def _copied_versions(
    model: str, former: str, past: "Sequence[Promotion]", registry: "MlflowRegistry"
) -> dict[str, str]:
    """Version of `former` → version of `model`, for those that were ever champion and still exist."""
    runs = {row.version: row.run_id for row in past if not row.is_vacancy}
    copied = {
        version: registry.copy_version(former, version, run_id=run_id, to=model)
        for version, run_id in runs.items()
    }
    return {version: new for version, new in copied.items() if new is not None}


def _copy_reference(model: str, former: str, fingerprint: str, store: "TableStore") -> None:
    """What drift is measured against; releases before this one stored less of it."""
    if store.exists(former, _REFERENCE, fingerprint):
        store.write(model, _REFERENCE, fingerprint, store.read(former, _REFERENCE, [fingerprint]))
    (profile,) = store.read_profiles(former, _REFERENCE, [fingerprint])
    if profile is not None:
        store.write_profile(model, _REFERENCE, fingerprint, profile)
    if store.json_exists(former, _REFERENCE, fingerprint):
        document = store.read_json(former, _REFERENCE, fingerprint)
        store.write_json(model, _REFERENCE, fingerprint, document)


def _copy_rows(
    connection: "Connection",
    model: str,
    former: str,
    past: "Sequence[Promotion]",
    versions: "Mapping[str, str]",
) -> None:
    """Promotions with new numbers; decisions, judgements and bad data as they are."""
    from retrain_assets.promotion.ledger import written

    kept = [row for row in past if not row.is_vacancy and row.version in versions]
    for sequence, row in enumerate(kept, start=1):
        values = {
            **vars(row),
            "model": model,
            "sequence": sequence,
            "version": versions[row.version],
            "expected_version": versions.get(row.expected_version or ""),
            "reason": f"{row.reason} (as {former} v{row.version})",
            "promoted_at": written(row.promoted_at),
        }
        insert_row(connection, promotions(), values)
    for table in (decisions(), judgements(), data_states()):
        _copy_table(connection, table, model, former)


def _copy_table(connection: "Connection", table: Any, model: str, former: str) -> None:
    import sqlalchemy as sa

    names = [column.name for column in table.columns if column.name not in ("id", "model")]
    rows = sa.select(sa.literal(model), *(table.c[name] for name in names)).where(
        table.c.model == former
    )
    query = rows.order_by(table.c.id)
    connection.execute(sa.insert(table).from_select(["model", *names], query))
