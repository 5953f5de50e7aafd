"""The tables of monitoring. A time is the Unix second at which a step begins: compact, and quick to group.

A step is a minute, an hour or a day (60, 3,600 or 86,400 seconds), in UTC.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, PrimaryKeyConstraint, Table

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S

LATENCY_COLUMNS: Final = tuple(f"latency_{index:02}" for index in range(len(LATENCY_BUCKETS_S) + 1))
"""How many answers took at most so long as the bucket of this index says; the last column has the slower ones."""

monitoring_points: Final = Table(
    "monitoring_points",
    metadata,
    required("step_s", Integer),
    required("begins_s", BigInteger),
    required("channel", TEXT),
    required("model", TEXT),
    required("answered", Integer),
    required("accepted", Integer),
    required("to_review", Integer),
    required("rejected", Integer),
    required("refused", Integer),
    required("busy", Integer),
    required("failed", Integer),
    required("latency_sum_s", Double),
    *(required(name, Integer) for name in LATENCY_COLUMNS),
    PrimaryKeyConstraint("step_s", "begins_s", "channel", "model"),
)
"""What was asked for in a step. There is no row where nothing was; `monitoring_states` says whether anybody looked.

The channel "" has the HTTP requests of the whole server.
"""

monitoring_states: Final = Table(
    "monitoring_states",
    metadata,
    required("step_s", Integer),
    required("begins_s", BigInteger),
    # Minutes of the step in which at least one process wrote. No row: nobody looked.
    required("watched", Integer),
    # The most of the step; the least of workers and of the free disk. NULL: not known, or not there.
    Column("queue", Integer),
    Column("workers", Integer),
    Column("storage_bytes", BigInteger),
    Column("database_bytes", BigInteger),
    Column("disk_free_bytes", BigInteger),
    Column("disk_total_bytes", BigInteger),
    PrimaryKeyConstraint("step_s", "begins_s"),
)

monitoring_days: Final = Table(
    "monitoring_days",
    metadata,
    required("begins_s", BigInteger),
    required("channel", TEXT),
    # "predictions" (runs included), "moderation" or "catalogue".
    required("job", string(16)),
    required("predictions", Integer),
    required("accepted", Integer),
    required("to_review", Integer),
    required("rejected", Integer),
    # What people said on that day of predictions of any day.
    required("confirmed", Integer),
    required("corrected", Integer),
    required("counted_at", UtcDateTime),
    PrimaryKeyConstraint("begins_s", "channel", "job"),
)
"""What each job decided and what people said by day, counted in the job's own tables."""

monitoring_baselines: Final = Table(
    "monitoring_baselines",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("channel", TEXT),
    # The first day (UTC) of what is normal from now on.
    required("begins_s", BigInteger),
    required("created_at", UtcDateTime),
    required("created_by", TEXT),
    required("reason", TEXT),
    Column("withdrawn_at", UtcDateTime),
    Column("withdrawn_by", TEXT),
    Index(None, "channel", "begins_s"),
)
"""Days from which on people said that a change of a channel is expected."""

monitoring_drift: Final = Table(
    "monitoring_drift",
    metadata,
    required("begins_s", BigInteger),
    required("channel", TEXT),
    # `name@version` of the model that answered most of the day; "" where nothing was answered.
    required("model", TEXT),
    # What the vectors of the profile are of: "embedding", "scores", or "" for none.
    required("space", TEXT),
    required("profile", JSON),
    required("findings", JSON),
    # The ids of the photos farthest from the reference, each with its distance.
    required("strangest", JSON),
    required("alarm", Boolean),
    required("cpu_s", Double),
    required("computed_at", UtcDateTime),
    PrimaryKeyConstraint("begins_s", "channel"),
)
"""What a day of a channel looked like, and how it differs from the days before it."""
