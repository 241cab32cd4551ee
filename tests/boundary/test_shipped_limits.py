"""The configuration as it is shipped bounds what a tenant's programs take, without a word of the operator's.

Runs as: root; conf/perchild.conf with other paths, ports and users.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.boundary.neighbour import set_off_bomb
from tests.lab import ROOT, Lab

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids")]

SHIPPED = (ROOT / "conf" / "perchild.conf").read_text()
HOST = "ScriptAlias /cgi-bin/ {home}/cgi-bin/\n<Directory {home}/cgi-bin>\nRequire all granted\n</Directory>\n"
PROGRAMS = {
    "hello": "#!/bin/sh\nprintf 'X: y\\n\\nhello\\n'\n",
    "limits": "#!/bin/bash\nprintf 'X: y\\n\\n'\nulimit -u; ulimit -t\n",
    "bomb": "#!/usr/bin/python3 -I\nimport os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        os.sched_yield()\n",
}


class Shipped(Lab):
    """A server that runs the shipped configuration."""

    def config_text(self) -> str:
        """Return it, with what this machine needs in place of what an installation has."""
        text = SHIPPED
        for before, after in (
                ("\nListen 80\n", f"\nDefaultRuntimeDir {self.run}\nServerName main.test\nListen 127.0.0.1:{self.port}\n"),
                ("\nUser www-data\nGroup www-data\n", f"\nUser #{self.user_uid}\nGroup #{self.user_uid}\n"),
                ("/var/log/perchildd", str(self.log)), ("/var/www/html", str(self.main_root)), ("<Directory /var/www>", f"<Directory {self.main_root}>")):
            assert before in text
            text = text.replace(before, after)
        return text + "".join(self.host_block(one, HOST.format(home=one.home)) for one in self.tenants.values())


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two tenants with programs."""
    with Shipped(names=("alice", "bob")) as one:
        for tenant in one.tenants.values():
            tenant.put_programs(PROGRAMS)
        yield one.start()


def limit(name: str) -> int:
    """Return what the shipped configuration says."""
    found = re.search(rf"^{name} (\d+)", SHIPPED, re.MULTILINE)
    assert found, f"{name} is not set"
    return int(found[1])


def test_programs_have_the_shipped_limits(lab: Lab) -> None:
    """Processes and processor time."""
    assert lab.get("alice.test", "/cgi-bin/limits", timeout_s=30).body.decode().split() == [str(limit("RLimitNPROC")), str(limit("RLimitCPU"))]


def test_a_fork_bomb_is_bounded_as_the_configuration_is_shipped(lab: Lab) -> None:
    """It grows to RLimitNPROC, with what else runs as its user, and no further; bob is served as before, and it goes with its client."""
    assert limit("RLimitNPROC") // 2 < set_off_bomb(lab, lab.tenants["alice"]) < limit("RLimitNPROC")
