"""The MPMs: scaling policies for the unassigned children, pure functions over counts. One is chosen, as in httpd.

Runs as: dispatcher, child.  Pure.
"""

from __future__ import annotations

from perchild.mpm import perchild, prefork, worker
from perchild.mpm.policy import Mpm

MPMS: dict[str, Mpm] = {one.MPM.name: one.MPM for one in (perchild, worker, prefork)}
DEFAULT_MPM = "perchild"
