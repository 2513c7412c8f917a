"""`retrain replay`: arguments, progress, what is printed.

Belongs here: the command line. Does not: anything about policies. Imports happen inside the command.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from retrain_assets.spec.model import ModelSpec

__all__ = ["replay"]

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.command(context_settings=_CONTEXT)
@click.argument("model")
@click.option("--from", "first", metavar="PARTITION", help="First partition; by default the first.")
@click.option("--to", "last", metavar="PARTITION", help="Last partition; by default the last.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    help="never, every_K, random, drift, performance, combined or cost; may be repeated. By default "
    "all. never and combined (the spec's own) are always there.",
)
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write a PNG.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write one HTML page."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes that train; by default one a core."
)
@click.option(
    "--specs",
    type=click.Path(path_type=Path),
    default=Path("model_specs"),
    show_default=True,
    help="Folder of the spec files.",
)
def replay(
    model: str,
    first: str | None,
    last: str | None,
    policies: tuple[str, ...],
    picture: Path | None,
    page: Path | None,
    as_json: bool,
    workers: int | None,
    specs: Path,
) -> None:
    """Walk MODEL's stored partitions with each retraining policy, and say what each would have done.

    Trains what the policies ask for, on all cores, in a scratch folder; nothing live changes. It can be
    stopped at any moment: the next replay goes on from there.

    \b
    Examples:
      retrain replay flight_delay
      retrain replay flight_delay --policy every_14 --policy drift --html replay.html
      retrain replay flight_delay --from 2013-06-01 --json | jq .recommendation
    """
    # Before OpenMP is loaded: the processes take the cores, and threads would wait for one another.
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")
    from retrain_assets.data.tables import TableStore
    from retrain_assets.errors import RetrainError
    from retrain_assets.replay.page import replay_page
    from retrain_assets.replay.render import frontier_picture, text
    from retrain_assets.replay.run import replay as replayed
    from retrain_assets.settings import Settings

    try:
        spec, settings = _spec(model, specs), Settings.load()
        with _Progress() as progress:
            found = replayed(
                spec,
                store=TableStore(settings.storage),
                folder=settings.home / "replay" / model,
                first=first,
                last=last,
                policies=policies or None,
                workers=workers,
                progress=progress,
            ).result
        if picture is not None:
            _write(picture, frontier_picture(found))
        if page is not None:
            _write(page, replay_page(found).encode())
    except RetrainError as error:
        _fail(str(error))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, sort_keys=True, allow_nan=False))
    else:
        click.echo(text(found))


def _spec(model: str, specs: Path) -> ModelSpec:
    from retrain_assets.spec.loading import load_specs

    found = load_specs(specs)
    if model not in found.models:
        _fail(f"no model named {model} in {specs}; known: {', '.join(sorted(found.models))}")
    return found.models[model].spec


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        _fail(f"{file} cannot be written: {error.strerror or error}")


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(2)


class _Progress:
    """A bar for each stage on standard error; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""
        self._done = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def __call__(self, stage: str, done: int, of: int) -> None:
        if not sys.stderr.isatty():
            return
        if stage != self._stage or done <= self._done:
            self._end()
            self._bar = click.progressbar(length=of, label=f"{stage:<10}", file=sys.stderr)
            self._bar.__enter__()
            self._stage, self._done = stage, 0
        self._bar.update(done - self._done)
        self._done = done

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
