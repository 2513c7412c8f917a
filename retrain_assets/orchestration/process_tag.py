"""Which process a run depends on, as a tag that tells whether it still lives."""

import os
import socket
from pathlib import Path

__all__ = ["host", "living", "process_tag"]


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def process_tag(pid: int) -> str:
    """Machine, process id, and when that process began: ids are used again."""
    return f"{host()} {pid} {_began(pid)}"


def _began(pid: int) -> str:
    """When a process began, in clock ticks since boot, `0` where the system does not tell, "" of one
    that has ended, zombies among them."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        return "0"
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = text.rpartition(")")[2].split()  # the command may hold anything but the last ")"
    state, began = fields[0], fields[19]
    return "" if state in "ZX" else began


def living(tag: str | None) -> int | None:
    """The process that a tag names, None if it has ended or is not on this machine."""
    if tag is None:
        return None
    where, pid, began = tag.split(" ")
    return int(pid) if where == host() and began and _began(int(pid)) == began else None
