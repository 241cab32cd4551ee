"""Writes perchildd(8), perchildctl(8) and pc2ensite(8) from what the programs themselves say: `python3 -m perchild.control.man DIRECTORY`.

Runs as: whoever builds the package.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from perchild import cli, roff
from perchild.control import command, sites

_OPTION = re.compile(r"^  (-\S.*?) +: (.*(?:\n {20,}.*)*)", re.MULTILINE)
_SIGNALS = (
    ("TERM, INT", "Stop now."), ("WINCH", "Stop when what was accepted is served, or GracefulShutdownTimeout is over."),
    ("USR1", "Take the configuration; children whose part has not changed go on, and reopen their logs."),
    ("HUP", "Take the configuration and replace every child at once."),
)


def render_perchildd() -> str:
    """Return perchildd(8), with the options as `perchildd -h` lists them."""
    options = [(name, " ".join(text.split())) for name, text in _OPTION.findall(cli.USAGE)]
    return "".join((
        roff.head("perchildd", 8, "web server that serves each host as that host's own user"),
        roff.section("SYNOPSIS", "perchildd [options]"),
        roff.section(
            "DESCRIPTION",
            "perchildd is a web server for shared hosting. Every virtual host that names a user (AssignUserID) is served by a process of that "
            "user, files and programs alike; all hosts share one address and port, and connections are handed between processes.",
            "On Debian it is run by systemd as perchildd.service. `systemctl reload perchildd` tests the configuration first and then puts it "
            "in force. While the service restarts, connections wait in the sockets that systemd keeps; none is refused."),
        roff.section("OPTIONS"), roff.terms(options),
        roff.section("SIGNALS"), roff.terms(_SIGNALS),
        roff.section("EXIT STATUS"), roff.terms((
            ("0", "It was stopped; or, with -t, the configuration is good."),
            ("1", "It could not start, and said why; or, with -t, errors were found."))),
        roff.section("FILES"), roff.terms((
            ("/etc/perchild/perchild.conf", "Configuration, perchild.conf(5)."), ("/run/perchildd", "What exists only while it runs."),
            ("/var/log/perchildd", "Logs of hosts that name none of their own."))),
        roff.section("SEE ALSO", "perchild.conf(5), perchildctl(8), pc2ensite(8), sd_notify(3), systemd.socket(5)")))


def render_perchildctl() -> str:
    """Return perchildctl(8), with the commands of its parser."""
    parser = command.make_parser()
    return "".join((
        roff.head("perchildctl", 8, "ask a running perchildd"),
        roff.section("SYNOPSIS", "perchildctl [--run-dir DIRECTORY] command [argument ...]"),
        roff.section("DESCRIPTION", "perchildctl asks the server by its control socket, which root alone may use, and looks at configurations."),
        roff.section("OPTIONS"), roff.terms(_options(parser)),
        roff.section("COMMANDS"), *(roff.terms([(name, f"{help_text}.")]) + _nested(sub) for name, help_text, sub in _commands(parser)),
        roff.section("EXIT STATUS"), roff.terms((
            ("0", "Done."), ("1", "Refused; why is on standard error."), ("2", "The call was wrong."), ("3", "No server answers."))),
        roff.section("SEE ALSO", "perchildd(8), perchild.conf(5)")))


def render_pc2ensite() -> str:
    """Return pc2ensite(8), which stands for all four programs."""
    parser = sites.make_parser("pc2ensite")
    return "".join((
        roff.head("pc2ensite", 8, "enable or disable a site or a piece of configuration of perchildd"),
        roff.section("SYNOPSIS", "pc2ensite [-q] [site ...]", "pc2dissite [-q] [site ...]", "pc2enconf [-q] [conf ...]",
                     "pc2disconf [-q] [conf ...]"),
        roff.section(
            "DESCRIPTION",
            "pc2ensite makes a link in /etc/perchild/sites-enabled to a file in /etc/perchild/sites-available, pc2dissite removes it. "
            "pc2enconf and pc2disconf do the same for conf-enabled and conf-available. Without names they list the choices and ask.",
            "Nothing is in force until the server is reloaded: `systemctl reload perchildd`. Options and exit statuses are those of "
            "a2ensite(8)."),
        roff.section("OPTIONS"), roff.terms(_options(parser)),
        roff.section("EXIT STATUS"), roff.terms((
            ("0", "Everything is as it was asked for."), ("1", "Something could not be done."), ("2", "An option is unknown."))),
        roff.section("ENVIRONMENT"), roff.terms([("PERCHILD_CONFDIR", "Directory instead of /etc/perchild.")]),
        roff.section("SEE ALSO", "perchildd(8), perchild.conf(5)")))


def _options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        if not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            value = f" {action.metavar or action.dest.upper()}" if action.nargs is None and action.option_strings else ""
            names = ", ".join(f"{one}{value}" for one in action.option_strings) or str(action.metavar or action.dest)
            yield names, f"{_sentence(action.help)}."


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {one.dest: _sentence(one.help) for one in action._choices_actions}  # noqa: SLF001
            for name, sub in action.choices.items():
                if name in helps:
                    yield name, helps[name], sub


def _sentence(text: str | None) -> str:
    return f"{text[:1].upper()}{text[1:]}" if text else ""


def _nested(parser: argparse.ArgumentParser) -> str:
    inner = roff.terms((name, text) for name, text in _options(parser) if not name.startswith("-h"))
    return f".RS\n{inner}.RE\n" if inner else ""


PAGES: dict[str, Callable[[], str]] = {
    "perchildd.8": render_perchildd, "perchildctl.8": render_perchildctl, "pc2ensite.8": render_pc2ensite,
}

if __name__ == "__main__":
    for page, render in PAGES.items():
        Path(sys.argv[1], page).write_text(render(), encoding="utf-8")
