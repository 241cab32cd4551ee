"""A plan to test with."""

from __future__ import annotations

from perchild.wire.plan import FIXED, ON_DEMAND, UNASSIGNED, Identity, Listener, LogFile, Plan, Scale


def make_identity(number: int, kind: str = ON_DEMAND, digest: str = "d", children: int = 1) -> Identity:
    """Return an identity with uid 1000 + number."""
    return Identity(number, f"t{number}", 1000 + number, 1000 + number, (), kind, children, f"{number}-{digest}", digest, 1, 1, 1, 1, 1, 0, 5,
                    (LogFile("/var/log/x", "f:1"),))


def make_plan(*identities: Identity) -> Plan:
    """Return a plan with these identities, or an unassigned, a fixed and an on-demand one."""
    return Plan(
        mpm="perchild", server_root="/", pid_file="/run/x/pid", run_dir="/run/x", score_board_file="", core_dump_dir="/", error_log="/dev/null",
        error_log_level=6, error_log_json=False, accept_scope="any", accept_mutex="default", lock_file="", graceful_shutdown_timeout_s=0,
        thread_stack_bytes=0, max_mem_free_kb=0, exception_hook=False, uid=1000, gid=1000, groups=(),
        listeners=(Listener(4, "127.0.0.1", 80, 511, 0, 0, "f:1"),),
        identities=identities or (make_identity(0, UNASSIGNED), make_identity(1, FIXED), make_identity(2)),
        scale=Scale(2, 5, 10, 8, 64, 512), types_digest="t", host_count=3, server_name="x")
