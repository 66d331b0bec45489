"""
What is wrong with a PostgreSQL server and its settings: facts about it, and the rules that read them.

`postgresql.read_server_facts` makes the facts. Nothing here asks a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lambdadb.operate.checks import Finding, Weight
from lambdadb.operate.sessions import SessionView, duration, keeps_awake

AUTO_PAUSE = "Aurora User Guide, Scaling to Zero ACUs with automatic pause and resume"
TLS = "Aurora User Guide, Security with Amazon Aurora PostgreSQL"
# The first minor release of each major whose Aurora can pause (Aurora User Guide).
PAUSES_FROM = {13: 15, 14: 12, 15: 7, 16: 3}
LONG_IDLE = 900.0
"""Seconds beyond which an idle timeout is no help against a session that is left behind."""
LARGE_TABLE = 10_000
"""Rows from which a search without an index is slow: each search reads all vectors."""
LOOPBACK = ("", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class RoleFacts:
    """A role that can log in, and is not AWS's."""

    name: str
    superuser: bool
    iam: bool
    """Whether it is a member of rds_iam, so that only a token of IAM logs it in."""
    password: str | None
    """`scram`, `md5` or `none`; None: the asking role may not see it."""
    idle_session_timeout: float | None
    """Seconds; 0: none; None: unknown."""
    idle_in_transaction_session_timeout: float | None


@dataclass(frozen=True, kw_only=True)
class VectorFacts:
    """A column of pgvector's type vector. Row counts are the planner's estimates."""

    table: str
    column: str
    rows: float | None
    """None: the table was never analyzed."""
    index: str
    """Empty: there is none."""
    method: str
    lists: int | None
    """Of an ivfflat index."""


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """A PostgreSQL server as a role sees it."""

    version: str
    version_number: int
    """Such as 160003 for 16.3."""
    aurora: bool
    force_ssl: bool | None
    """The setting rds.force_ssl; None: the server does not have it."""
    password_encryption: str
    wal_level: str
    logical_slots: tuple[str, ...]
    jobs: bool
    """Whether pg_cron is installed in this database."""
    roles: tuple[RoleFacts, ...]
    vectors: tuple[VectorFacts, ...]


def examine_server(facts: ServerFacts, view: SessionView, *, pauses: bool | None) -> list[Finding]:
    """
    All that is wrong with the server.

    Args:
        pauses: Whether the cluster is to pause; None: unknown.
    """
    for_pause = [] if pauses is False else check_pause(facts, view, weight_of(pauses))
    return [
        *for_pause,
        *check_idle_timeouts(facts, weight_of(pauses)),
        *check_tls(facts, view),
        *check_passwords(facts),
        *check_iam(facts),
        *check_vectors(facts.vectors),
    ]


def weight_of(pauses: bool | None) -> Weight:
    """What a cause against the pause weighs: a warning only for a cluster that is known to pause."""
    return Weight.WARNING if pauses else Weight.NOTE


def check_pause(facts: ServerFacts, view: SessionView, weight: Weight) -> list[Finding]:
    """What keeps Aurora from pausing, as far as the server itself shows it."""
    major, minor = divmod(facts.version_number, 10_000)
    found = [*check_open_sessions(view, weight)]
    if facts.aurora and minor < PAUSES_FROM.get(major, 0 if major > 16 else 10_000):
        found.append(
            Finding(
                "version",
                f"Aurora PostgreSQL {facts.version} cannot pause.",
                "Upgrade to 13.15, 14.12, 15.7, 16.3 or later: "
                "aws rds modify-db-cluster --engine-version …",
                source=AUTO_PAUSE,
                weight=weight,
            )
        )
    if facts.wal_level == "logical" or facts.logical_slots:
        slots = f", with the slots {', '.join(facts.logical_slots)}" if facts.logical_slots else ""
        found.append(
            Finding(
                "replication",
                f"Logical replication is on (wal_level = {facts.wal_level}{slots}).",
                "If nothing reads from it: SELECT pg_drop_replication_slot(…), then "
                "rds.logical_replication = 0 in the cluster's parameter group, and reboot.",
                "With it the writer, and readers of promotion tier 0 and 1, never pause.",
                AUTO_PAUSE,
                weight,
            )
        )
    if facts.jobs:
        found.append(
            Finding(
                "jobs",
                "The extension pg_cron is here.",
                "Schedule what must run with EventBridge Scheduler and a function: its connect wakes "
                "the cluster.",
                "A job of pg_cron does not wake a paused cluster: it is skipped.",
                AUTO_PAUSE,
                Weight.NOTE,
            )
        )
    return found


def check_open_sessions(view: SessionView, weight: Weight, remedy: str | None = None) -> list[Finding]:
    """An idle session that the server does not end soon keeps the cluster awake."""
    idle = replace(
        view, sessions=tuple(one for one in view.sessions if one.state in ("idle", "unknown"))
    )
    lasting = [one for one in keeps_awake(idle) if one.seconds is None or one.seconds > LONG_IDLE]
    if not lasting:
        return []
    listed = "; ".join(
        f"{one.holder} ({one.count}): "
        f"{'with no end' if one.seconds is None else duration(one.seconds)}, {one.reason}"
        for one in lasting
    )
    roles = sorted(
        {session.user for session in idle.sessions if session.holder in {one.holder for one in lasting}}
    )
    return [
        Finding(
            "open sessions",
            f"These sessions stay open: {listed}.",
            remedy
            or "; ".join(f"ALTER ROLE \"{role}\" SET idle_session_timeout = '60s'" for role in roles),
            "Any open session keeps Aurora from pausing, also one that runs nothing.",
            AUTO_PAUSE,
            weight,
        )
    ]


