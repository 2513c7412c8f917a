"""The command line, `retrain`. Starts fast: each command imports what it needs when it runs.

Exit codes: 0 fine, 1 findings, 2 usage or unreadable input.
"""

import gc
import importlib
import json
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from retrain_assets import __version__
from retrain_assets.drift.command import drift, profile
from retrain_assets.fleet.now import Retrained
from retrain_assets.replay.command import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from rich.table import Table

    from retrain_assets.fleet.snapshot import Snapshot
    from retrain_assets.fleet.status import StatusRow
    from retrain_assets.fleet.terminal import StatusTable
    from retrain_assets.orchestration.platform import Platform
    from retrain_assets.promotion.ledger import GuardOutcome, Promotion
    from retrain_assets.promotion.reviews import Review
    from retrain_assets.settings import Settings
    from retrain_assets.spec.fleet import Member
    from retrain_assets.spec.model import ModelSpec

__all__ = ["main"]

_SPECS = click.option(
    "--specs",
    "specs",
    type=click.Path(path_type=Path),
    default=Path("model_specs"),
    show_default=True,
    help="Folder of the spec files.",
)
_BY = click.option("--by", metavar="NAME", help="Who decides; by default user@host.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@contextmanager
def _no_garbage_collection() -> "Iterator[None]":
    """For a short command that mostly imports MLflow and LightGBM: 2 instead of 4 CPU seconds.

    The collector looks through the half million objects of the imports again and again, and once
    more when the process ends, unless they are frozen.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="retrain")
def main() -> None:
    """Retrain models by themselves, and put only better ones live.

    \b
    Examples:
      retrain new churn                 write a commented spec to model_specs/churn.yaml
      retrain check                     check every spec; 1 if one is broken
      retrain expand model_specs/recommenders.yaml   what a fleet file becomes
      retrain diff main                 which models a change of the specs touches
      retrain status                    what every model is doing
      retrain dashboard                 the same as a live page, with metrics for Prometheus
      retrain now --all                 retrain now, side by side, with progress
      retrain why churn                 why it was retrained, or was not
      retrain history churn             who promoted what, when and why
      retrain rollback churn --reason "…"   back to the champion before
      retrain promote                   what awaits approval, with its comparison
      retrain drift old.parquet new.parquet   drift between any two files
      retrain replay churn              what other retraining policies would have done
    """


main.add_command(drift)
main.add_command(profile)
main.add_command(replay)


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)


@contextmanager
def _leaving_when_interrupted() -> "Iterator[Callable[[], None]]":
    """An interrupt ends this process at once, until the function is called: nothing has begun yet.

    As an exception it would come in the middle of some import, where it may turn into another error,
    be swallowed, or leave a module half made.
    """

    def leave(*_: object) -> None:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # the progress bar hides it
        os.write(2, f"{show_cursor}\nInterrupted; nothing was begun.\n".encode())
        os._exit(128 + signal.SIGINT)

    def begin() -> None:
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as under nohup
        signal.signal(signal.SIGINT, leave)
    try:
        yield begin
    finally:
        begin()


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, sort_keys=True, default=str))


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@_SPECS
@_JSON
def check(paths: tuple[Path, ...], specs: Path, as_json: bool) -> None:
    """Check spec files: all problems at once, each with its line and what to do.

    Warnings are about valid specs and do not change the exit code.

    PATHS are files or folders; by default the folder of --specs.

    \b
    Examples:
      retrain check
      retrain check model_specs/churn.yaml
      retrain check --json | jq .problems
    """
    from retrain_assets.errors import SpecError
    from retrain_assets.spec.loading import advice, load_specs

    try:
        found = load_specs(list(paths) or [specs])
    except SpecError as error:
        _fail(str(error))
    problems = found.problems
    warnings = [warning for loaded in found.models.values() for warning in advice(loaded)]
    if as_json:
        rows, warned = ([vars(p) for p in each] for each in (problems, warnings))
        _print_json({"valid": sorted(found.models), "problems": rows, "warnings": warned})
    else:
        for warning in warnings:
            click.echo(f"{click.style('warning', fg='yellow')} {warning.file} {warning}")
        if problems:
            click.echo(str(SpecError(problems)))
        count = len(found.models)
        text = f"{count} valid spec{'' if count == 1 else 's'}"
        if found.broken:
            text += f", {len(found.broken)} broken"
        click.echo(click.style(text, fg="red" if problems else "green"))
        if not found.models and not found.broken:
            click.echo("no spec file found; `retrain new NAME` writes one")
    sys.exit(1 if problems else 0)


@main.command()
@click.option("--write", is_flag=True, help="Write both schemas to the folder of --specs.")
@click.option("--fleet", is_flag=True, help="That of a fleet file.")
@_SPECS
def schema(write: bool, fleet: bool, specs: Path) -> None:
    """Print the JSON Schema of a spec file, for completion and checks in an editor.

    \b
    Example:
      retrain schema --write
      # then, as the first line of a spec:
      # yaml-language-server: $schema=./schema.json
      # and of a fleet file:
      # yaml-language-server: $schema=./fleet.schema.json
    """
    from retrain_assets.spec.schema import SCHEMAS

    if not write:
        _print_json(SCHEMAS["fleet.schema.json" if fleet else "schema.json"]())
        return
    for name, make in SCHEMAS.items():
        file = specs / name
        text = json.dumps(make(), indent=2, sort_keys=True) + "\n"
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            _fail(f"{file} cannot be written: {error.strerror or error}")
        click.echo(f"wrote {file}")


@main.command()
@click.argument("name")
@_SPECS
def new(name: str, specs: Path) -> None:
    """Write a commented spec NAME.yaml that passes `retrain check`; never overwrites a file.

    \b
    Example:
      retrain new churn
    """
    from retrain_assets.errors import SpecError
    from retrain_assets.spec.loading import validate_document
    from retrain_assets.spec.schema import template
    from retrain_assets.spec.source_lines import parse_yaml

    file = specs / f"{name}.yaml"
    document = parse_yaml(template("name"))
    document.data["name"] = name
    try:
        validate_document(document, str(file), specs)
    except SpecError as error:
        _fail(str(error))
    try:
        specs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _fail(f"{specs} cannot be made: {error.strerror or error}")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(template(name))
    except FileExistsError:
        _fail(f"{file} exists; choose another name, or edit it")
    except OSError as error:
        _fail(f"{file} cannot be written: {error.strerror or error}")
    click.echo(f"wrote {file}: say where the data is, then run `retrain check`")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", metavar="NAME", help="Only this one.")
@_JSON
def expand(file: Path, model: str | None, as_json: bool) -> None:
    """Show what becomes of a fleet FILE: one YAML document per model, in the order of the rows.

    A document is a spec of its own, as it would stand in a file beside FILE. Rows with problems are
    left out and reported; the exit code is then 1.

    \b
    Examples:
      retrain expand model_specs/recommenders.yaml
      retrain expand model_specs/recommenders.yaml --model rec_berlin
      retrain expand model_specs/recommenders.yaml --json | jq '.models[].spec.name'
    """
    from retrain_assets.errors import Problem, SpecError
    from retrain_assets.spec.loading import Functions, members_of, validate_member

    valid, problems, functions = [], list[Problem](), Functions()
    try:
        members = members_of(file)
    except SpecError as error:
        _fail(str(error))
    for member in members:
        if model in (None, member.name):
            try:
                validate_member(member, file, functions)
                valid.append(member)
            except SpecError as error:
                problems += error.problems
    if model is not None and not valid and not problems:
        _fail(f"{file} makes no model {model}; it makes {', '.join(m.name for m in members)}")
    if as_json:
        models = [{"row": m.row, "spec": m.document.data} for m in valid]
        _print_json({"models": models, "problems": [vars(p) for p in problems]})
    else:
        click.echo("---\n".join(map(_as_yaml, valid)), nl=False)
        if problems:
            click.echo(str(SpecError(problems)), err=True)
    sys.exit(1 if problems else 0)


def _as_yaml(member: "Member") -> str:
    import yaml

    row = "" if member.row is None else f"# row {member.row}\n"
    return row + yaml.safe_dump(member.document.data, sort_keys=False, allow_unicode=True)


@main.command()
@click.argument("revision", metavar="REV")
@_SPECS
@_JSON
def diff(revision: str, specs: Path, as_json: bool) -> None:
    """Show which models differ from Git revision REV, in what, and which of their assets that touches.

    Compares the specs as they are in the working tree, fleets row by row. Python code that a spec
    names is not compared. The exit code is 1 where a spec is broken.

    \b
    Examples:
      retrain diff HEAD
      retrain diff origin/main --json | jq '.changes[] | select(.kind == "removed")'
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.spec.changes import changes_since

    try:
        changes = changes_since(revision, specs)
    except RetrainError as error:
        _fail(str(error))
    if as_json:
        _print_json({"changes": [change.to_dict() for change in changes]})
    else:
        for change in changes:
            click.echo(change.line())
        if not changes:
            click.echo(f"no model differs from {revision}")
    sys.exit(1 if any(change.kind == "broken" for change in changes) else 0)


@main.command()
@click.argument("models", nargs=-1)
@click.option("--group", metavar="G", help="Only models of this asset group.")
@click.option(
    "--state",
    "states",
    metavar="S",
    multiple=True,
    help="Only models in this state (failing, drifting, ...); may be repeated.",
)
@click.option(
    "--max-age",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    help="How old a snapshot may be, counted from when nothing was known to have happened since; 0 reads now.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one page that needs nothing else to this file.",
)
@_SPECS
@_JSON
@_no_garbage_collection()
def status(
    models: tuple[str, ...],
    group: str | None,
    states: tuple[str, ...],
    max_age: float,
    page: Path | None,
    specs: Path,
    as_json: bool,
) -> None:
    """Show every model: champion, metric, drift, last run; what needs a person comes first.

    Reads the Dagster instance in DAGSTER_HOME (by default the one of `make dev`) and the ledger, or
    the snapshot of them that the fleet's sensor, the dashboard or this command has left behind.

    \b
    Examples:
      retrain status
      retrain status --group recommenders --state drifting
      retrain status flight_delay --max-age 0 --json
      retrain status --html fleet.html
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.fleet.status import STATES

    unknown_states = sorted(set(states) - set(STATES))
    if unknown_states:
        _fail(f"no state named {', '.join(unknown_states)}; known: {', '.join(STATES)}")
    try:
        snapshot = _snapshot(specs, models, max_age)
        rows = [
            row
            for row in snapshot.rows
            if (not models or row.model in models)
            and (group is None or row.group == group)
            and (not states or row.state in states)
        ]
        if page is not None:
            from retrain_assets.fleet.page import static_page
            from retrain_assets.fleet.snapshot import write_atomically

            write_atomically(page, static_page(replace(snapshot, rows=tuple(rows))))
            click.echo(f"wrote {page}", err=as_json)
    except RetrainError as error:
        _fail(str(error))
    if as_json:
        _print_json({**snapshot.to_dict(), "models": [row.to_dict() for row in rows]})
    elif page is None:
        _print_status(rows, snapshot)
    sys.exit(1 if any(row.state == "broken" for row in rows) else 0)


def _snapshot(specs: Path, models: tuple[str, ...], max_age: float) -> "Snapshot":
    """The status of all models: the newest that was left, where it is young enough, else read."""
    from retrain_assets.fleet.snapshot import specs_digest

    platform, key = _platform(), specs_digest([specs])
    home = platform.settings.home
    snapshot = _young_snapshot(platform, key, max_age) if max_age else None
    if snapshot is not None and {row.model for row in snapshot.rows} >= set(models):
        return snapshot
    from retrain_assets.spec.loading import load_specs

    found = load_specs(specs, cache_folder=home / "cache")
    known = {*found.models, *(broken.name for broken in found.broken)}
    _check_known(set(models) - known, known, specs)
    from retrain_assets.orchestration.status import read_status

    snapshot = read_status(found, key)
    problem = snapshot.leave(home)
    if problem:
        click.echo(f"warning: {problem}", err=True)
    return snapshot


def _young_snapshot(platform: "Platform", key: str, max_age: float) -> "Snapshot | None":
    """The sensor's snapshot, or this command's own where that is newer; None where both are old."""
    from datetime import UTC, datetime

    from retrain_assets.fleet.shared_snapshot import SharedSnapshot
    from retrain_assets.fleet.snapshot import read_snapshot

    left = [read_snapshot(platform.settings.home, key)]
    if _may_have_ledger(platform.settings):
        left.append(SharedSnapshot(platform.ledger).read(key))
    now = datetime.now(UTC)
    young = [one for one in left if one is not None and one.is_young(now, max_age)]
    return max(young, key=lambda one: one.good_until, default=None)


def _may_have_ledger(settings: "Settings") -> bool:
    """Whether there is anything to ask: on sqlite, asking would make the ledger first."""
    file = Path(settings.ledger_url.removeprefix("sqlite:///"))
    return not settings.ledger_url.startswith("sqlite") or file.exists()


def _check_known(strangers: set[str], known: set[str], specs: Path) -> None:
    """Fail unless the ledger knows the models that no spec describes: they are retired."""
    from retrain_assets.settings import Settings

    if not strangers:
        return
    if _may_have_ledger(Settings.load()):
        strangers = strangers - set(_platform().ledger.promotion_counts())
    if strangers:
        listed = ", ".join(sorted(known))
        _fail(f"no model named {', '.join(sorted(strangers))} in {specs}; known: {listed}")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=3010,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0 takes a free one.",
)
@_SPECS
def dashboard(host: str, port: int, specs: Path) -> None:
    """Serve the status of all models as a live page, with /metrics for Prometheus, until it is stopped.

    It shows what `retrain status` shows, changes nothing, and asks nobody who they are: an address
    other than 127.0.0.1 belongs behind a proxy that does.

    \b
    Examples:
      retrain dashboard
      retrain dashboard --host 0.0.0.0 --port 80
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.orchestration.dashboard import serve

    try:
        serve(specs, host, port, lambda url: click.echo(f"{url}  (Ctrl+C stops it)"))
    except RetrainError as error:
        _fail(str(error))


@main.command()
@click.argument("models", nargs=-1)
@click.option("--group", help="All models of a group.")
@click.option("--all", "everything", is_flag=True, help="All models.")
@click.option("--partition", help="Data up to this partition; by default each model's newest.")
@click.option(
    "--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="processors",
    help="How many runs at once.",
)  # fmt: skip
@_SPECS
@_JSON
def now(
    models: tuple[str, ...], group: str | None, everything: bool, partition: str | None, jobs: int,
    specs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Retrain MODELS now, side by side, on this machine; the gate decides as ever.

    Models of the same partition share runs, and the runs a few processes. Each decision is recorded,
    and runs are in the Dagster UI. Ctrl-C lets the runs end that go on; a second one, or SIGTERM, cancels them.
    On a cluster, start the job `retrain_now` in the Dagster UI instead.

    The exit code is 1 if a model could not be retrained or judged; a rejection is a result.

    \b
    Examples:
      retrain now churn
      retrain now --group recommenders --jobs 4
      retrain now --all --partition 2024-03-01
    """
    rows: list[Retrained] = []
    meant: list[ModelSpec] = []
    interrupted = False
    with _leaving_when_interrupted() as interruptible:
        from retrain_assets.errors import RetrainError
        from retrain_assets.fleet.now import now_progress, now_table
        from retrain_assets.fleet.request import chosen
        from retrain_assets.orchestration.now import retrain_now
        from retrain_assets.settings import Settings
        from retrain_assets.spec.loading import load_specs

        try:
            loaded = load_specs(specs).models
            known = {name: one.spec for name, one in loaded.items()}
            meant = chosen(known, models, group, partition, everything=everything)
            settings = Settings.load()
            with now_progress(quiet=as_json) as (begin, advance):

                def ready(total: int) -> None:
                    interruptible()
                    begin(total)

                wanted = [loaded[spec.name] for spec in meant]
                for row in retrain_now(wanted, partition, jobs, settings, ready):
                    rows.append(row)
                    advance(row)
            _forget_status(_platform())
        except RetrainError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            interrupted = True
            missing = {spec.name for spec in meant} - {row.model for row in rows}
            rows += [Retrained(name, "canceled", "interrupted") for name in sorted(missing)]
    if as_json:
        _print_json({"models": [asdict(row) for row in rows]})
    else:
        _print_wide(now_table(rows))
    failed = any(row.outcome in ("failed", "waits", "canceled") for row in rows)
    sys.exit(130 if interrupted else 1 if failed else 0)


@main.command()
@click.argument("model")
@click.option(
    "--last", metavar="N", default=5, show_default=True, type=click.IntRange(1, 1000),
    help="How many decisions.",
)  # fmt: skip
@_SPECS
@_JSON
def why(model: str, last: int, specs: Path, as_json: bool) -> None:
    """Say why MODEL was retrained or not: the last decisions, newest first, and what came of them.

    Each decision says what fired, with its numbers, and what held it back and until when.

    \b
    Examples:
      retrain why flight_delay
      retrain why flight_delay --last 20
      retrain why flight_delay --json | jq '.decisions[0].reasons'
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.orchestration.why import explain

    try:
        found = explain(_platform(), model, last)
        if not found:
            _check_model(model, specs)
    except RetrainError as error:
        _fail(str(error))
    if as_json:
        _print_json({"model": model, "decisions": [one.to_dict() for one in found]})
        return
    for one in found:
        click.echo("\n".join(one.lines()))
    if not found:
        click.echo(f"{model}: nothing was decided yet")


@main.command()
@click.argument("model")
@_SPECS
@_JSON
def history(model: str, specs: Path, as_json: bool) -> None:
    """Show every promotion, rollback and review of MODEL, newest first, and what promotions brought.

    \b
    Examples:
      retrain history flight_delay
      retrain history flight_delay --json | jq '.promotions[0].reason'
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.promotion.ledger import Promotion
    from retrain_assets.promotion.reviews import Reviews

    ledger = _platform().ledger
    try:
        rows = ledger.history(model)[::-1]
        reviews = Reviews(ledger).history(model)[::-1]
        realised = {outcome.sequence: outcome for outcome in ledger.outcomes(model)}
        if not rows and not reviews:
            _check_model(model, specs)
    except RetrainError as error:
        _fail(str(error))
    if as_json:
        document = {
            "model": model,
            "promotions": [
                {**_entry(row, row.promoted_at), "realised": _realised(realised.get(row.sequence))}
                for row in rows
            ],
            "reviews": [_entry(row, row.reviewed_at) for row in reviews],
        }
        _print_json(document)
        return
    if not rows:
        click.echo(f"{model}: nothing was promoted yet")
    shown: list[tuple[datetime, str, Promotion | Review]]
    shown = [(row.promoted_at, f"{row.sequence:>4}", row) for row in rows]
    # An approval is shown as the promotion that it made.
    shown += [(row.reviewed_at, "   -", row) for row in reviews if row.kind != "approved"]
    for at, number, row in sorted(shown, key=lambda item: item[0], reverse=True):
        what = f"{row.kind:<9}  v{row.version}{f' ({row.partition})' if row.partition else ''}"
        click.echo(f"{number}  {at:%Y-%m-%d %H:%M:%S}  {what}  by {row.actor}")
        click.echo(f"      {row.reason}")
        if isinstance(row, Promotion) and row.sequence in realised:
            click.echo(f"      {realised[row.sequence].sentence}")


def _realised(outcome: "GuardOutcome | None") -> dict[str, Any] | None:
    if outcome is None:
        return None
    keys = ("expected_gain", "gain", "gain_low", "gain_high", "partitions", "rows", "verdict")
    return {key: getattr(outcome, key) for key in (*keys, "through_partition")}


def _entry(row: "Promotion | Review", at: "datetime") -> dict[str, Any]:
    keys = ("sequence", "kind", "version", "partition", "metric", "value", "actor", "reason")
    return {**{key: getattr(row, key) for key in keys}, "at": at.isoformat()}


@main.command()
@click.argument("model")
@click.option("--to", "to_version", metavar="VERSION", help="A version that was champion before.")
@click.option("--reason", required=True, help="Why, for the record.")
@_BY
@_SPECS
@_no_garbage_collection()
def rollback(model: str, to_version: str | None, reason: str, by: str | None, specs: Path) -> None:
    """Make an earlier champion of MODEL champion again; by default the one before.

    The version is loaded before anything changes. Repeating the command changes nothing more.

    \b
    Examples:
      retrain rollback flight_delay --reason "complaints since Tuesday"
      retrain rollback flight_delay --to 3 --reason "last version before the new timetable"
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.promotion.rollback import roll_back

    platform = _platform()
    try:
        if platform.ledger.newest_of(model) is None:
            _check_model(model, specs)
        _import_lightgbm_alone()
        before, now = roll_back(
            model,
            to_version=to_version.removeprefix("v") if to_version else None,
            registry=platform.registry,
            ledger=platform.ledger,
            actor=by or _person(),
            reason=reason,
        )
    except RetrainError as error:
        _fail(str(error))
    _forget_status(platform)
    if now.sequence == before.sequence:
        click.echo(f"{model}: v{now.version} is champion already ({now.kind}); nothing was changed")
    else:
        click.echo(f"{model}: v{before.version} -> v{now.version}, loaded and recorded")


@main.command()
@click.argument("model", required=False)
@click.argument("version", required=False)
@click.option("--reason", help="Why, for the record; required with VERSION.")
@_BY
@_SPECS
@_no_garbage_collection()
def promote(
    model: str | None, version: str | None, reason: str | None, by: str | None, specs: Path
) -> None:
    """Promote the candidate VERSION of MODEL that awaits approval; without VERSION, show what waits.

    For models with `gate.approval: manual`. It must have passed the gate, and candidate and champion
    must still be the ones that were compared. The version is loaded before anything changes;
    repeating the command changes nothing more.

    \b
    Examples:
      retrain promote
      retrain promote flight_delay
      retrain promote flight_delay 7 --reason "agreed with operations"
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.promotion.approve import approve

    platform = _platform()
    try:
        if model is None or version is None:
            _show_waiting(platform, model, specs)
            return
        number, why = version.removeprefix("v"), _required(reason)
        _import_lightgbm_alone()
        review, new = approve(
            model,
            number,
            registry=platform.registry,
            ledger=platform.ledger,
            actor=by or _person(),
            reason=why,
        )
    except RetrainError as error:
        _fail(str(error))
    _forget_status(platform)
    if not new:
        click.echo(f"{model}: v{number} was {review.signed} before; nothing was changed")
        return
    before = f"v{review.expected_version}" if review.expected_version else "no champion"
    click.echo(f"{model}: {before} -> v{number}, loaded and recorded")


@main.command()
@click.argument("model")
@click.argument("version")
@click.option("--reason", required=True, help="Why, for the record.")
@_BY
def reject(model: str, version: str, reason: str, by: str | None) -> None:
    """Reject the candidate VERSION of MODEL that awaits approval.

    The same data does not propose it again by itself. Repeating the command changes nothing more.

    \b
    Example:
      retrain reject flight_delay 7 --reason "the new airport is missing"
    """
    from retrain_assets.errors import RetrainError
    from retrain_assets.promotion.reviews import Reviews

    number, platform = version.removeprefix("v"), _platform()
    try:
        review, new = Reviews(platform.ledger).reject(
            model, number, actor=by or _person(), reason=reason
        )
    except RetrainError as error:
        _fail(str(error))
    _forget_status(platform)
    what = f"v{number} was {review.signed} before; nothing was changed"
    click.echo(f"{model}: {f'v{number} rejected and recorded' if new else what}")


def _show_waiting(platform: "Platform", model: str | None, specs: Path) -> None:
    from retrain_assets.promotion.reviews import Reviews, review_text

    waiting = Reviews(platform.ledger).waiting(None if model is None else [model])
    if model is not None and not waiting and platform.ledger.newest_of(model) is None:
        _check_model(model, specs)
    champions = platform.ledger.champions(list(waiting))
    for name, review in waiting.items():
        champion = champions.get(name)
        click.echo(review_text(review, champion.version if champion else None) + "\n")
    if not waiting:
        click.echo(f"{f'{model}: ' if model else ''}nothing awaits approval")


def _import_lightgbm_alone() -> None:
    """Import LightGBM without scikit-learn, which it imports where it can for wrapper classes.

    No command uses them, and they cost 0.8 CPU seconds. A module that is None in `sys.modules`
    counts as not installed.
    """
    if "lightgbm" in sys.modules or "sklearn" in sys.modules:
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("lightgbm")
    finally:
        del sys.modules["sklearn"]


def _required(reason: str | None) -> str:
    if not reason:
        _fail("--reason is required with a version: why is it promoted?")
    return reason


def _forget_status(platform: "Platform") -> None:
    """The next `retrain status` reads again, so that whoever changed something sees it."""
    from retrain_assets.errors import RetrainError
    from retrain_assets.fleet.shared_snapshot import SharedSnapshot
    from retrain_assets.fleet.snapshot import forget

    try:
        forget(platform.settings.home)
        SharedSnapshot(platform.ledger).forget()
    except RetrainError as error:  # what the command was for is done
        click.echo(f"warning: {error}", err=True)


def _person() -> str:
    import getpass
    import socket

    return f"{getpass.getuser()}@{socket.gethostname()}"


def _platform() -> "Platform":
    from retrain_assets.orchestration.platform import Platform

    return Platform()


def _check_model(model: str, specs: Path) -> None:
    """Fail with the known names where no spec has the name."""
    from retrain_assets.spec.loading import load_specs

    found = load_specs(specs)
    if model not in found.models:
        known = ", ".join(sorted(found.models))
        _fail(f"no model named {model} in {specs} or in the ledger; known: {known}")


def _print_wide(table: "Table | StatusTable") -> None:
    from rich.console import Console

    # Into a file or a pipe nothing is cut off.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _print_status(rows: "list[StatusRow]", snapshot: "Snapshot") -> None:
    from datetime import UTC, datetime

    from retrain_assets.fleet.status import duration
    from retrain_assets.fleet.terminal import status_lines, status_notes, status_table

    now = datetime.now(UTC)
    _print_wide(status_table(rows, now))
    for note in status_notes(rows):
        click.echo(note)
    head, *groups = status_lines(rows)
    when = f"as of {snapshot.as_of:%Y-%m-%d %H:%M:%S} UTC"
    if snapshot.confirmed_at is not None:
        when += f", nothing has happened up to {snapshot.confirmed_at:%H:%M:%S}"
    age = (now - snapshot.good_until).total_seconds()
    when += f", {duration(age)} ago; --max-age 0 reads now" if age > 2 else ""
    click.echo("\n".join([*groups, f"{click.style(head, bold=True)}  ({when})"]))


if __name__ == "__main__":
    main()
