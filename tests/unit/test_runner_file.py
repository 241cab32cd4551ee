"""The runner's file: what is encoded is decoded; another version or shape is refused with its reason."""

from __future__ import annotations

import json

import pytest

from perchild.wire import runner

FULL = runner.RunnerFile(
    user="alice", uid=1001, gid=1001, home="/home/alice", roots=("/home/alice/public",),
    limits=runner.Limits(cpu=(5, 10), nproc=(20, runner.NO_LIMIT)), nice=5, new_privs=True, idle_s=9, services=(
        runner.Service("p", runner.PHP, "/run/p.sock", 10, version="8.2", values=(("php_flag", "log_errors", "1"),)),
        runner.Service("a", runner.APP, "/run/a.sock", command=("node", "x.js"), environment=(("A", "1"),), cwd="/home/alice"),
        runner.Service("w", runner.WSGI, "/run/w.sock", file="/home/alice/w.wsgi", mount="/app")))


def test_what_is_encoded_is_decoded() -> None:
    assert runner.decode_runner(runner.encode_runner(FULL)) == FULL
    assert runner.encode_runner(FULL) == runner.encode_runner(runner.decode_runner(runner.encode_runner(FULL)))


@pytest.mark.parametrize("change", [{"version": 2}, {"roots": None}, {"limits": {"x": [1, 2]}}, {"services": [{"name": "x"}]}, {"odd": 1}])
def test_another_version_or_shape_is_refused(change: dict[str, object]) -> None:
    tree = json.loads(runner.encode_runner(FULL)) | change
    with pytest.raises(ValueError, match="runner file"):
        runner.decode_runner(json.dumps(tree).encode())