def check_idle_timeouts(facts: ServerFacts, weight: Weight) -> list[Finding]:
    """The server should end idle sessions of clients that do not end them themselves."""
    found = []
    for setting, meaning, suggested, weighs in (
        (
            "idle_session_timeout",
            "A session of theirs that is idle stays open for as long as its client does: of a frozen "
            "function, for hours. lambdadb's sessions bring a timeout of their own.",
            "900s",
            weight,
        ),
        (
            "idle_in_transaction_session_timeout",
            "A client that dies or is frozen in a transaction keeps its locks.",
            "60s",
            Weight.WARNING,
        ),
    ):
        lacking = [
            role.name for role in facts.roles if not role.superuser and getattr(role, setting) == 0
        ]
        if lacking:
            found.append(
                Finding(
                    setting,
                    f"No {setting} for {listed(lacking)}.",
                    "; ".join(
                        f"ALTER ROLE \"{name}\" SET {setting} = '{suggested}'" for name in lacking[:3]
                    )
                    + ("; …" if len(lacking) > 3 else "")
                    + ". For all at once: "
                    + parameter_command(setting, f"{int(suggested[:-1]) * 1000}"),
                    meaning,
                    "PostgreSQL, Client Connection Defaults",
                    weighs,
                )
            )
    return found


def check_tls(facts: ServerFacts, view: SessionView) -> list[Finding]:
    """The server should accept TLS alone, and nobody should connect without it."""
    plain = [
        session.holder
        for session in view.sessions
        if session.encrypted is False and session.client not in LOOPBACK and not session.is_aws
    ]
    if not plain and facts.force_ssl is not False:
        return []
    seen = f" Without it now: {listed(sorted(set(plain)))}." if plain else ""
    forced = "rds.force_ssl is off." if facts.force_ssl is False else "Sessions without TLS are open."
    return [
        Finding(
            "TLS",
            f"{forced}{seen}",
            parameter_command("rds.force_ssl", "1", reboot=True)
            + ". Elsewhere: hostssl instead of host in pg_hba.conf.",
            "A client that does not ask for TLS sends statements and reads rows in clear text.",
            TLS,
            Weight.WARNING,
        )
    ]


def check_passwords(facts: ServerFacts) -> list[Finding]:
    """Passwords should be kept as SCRAM."""
    roles = [role.name for role in facts.roles if role.password == "md5"]  # noqa: S105 a kind of hash
    by_md5 = facts.password_encryption == "md5"  # noqa: S105 a kind of hash
    if not by_md5 and not roles:
        return []
    whose = f" The roles {listed(roles)} have such a password." if roles else ""
    setting = "New passwords are kept as MD5." if by_md5 else ""
    return [
        Finding(
            "md5",
            f"{setting}{whose}".strip(),
            "password_encryption = scram-sha-256, then give each role its password again.",
            "Whoever reads an MD5 hash can log in with it, and PostgreSQL 18 calls it deprecated. The "
            "Data API needs SCRAM.",
            "PostgreSQL, Password Authentication; Aurora User Guide, Data API",
            Weight.WARNING,
        )
    ]


def check_iam(facts: ServerFacts) -> list[Finding]:
    """A role that logs in by IAM should have no password, which would never be asked for."""
    both = [role.name for role in facts.roles if role.iam and role.password not in (None, "none")]
    if not both:
        return []
    return [
        Finding(
            "rds_iam",
            f"{listed(both)} has a password and is a member of rds_iam.",
            "; ".join(f'REVOKE rds_iam FROM "{name}"' for name in both[:3])
            + ", or use IAM everywhere and drop the password: "
            f'ALTER ROLE "{both[0]}" PASSWORD NULL',
            "With rds_iam only a token of IAM logs in. A secret with this password is refused: PAM "
            "authentication failed.",
            "Aurora User Guide, IAM database authentication",
            Weight.WARNING,
        )
    ]


def check_vectors(vectors: Sequence[VectorFacts]) -> list[Finding]:
    """A large column of vectors needs an index, and an ivfflat index needs rows when it is built."""
    found = []
    for one in vectors:
        if one.rows is None:
            continue
        if one.method == "ivfflat" and one.lists is not None and one.rows < one.lists:
            found.append(
                Finding(
                    "ivfflat",
                    f"The index {one.index} has {one.lists} lists, and {one.table} has about "
                    f"{one.rows:.0f} rows.",
                    f"Load the rows first, then: REINDEX INDEX CONCURRENTLY {one.index}. Or use hnsw, "
                    "which needs no rows.",
                    "The lists' centres are made of the rows that are there when it is built. With too "
                    "few, the search misses neighbours, later too. Once rows have come, this cannot be "
                    "seen any more.",
                    "pgvector, README, IVFFlat",
                    Weight.WARNING,
                )
            )
        elif not one.index and one.rows >= LARGE_TABLE:
            found.append(
                Finding(
                    "no vector index",
                    f"{one.table}.{one.column} has about {one.rows:.0f} rows and no index.",
                    f"CREATE INDEX CONCURRENTLY ON {one.table} USING hnsw ({one.column} vector_l2_ops)",
                    "Each search reads all vectors.",
                    "pgvector, README, Indexing",
                    Weight.WARNING,
                )
            )
    return found


def parameter_command(name: str, value: str, *, reboot: bool = False) -> str:
    """The command that sets a parameter of a cluster; not for a default group, which AWS owns."""
    when = "pending-reboot" if reboot else "immediate"
    return (
        "aws rds modify-db-cluster-parameter-group --db-cluster-parameter-group-name NAME "
        f"--parameters ParameterName={name},ParameterValue={value},ApplyMethod={when}"
    )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
