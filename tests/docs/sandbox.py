"""A machine of its own for a document's commands: what they change in /etc, /var, /home, /run and /srv is gone afterwards.

Mount, network and process namespaces; /etc and /var are overlays, so that users can be made and port 80 taken.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SETUP = """set -e
mount -t tmpfs -o mode=755 tmpfs {base}
mkdir -p {base}/etc/up {base}/etc/work {base}/var/up {base}/var/work {base}/bin {base}/tree
mount --bind {root} {base}/tree # it may lie in a home, and homes are empty here
for one in etc var; do
    mount -t overlay overlay -o lowerdir=/$one,upperdir={base}/$one/up,workdir={base}/$one/work /$one
done
for one in home run srv; do mount -t tmpfs -o mode=755 tmpfs /$one; done
ip link set lo up
printf '#!/bin/sh\\nPYTHONPATH={base}/tree exec /usr/bin/python3 -m perchild "$@"\\n' > {base}/bin/perchildd
printf '#!/bin/sh\\nPYTHONPATH={base}/tree exec /usr/bin/python3 -m perchild.control "$@"\\n' > {base}/bin/perchildctl
chmod 755 {base}/bin/*
export PATH={base}/bin:$PATH TERM=dumb NO_COLOR=1
rm -rf /etc/apache2 /etc/perchild
mkdir -p /etc/perchild/sites-enabled /etc/perchild/conf.d /etc/perchild/conf-enabled /var/log/perchildd /var/log/apache2 /var/www/html
cp -r {base}/tree/conf/. /etc/perchild/
chown -R root:root /etc/perchild
cd {base}/tree
exec 2>&1
"""


def run(script: str, base: Path, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
    """Run a script of bash's in there, as root; every process of it is gone when this returns."""
    path = base / "script"
    path.write_text(_SETUP.format(base=shlex.quote(str(base / "mnt")), root=shlex.quote(str(ROOT))) + script)
    (base / "mnt").mkdir()
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
