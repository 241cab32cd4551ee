"""The runner's file: what compile writes is what the runner reads; another version or shape is refused with its reason."""

from __future__ import annotations

import json

import pytest

from perchild.config import runner as writer
from perchild.config.directives_program import App, Daemon, Pool, Wsgi
from perchild.config.identity import Person
from perchild.wire import runner


def written() -> bytes:
    """Return a file with each kind of service."""
    programs = writer.Programs(nice=5, may_gain=True)
    programs.roots["/home/alice/public"] = None
    programs.limit({"rlimit_cpu": (5, 10), "rlimit_nproc": (20, writer.NO_LIMIT)})
    site = writer.Site("/home/alice/public", "/log", {"A": "1"}, (("php_flag", "log_errors", "1"),))
    programs.find_pool(Pool(is_on=True, version="8.2", idle_s=10), site, "/run/t")
    programs.find_app(App(("node", "x.js")), site, "/run/t")
    programs.find_wsgi(Wsgi("/home/alice/w.wsgi", "/app"), Daemon(), site, "/run/t")
    return writer.render(Person(1001, 1002, (), "alice"), "/home/alice", programs, 9, is_json=True)


def test_what_compile_writes_the_runner_reads() -> None:
    one = runner.decode_runner(written())
    assert (one.user, one.uid, one.gid, one.home, one.roots) == ("alice", 1001, 1002, "/home/alice", ("/home/alice/public",))
    assert one.limits == runner.Limits(cpu=(5, 10), nproc=(20, runner.NO_LIMIT))
    assert (one.nice, one.new_privs, one.is_json, one.idle_s, one.path) == (5, True, True, 9, "/usr/local/bin:/usr/bin:/bin")
    php, app, wsgi = one.services
    assert php == runner.Service("php", runner.PHP, "/run/t/php.sock", 10, version="8.2", values=(("php_flag", "log_errors", "1"),))
    assert app == runner.Service("app0", runner.APP, "/run/t/app0.sock", 9, command=("node", "x.js"), cwd="/home/alice", env=(("A", "1"),),
                                 log="/log")
    assert (wsgi.file, wsgi.mount, wsgi.idle_s, wsgi.python_path) == ("/home/alice/w.wsgi", "/app", 9, ())


@pytest.mark.parametrize("change", [{"version": 2}, {"roots": None}, {"limits": {"x": [1, 2]}}, {"services": [{"name": "x"}]}, {"odd": 1}])
def test_another_version_or_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="runner file"):
        runner.decode_runner(json.dumps(json.loads(written()) | change).encode())
