"""The tenants of a run: numeric uids that no user has, a document root each, the same files for every server.

Runs as: root.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from perchild.demo import pick_ids

SMALL_BYTES = 1024
LARGE_BYTES = 100 * 1024
FIRST_ID = 40_001


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant: its number (1..), uid = gid, host name and document root."""

    number: int
    uid: int
    host: str
    root: Path


def body_of(host: str, size: int) -> bytes:
    """Return `size` bytes that begin with the host's name, so that an answer shows whose it is."""
    line = f"{host}\n".encode()
    return (line * (size // len(line) + 1))[:size]


def make_tenants(base: Path, count: int, *, has_large: bool = True) -> list[Tenant]:
    """Make `count` tenants below `base` and return them.

    The files are the tenant's own and world-readable, for nginx and httpd event read them as www-data.
    """
    ids = pick_ids(count, FIRST_ID)
    tenants = []
    for number, uid in enumerate(ids, 1):
        tenant = Tenant(number, uid, f"t{number}.bench.test", base / f"t{number}")
        _make_root(tenant, has_large=has_large)
        tenants.append(tenant)
    return tenants


def _make_root(tenant: Tenant, *, has_large: bool) -> None:
    tenant.root.mkdir(mode=0o755, parents=True)
    files = {"1k.html": SMALL_BYTES} | ({"100k.html": LARGE_BYTES} if has_large else {})
    for name, size in files.items():
        path = tenant.root / name
        path.write_bytes(body_of(tenant.host, size))
        path.chmod(0o644)
        os.chown(path, tenant.uid, tenant.uid)
    os.chown(tenant.root, tenant.uid, tenant.uid)
