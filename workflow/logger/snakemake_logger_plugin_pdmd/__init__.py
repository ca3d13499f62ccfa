"""A Snakemake logger that keeps what jobs do as lines of JSON, for who shows progress.

    snakemake --logger pdmd [--logger-pdmd-file .snakemake/pdmd/jobs.jsonl] ...

Lines: {"event": "planned", "counts": {rule: jobs}, "pid", "host", "start": of this process,
"plan": PDMD_PLAN of its environment}, {"event": "started", "id", "rule", "wildcards", "threads"},
{"event": "finished" | "failed", "id"}; each has "time", seconds since 1970.
"""

import json
import os
import time
from dataclasses import dataclass, field
from logging import LogRecord
from pathlib import Path
from typing import Any, Optional

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

from pdmd.jobs.claim import identity


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """What can be said on Snakemake's command line."""

    file: Optional[str] = field(
        default=".snakemake/pdmd/jobs.jsonl", metadata={"help": "file that lines are added to"}
    )


class LogHandler(LogHandlerBase):
    """Adds a line for each event of a job."""

    def __post_init__(self) -> None:
        settings: Any = self.settings
        self.baseFilename = str(settings.file)
        path = Path(self.baseFilename)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lines = path.open("a", encoding="utf-8", buffering=1)  # a line is written whole

    def emit(self, record: LogRecord) -> None:
        """Write what is said of a job; anything else is not."""
        value = line_of(record)
        if value is not None:
            self.lines.write(json.dumps({**value, "time": time.time()}) + "\n")

    def close(self) -> None:
        """Nothing comes after."""
        self.lines.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        return False

    @property
    def writes_to_file(self) -> bool:
        return True

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False


def line_of(record: Any) -> dict[str, Any] | None:
    """What a record of Snakemake's says of a job, None of nothing."""
    event = getattr(record, "event", None)
    if event == LogEvent.RUN_INFO:
        counts = {name: int(n) for name, n in record.stats.items() if name != "total"}
        plan = os.environ.get("PDMD_PLAN")
        return {"event": "planned", "counts": counts, "plan": plan, **identity(os.getpid())}
    if event == LogEvent.JOB_INFO:
        said = {str(key): str(value) for key, value in dict(record.wildcards or {}).items()}
        job = {"id": record.jobid, "rule": record.rule_name, "wildcards": said}
        return {"event": "started", **job, "threads": int(record.threads)}
    if event == LogEvent.JOB_FINISHED:
        number = getattr(record, "job_id", getattr(record, "jobid", None))
        return None if number is None else {"event": "finished", "id": number}
    if event == LogEvent.JOB_ERROR:
        return {"event": "failed", "id": record.jobid}
    return None
