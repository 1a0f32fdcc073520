"""The tables. Nothing here is SQLite's own: PostgreSQL takes them as they are.

JSON lies in text columns: metrics of a diverged model may be infinite, which no JSON column of a database
takes. Wall times are for people; no decision reads them. `migrations/` builds what is declared here, a test
compares the two. Rows become records in `rows.py`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

_ROUND_KEY = ("run_id", "number", "attempt")

leadership = Table(             # who wrote here; a writer of an earlier epoch is refused
    "leadership", metadata,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("holder", Text, nullable=False),
    Column("wall_s", Float, nullable=False),
)

client = Table(
    "client", metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("public_key", Text, nullable=False),
    Column("secret_sha256", Text, nullable=False, unique=True),
    Column("is_revoked", Boolean, nullable=False),
    Column("offers", Text, nullable=False),             # JSON
    Column("versions", Text, nullable=False),           # JSON
    Column("last_seen_s", Float, nullable=False),
    Column("joined_s", Float, nullable=False),
)

run = Table(
    "run", metadata,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("task", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("config", Text, nullable=False),             # JSON: RunConfig
    Column("config_sha256", Text, nullable=False),
    Column("metrics", Text, nullable=False),            # JSON: what the task declares
    Column("seed", BigInteger, nullable=False),
    Column("start_model", Text, nullable=False),        # sha256; "": fresh
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("started_s", Float),
    Column("ended_s", Float),
)

deleted_run = Table(            # whose rows are gone: its number is never given again
    "deleted_run", metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("deleted_s", Float, nullable=False),
)

round_ = Table(
    "round", metadata,
    Column("run_id", Text, ForeignKey("run.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cohort", Text, nullable=False),             # JSON: names
    Column("config", Text, nullable=False),             # JSON: what the cohort is told
    Column("base_model", Text, nullable=False),         # sha256; "": init
    Column("budget_s", Float, nullable=False),
    Column("budget_left_s", Float, nullable=False),
    Column("opened_s", Float, nullable=False),
    Column("ended_s", Float),
)


def _key_of_a_client() -> tuple[Column[str] | Column[int], ...]:
    """(run, number, attempt, client name): the key of an assignment and of what it brought."""
    return (
        Column("run_id", Text, primary_key=True), Column("number", Integer, primary_key=True),
        Column("attempt", Integer, primary_key=True), Column("client", Text, primary_key=True),
    )


assignment = Table(
    "assignment", metadata,
    *_key_of_a_client(),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("failure", Text),                            # JSON: code, reason, traceback
    Column("leased_s", Float),                          # wall time: the client got the work first
    ForeignKeyConstraint(_ROUND_KEY, ["round.run_id", "round.number", "round.attempt"]),
    Index("assignment_of_client", "client", "run_id", "number"),
)

update = Table(
    "update", metadata,
    *_key_of_a_client(),
    Column("part", Text, primary_key=True),             # "params"
    Column("path", Text, nullable=False),               # below the params folder; may lie under an earlier attempt
    Column("digest", Text, nullable=False),             # xxh3-128, hex
    Column("num_bytes", BigInteger, nullable=False),
    Column("num_examples", BigInteger, nullable=False),
    Column("encoding", Text, nullable=False),           # of its file: core/encoding.py
    Column("environment", Text, nullable=False),        # JSON
    Column("received_s", Float, nullable=False),
    Column("sent_s", Float),                            # wall time: the client announced it, its training was done
    Column("norm", Float),                              # of its change, once it is in a model
    Column("cosine", Float),                            # of its change to the mean one
    ForeignKeyConstraint(_ROUND_KEY, ["round.run_id", "round.number", "round.attempt"]),
    Index("update_of_client", "client"),
)

evaluation = Table(             # what a client measured of a model, with its sums: what pooling reads
    "evaluation", metadata,
    Column("run_id", Text, ForeignKey("run.id"), primary_key=True),
    Column("model_round", Integer, primary_key=True),
    Column("client", Text, primary_key=True),
    Column("metrics", Text, nullable=False),            # JSON: core.metrics.Metrics
)

metric = Table(                 # numbers and curves, for people; client "": pooled
    "metric", metadata,
    Column("run_id", Text, ForeignKey("run.id"), primary_key=True),
    Column("model_round", Integer, primary_key=True),   # phase local: the round it trains in
    Column("client", Text, primary_key=True),
    Column("phase", Text, primary_key=True),            # test | val | local
    Column("step", Integer, primary_key=True),          # phase local: the epoch; else 0
    Column("name", Text, primary_key=True),
    Column("value", Float),
    Column("curve", Text),                              # JSON: points
    Column("num_clients", Integer, nullable=False),
    Column("num_examples", BigInteger, nullable=False),
)

model = Table(
    "model", metadata,
    Column("id", Text, primary_key=True),
    Column("run_id", Text, ForeignKey("run.id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("num_params", BigInteger, nullable=False),
    Column("parent", Text, nullable=False),             # sha256 of the model before; "": none
    Column("memory", Text, nullable=False),             # the strategy memory's file; "": none, or superseded
    Column("committed_s", Float, nullable=False),
    Column("freed_s", Float),                           # its file went then; NULL: it is there
    Index("model_of_round", "run_id", "round", unique=True),
    Index("model_by_sha256", "sha256"),
)

event = Table(
    "event", metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("wall_s", Float, nullable=False),
    Column("run_id", Text, nullable=False),             # "": not about a run
    Column("what", Text, nullable=False),
    Column("fields", Text, nullable=False),             # JSON
    Index("event_of_run", "run_id", "seq"),
)

journal = Table(
    "journal", metadata,
    Column("run_id", Text, ForeignKey("run.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("entry", Text, nullable=False),              # canonical JSON
    Column("hash", Text, nullable=False),
)
