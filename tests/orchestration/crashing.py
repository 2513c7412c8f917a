"""A run coordinator that kills its process at the first submission of a run: a daemon's worst moment.

The sensor's tick is evaluated and stored, the first run is created, and nothing is submitted yet.
"""

import os
import signal
from pathlib import Path

import dagster as dg


class CrashOnFirstSubmission(dg.QueuedRunCoordinator):
    """The real queue, but for one kill; the file in CRASH_MARKER says that it has happened."""

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        marker = Path(os.environ["CRASH_MARKER"])
        if not marker.exists():
            marker.write_text(context.dagster_run.run_id, encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().submit_run(context)
