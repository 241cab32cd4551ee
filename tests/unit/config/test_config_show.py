"""-S, -L, -M and the dumps have httpd's shapes; the documentation is the table's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perchild.config import docs, show
from perchild.config.directives import ROWS, TABLE

TEXT = """DocumentRoot /srv
ServerName main.example
<VirtualHost *:80>
ServerName a.example
ServerAlias b.example *.c.example
</VirtualHost>
<VirtualHost *:80 [::1]:81>
ServerName d.example
AssignUserID alice alice
</VirtualHost>
<VirtualHost 10.0.0.1>
</VirtualHost>
"""


def test_dump_vhosts_has_httpds_columns(world: Any) -> None:
    """Addresses first, then wildcards, names below, file and line at each."""
    assert show.format_vhosts(world.good(TEXT).model) == """VirtualHost configuration:
[::1]:81               d.example (/main.conf:9)
10.0.0.1:*             main.example (/main.conf:13)
*:80                   is a NameVirtualHost
         default server a.example (/main.conf:5)
         port 80 namevhost a.example (/main.conf:5)
                 alias b.example
                 wild alias *.c.example
         port 80 namevhost d.example (/main.conf:9)
"""


def test_dump_run_cfg_has_httpds_lines(world: Any) -> None:
    """certbot reads Define and the paths."""
    assert show.format_run_cfg(world.good(TEXT + "Define X y\n", defines=("DUMP_RUN_CFG",)).model) == """ServerRoot: "/etc/perchild"
Main DocumentRoot: "/srv"
Main ErrorLog: "/etc/perchild/logs/error_log"
Mutex accept: dir="/run/perchildd/" mechanism=default
PidFile: "/run/perchildd/perchildd.pid"
Define: DUMP_RUN_CFG
Define: X=y
User: name="www-data" id=33
Group: name="www-data" id=33
"""


def test_dump_includes_indents_by_depth(world: Any) -> None:
    """The main file is (*), each other one has the line of its Include."""
    world.files |= {"/a": "Include /b\n", "/b": ""}
    assert show.format_includes(world.good("Include /a\n").model) == """Included configuration files:
  (*) /main.conf
    (3) /a
      (1) /b
"""


def test_modules_and_directives_are_listed(world: Any) -> None:
    """-M names the MPM in force, -L every directive."""
    assert world.good("MPM worker\n").model.mpm == "worker"
    assert " mpm_worker_module (static)\n" in show.format_modules("worker")
    listed = show.format_directives()
    assert all(f"{row.name}\n\t" in listed for row in ROWS)


def test_identities_are_listed_by_host(world: Any) -> None:
    """Who serves what, for people."""
    assert "d.example alice uid=1001 gid=1001 groups=2000,2001 (/main.conf:9)\n" in show.format_identities(world.good(TEXT).model)


def test_the_documentation_is_up_to_date() -> None:
    """docs/directives.md is what the table says; python3 -m perchild.config.docs writes it."""
    path = Path(__file__).parents[3] / "docs" / "directives.md"
    assert path.read_text(encoding="utf-8") == docs.render()


def test_every_row_is_documented_once() -> None:
    """A sentence for each, no name twice."""
    assert len(TABLE) == len(ROWS)
    assert [row.name for row in ROWS if not row.doc or row.doc.endswith(".")] == []
