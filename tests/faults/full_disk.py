"""A retraining on a disk that runs full: `python -m faults.full_disk FOLDER`, FOLDER a small file system."""

import sys
from pathlib import Path

from faults.scenarios import FIRST, NAME, SCENARIOS, Deployment, check_finished, check_readers

from retrain_assets.errors import RetrainError


def fill(folder: Path, leave: int) -> Path:
    """Fill the file system but for `leave` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as output:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    output.write(b"\0" * size)
            except OSError:
                continue
        output.truncate(max(0, output.tell() - leave))
    return filler


def main(folder: Path) -> None:
    world = Deployment(folder / "world")
    world.folder.mkdir()
    SCENARIOS["the first champion"].prepare(world)
    said = []
    for leave in (0, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 18):
        filler = fill(folder, leave)
        try:
            Deployment(world.folder).retrain(FIRST)
        except RetrainError as error:
            said.append(str(error))
            print(f"{leave}: {error}", flush=True)
        filler.unlink()
        check_readers(Deployment(world.folder))
    assert len(said) >= 3, said
    assert all("space" in text or "full" in text for text in said), said
    world.retrain(FIRST)
    check_finished(world)
    champion = world.ledger.champion(NAME)
    assert champion is not None
    assert champion.version == "1"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
