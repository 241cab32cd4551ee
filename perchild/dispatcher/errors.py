"""What can go wrong in the dispatcher, each with the exit status it ends a start with.

Runs as: dispatcher.
"""

from __future__ import annotations


class DispatcherError(Exception):
    """Base: text is a whole line for the log, code its AH number ("" = none)."""

    exit_code = 1

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}" if code else text)
        self.code = code
        self.text = text


class BindError(DispatcherError):
    """A listener could not be bound."""


class ConfigError(DispatcherError):
    """The configuration was refused; text is what compile said."""


class PidFileError(DispatcherError):
    """The pid file could not be read or written."""


class LogError(DispatcherError):
    """The error log cannot be opened."""


class AlreadyRunningError(DispatcherError):
    """A server with this pid file is running; httpd calls that a success."""

    exit_code = 0


class RecordError(DispatcherError):
    """A record is missing or not the one that the plan names."""
