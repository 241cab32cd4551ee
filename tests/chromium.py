"""Debian's Chromium without a screen, for tests: opens a page, reads it, takes its picture. Spoken to over two pipes (DevTools protocol).

It runs with a profile of its own below a temporary directory, and is ended with everything it has started.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PATIENCE_S = 60.0
PROGRAM = shutil.which("chromium") or ""
_OPTIONS = ("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--mute-audio",
            "--hide-scrollbars", "--host-resolver-rules=MAP *.test 127.0.0.1")


def _make_pipe() -> tuple[int, int]:
    """Return the ends of a pipe, clear of 3 and 4."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in ends)
    for fd in ends:
        os.close(fd)
    return high[0], high[1]


class Chromium:
    """One browser with one page."""

    def __init__(self, *options: str) -> None:
        """Start nothing yet; `options` are more of its command line."""
        self._options = (*_OPTIONS, *options)
        self._home = Path(tempfile.mkdtemp(prefix="perchild-chromium."))
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []  # what the page has said: errors of its console, and the like

    def __enter__(self) -> Self:
        """Start it, with an empty page."""
        theirs_in, self._to = _make_pipe()
        self._from, theirs_out = _make_pipe()
        # The program reads 3 and writes 4; a shell puts them there.
        command = ["bash", "-c", f'exec 3<&{theirs_in} 4>&{theirs_out} && exec "$@"', "bash", PROGRAM, *self._options, f"--user-data-dir={self._home}/profile", "about:blank"]
        environment = {**os.environ, "HOME": str(self._home), "XDG_CONFIG_HOME": str(self._home), "XDG_CACHE_HOME": str(self._home)}
        with (self._home / "output").open("wb") as output:
            self._process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, env=environment, start_new_session=True)
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        """End it and its children, and remove what it wrote."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=PATIENCE_S)
        os.close(self._to)
        os.close(self._from)
        for _ in range(20):
            shutil.rmtree(self._home, ignore_errors=True)  # a process that dies may still write
            if not self._home.exists():
                break
            time.sleep(0.05)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something; return the answer. AssertionError if the browser refuses or says nothing."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._from, 1 << 20) if ready else b""
            if not part:
                raise AssertionError(f"the browser is silent: {(self._home / 'output').read_text(errors='replace')[-2000:]}")
            self._buffer += part
        raw, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(raw))

    def resize(self, width: int, height: int, *, is_phone: bool = False, is_dark: bool = False) -> None:
        """Make the window so large (CSS pixels), with a telephone's resolution if it is one, in a dark theme if wanted."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if is_phone else 1, mobile=is_phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}])

    def open(self, address: str) -> None:
        """Go to an address."""
        answer = self.call("Page.navigate", url=address)
        assert not answer.get("errorText"), answer

    def ask(self, expression: str) -> Any:
        """Return what JavaScript makes of an expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, timeout_s: float = 30.0) -> Any:
        """Ask until the answer is true; return it. What is not there yet is no error."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            value = self.ask(f"(() => {{ try {{ return {expression} }} catch {{ return null }} }})()")
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s} s: {expression}; the page: {self.ask('document.body.innerText')[:2000]}")

    def take_picture(self, path: Path, *, is_whole: bool = True) -> Path:
        """Write a PNG of the page: all of it, or what a window shows."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def complaints(self) -> list[str]:
        """Return what the page's console has said of errors so far."""
        found = [event for event in self.events if event.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}]
        return [json.dumps(event["params"])[:500] for event in found if event["params"].get("entry", {"level": "error"})["level"] == "error"]
