"""Serve one WSGI application on the listening socket that is descriptor 3: python3 - FILE MOUNT [DIRECTORY ...] < this file.

FILE defines `application`; MOUNT is its SCRIPT_NAME; directories go in front of sys.path. TERM: what was begun is read and
answered, then it ends; connections that nobody accepted stay in the socket for the next process.
Runs as: the identity, executed by its runner, under whichever Python the application has; imports nothing of perchild.
"""

from __future__ import annotations

import sys

sys.path[:] = [directory for directory in sys.path if directory]  # a module of the directory that it starts in is none of ours

import os  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

SYSTEM_PACKAGES = "/usr/lib/python3/dist-packages"  # a virtual environment need not have waitress of its own
LISTEN_FD = 3
THREADS = 8
LOOK_S = 0.05
FIRST_WORD_S = 1.0  # the server says something at once on a new connection
WAIT_S = 60  # an idle application wakes up no more often
EXIT_CONFIG = 78


def find_waitress() -> Any:  # noqa: ANN401 - a module that may be of another Python
    """Import waitress, from the application's packages or from the system's."""
    try:
        import waitress  # noqa: PLC0415
    except ImportError:
        sys.path.append(SYSTEM_PACKAGES)
        try:
            import waitress  # noqa: PLC0415
        except ImportError:
            sys.exit("waitress is not installed, which runs WSGI applications: apt-get install python3-waitress")
        finally:
            sys.path.remove(SYSTEM_PACKAGES)
    return waitress


def load_application(file: str) -> Any:  # noqa: ANN401 - the tenant's
    """Execute FILE and return its `application`."""
    sys.path.insert(0, os.path.dirname(file))
    names: dict[str, Any] = {"__name__": "_wsgi_application", "__file__": file, "__builtins__": __builtins__}
    with open(file, "rb") as stream:
        exec(compile(stream.read(), file, "exec"), names)  # noqa: S102 - what it is for
    if not callable(names.get("application")):
        sys.exit(f"{file} defines no callable `application`")
    return names["application"]


def is_busy(channel: Any, now_s: float) -> bool:  # noqa: ANN401 - waitress's
    """Whether a connection has a request that is being read or answered, or was accepted so lately that its first one is on the way."""
    if channel.requests or channel.request is not None or channel.total_outbufs_len:
        return True
    return bool(channel.last_activity == channel.creation_time and now_s - channel.creation_time < FIRST_WORD_S)


def end_gracefully(server: Any) -> None:  # noqa: ANN401 - waitress's
    """At TERM accept nothing more, and end when every answer is out."""

    def look(_number: int, _frame: object) -> None:
        channels = list(server.active_channels.values())
        if not any(is_busy(channel, time.time()) for channel in channels):
            raise SystemExit(0)

    def begin(_number: int, _frame: object) -> None:
        server.accepting = False
        server.pull_trigger()  # or it would be noticed at the next event only
        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)

    signal.signal(signal.SIGTERM, begin)


def main() -> None:
    """Serve until the end."""
    file, mount, *directories = sys.argv[1:]
    sys.argv[:] = [file]
    sys.path[:0] = directories
    waitress = find_waitress()
    application = load_application(file)
    listener = socket.socket(fileno=LISTEN_FD)
    listener.setblocking(False)
    # Only this user can connect to the socket, so who does is the server: the last address and the scheme that it names are true.
    server = waitress.create_server(
        application, sockets=[listener], url_prefix="" if mount == "/" else mount, threads=THREADS, ident=None,
        asyncore_use_poll=True, asyncore_loop_timeout=WAIT_S, trusted_proxy="*", trusted_proxy_count=1,
        trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto"},
        clear_untrusted_proxy_headers=False)
    end_gracefully(server)
    server.run()


main()
