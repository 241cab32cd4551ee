"""The programs of the demo's sites: a CGI, PHP, a WSGI application and a WebSocket, each of which says under which uid it runs.

PROGRAMS is the table: a program's file in its tenant's home, the lines of configuration that run it, what must be installed
for it, and how it is asked. What is not installed is left out, and named.
Runs as: whoever runs the demo.  Before: demo.  After: the server, which runs them as their tenants.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perchild.demo_echo import CLOSE, FINAL, TEXT, Frame, accept_of, encode, read_frame
from perchild.runner.commands import PYTHON, CommandError, find_php

_TIMEOUT_S = 30.0  # the first request waits for its program to start
_GREETING = b"hello"


class ProgramError(Exception):
    """A program did not answer as it does; the message says how it did."""


@dataclass(frozen=True, slots=True)
class Program:
    """One row: `file` is below the home; `directives` may name {home}; `ask` (port, host, path) returns what it says of itself."""

    name: str
    path: str
    file: str
    text: str
    directives: str
    package: str
    is_there: Callable[[], bool]
    ask: Callable[[int, str, str], str]


def uid_of(program: Program, port: int, host: str) -> str:
    """Return the uid that a program has, by a real request to it.

    Raises:
        ProgramError: it answered otherwise, or not at all.
    """
    try:
        said = program.ask(port, host, program.path)
    except (OSError, http.client.HTTPException) as error:
        message = f"no answer: {error}"
        raise ProgramError(message) from error
    found = re.match(r"uid (\d+)\b", said)
    if found is None:
        message = "the answer names no uid"
        raise ProgramError(message)
    return found[1]


def make_program(program: Program, home: Path, uid: int, gid: int) -> None:
    """Write a program's file below `home`, for its user alone."""
    path = home / program.file
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(program.text, encoding="utf-8")
    path.chmod(0o700)
    for made in (path, path.parent):
        os.chown(made, uid, gid)


# --- how they are asked ----------------------------------------------------------------------------------------------------


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)


def _fetch(port: int, host: str, path: str) -> str:
    connection = _connect(port)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}", "Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        message = f"status {answer.status}"
        raise ProgramError(message)
    return body.decode(errors="replace")


def _converse(port: int, host: str, path: str) -> str:
    """Open a WebSocket, have a greeting said back, close it; return the first message."""
    key = base64.b64encode(os.urandom(16))
    connection = _connect(port)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}", "Connection": "Upgrade", "Upgrade": "websocket",
                                                 "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key.decode()})
        sock = connection.sock
        with sock.makefile("rb") as stream:
            _read_head(stream.readline, accept_of(key))
            first = read_frame(stream)
            for frame in (Frame(FINAL | TEXT, _GREETING), Frame(FINAL | CLOSE, b"")):
                sock.sendall(encode(frame, os.urandom(4)))
                if read_frame(stream) != frame:
                    message = "the WebSocket did not say back what it was sent"
                    raise ProgramError(message)
    finally:
        connection.close()
    return first.data.decode(errors="replace") if first else ""


def _read_head(read_line: Callable[[], bytes], accept: str) -> None:
    words = read_line().split()
    fields = {}
    while (line := read_line().strip()):
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    if words[1:2] != [b"101"] or fields.get(b"sec-websocket-accept") != accept.encode():
        message = f"status {words[1].decode() if len(words) > 1 else 'none'}, and no WebSocket"
        raise ProgramError(message)


# --- which there are -------------------------------------------------------------------------------------------------------


def _has_shell() -> bool:
    return shutil.which("id") is not None


def _has_php() -> bool:
    try:
        find_php("")
    except CommandError:
        return False
    return True


def _has_waitress() -> bool:
    return _has_python() and subprocess.run([PYTHON, "-I", "-c", "import waitress"], check=False, capture_output=True).returncode == 0


def _has_python() -> bool:
    return os.access(PYTHON, os.X_OK)


_CGI = """\
#!/bin/sh
printf 'Content-Type: text/plain\\n\\nuid %s, a shell script by CGI\\n' "$(id -u)"
"""
_CGI_DIRECTIVES = """\
    ScriptAlias /cgi-bin/ "{home}/cgi-bin/"
    <Directory "{home}/cgi-bin">
        Require all granted
    </Directory>
"""
_PHP = """\
<?php
header('Content-Type: text/plain');
echo 'uid ', posix_geteuid(), ', PHP ', PHP_VERSION, " by php-fpm\\n";
"""
_WSGI = """\
import os


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"uid {os.geteuid()}, a WSGI application\\n".encode()]
"""
_ECHO = Path(__file__).with_name("demo_echo.py").read_text(encoding="utf-8")
_ECHO_DIRECTIVES = f'    AppServer /echo/ {PYTHON} "{{home}}/app/echo.py"\n'

PROGRAMS = (
    Program("CGI", "/cgi-bin/who", "cgi-bin/who", _CGI, _CGI_DIRECTIVES, "coreutils", _has_shell, _fetch),
    Program("PHP", "/who.php", "public_html/who.php", _PHP, "    PHPPool on max_children=2\n", "php-fpm", _has_php, _fetch),
    Program("WSGI", "/wsgi", "app/who.wsgi", _WSGI, '    WSGIScriptAlias /wsgi "{home}/app/who.wsgi"\n', "python3-waitress", _has_waitress, _fetch),
    Program("WebSocket", "/echo/", "app/echo.py", _ECHO, _ECHO_DIRECTIVES, "python3", _has_python, _converse),
)


def split_programs() -> tuple[list[Program], list[Program]]:
    """Return those that can run here, and those for which something is not installed."""
    there = [program for program in PROGRAMS if program.is_there()]
    return there, [program for program in PROGRAMS if program not in there]
