"""What a broken configuration is told: file, line, reason, the line, a caret; all of it at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perchild.config import directives, known
from perchild.config.messages import Diagnostic, format_error, format_errors


def test_the_shape_is_httpds_with_line_and_caret(world: Any) -> None:
    """AH00526, reason, the line without its indentation, a caret below the word; tabs stay tabs."""
    result = world.compile("Listen 80\n\n  Timeout\t60 \\\n  seconds\n", config_file="/etc/x.conf")
    assert format_errors(result.errors) == (
        "AH00526: Syntax error on line 3 of /etc/x.conf:\nTimeout takes one argument, seconds[unit]\nTimeout\t60   seconds\n"
        "       \t     ^\n")


def test_what_is_shown_does_not_reach_the_terminal_as_a_command(world: Any) -> None:
    """Escape sequences and broken UTF-8 are shown as bytes; the caret still stands below its word."""
    result = world.compile("Listen 80\nTimeout \x1b[2J\udce9 60\n")
    assert format_errors(result.errors).splitlines()[2:] == [r"Timeout \x1b[2J\xe9 60", " " * 20 + "^"]
    assert Diagnostic("f", 1, "a\x1bb\nc", code="").render_line() == r"a\x1bb\x0ac (f:1)"


def test_errors_of_the_whole_have_httpds_other_shape() -> None:
    """AH00534 names the program."""
    assert format_error(Diagnostic("", 0, "More than one MPM loaded.", code="AH00534")) == (
        "AH00534: perchildd: Configuration error: More than one MPM loaded.\n")


def test_all_errors_of_all_files_come_in_order(world: Any) -> None:
    """Errors found while reading, while parsing and at the end stand in one list, by file and line."""
    world.files["/b"] = "Nope 1\nChildPerUserID alice alice 9\n<Directory /x>\n"
    result = world.compile("Listen 80\nTimeout x\nInclude /b\nChildPerUserID bob bob 8\nFoo\n")
    assert [(error.file, error.line) for error in result.errors] == [
        ("/main.conf", 2), ("/main.conf", 4), ("/main.conf", 5), ("/b", 1), ("/b", 2), ("/b", 3)]
    assert result.compiled is None


def test_a_missing_main_file_is_said(world: Any) -> None:
    """Without a line there is no syntax error, but what the system said."""
    (error, *_) = world.compile(None, config_file="/none.conf").errors
    assert format_error(error) == "perchildd: Could not open configuration file /none.conf: No such file or directory\n"


@pytest.mark.parametrize(("line", "reason", "column"), [
    ("KeepAlive maybe", "KeepAlive must be On or Off, not 'maybe'", 10),
    ("NumServers 0", "0 is out of range: 1..20000 expected", 11),
    ("MaxThreadsPerChild 1025", "1025 is out of range: 1..1024 expected", 19),
    ("ThreadLimit 0", "0 is out of range: 1..1024 expected", 12),
    ("LimitRequestFields 257", "257 is out of range: 0..256 expected", 19),
    ("LimitRequestLine 32769", "32769 is out of range: 1..32768 expected", 17),
    ("Timeout 0", "0 is out of range: 0.001..86400 seconds expected", 8),
    ("Timeout 5x", "'5x' is not a time: seconds, or a number with ms, s, min or h expected", 8),
    ("ListenBacklog -1", "-1 is out of range: 1..65535 expected", 14),
    ("User", "User takes one argument, name|#number", 0),
    ("User a b", "User takes one argument, name|#number", 7),
    ("AcceptScope all", "'all' is none of any, unassigned", 12),
    ("AcceptMutex posixsem", ("posixsem is an invalid mutex mechanism; Valid accept mutexes for this platform and MPM are: default, flock, fcntl, "
                             "pthread, sysvsem."), 12),
    ('ServerName "a', "missing closing quote", 11),
    ("ServerName a/b", "Invalid ServerName 'a/b': [scheme://]name[:port] expected", 11),
    ("ServerName a..b:0", "0 is out of range: 1..65535 expected", 11),
    ("ServerName bücher.example", "Invalid host name 'bücher.example' (write international names in their xn-- form)", 11),
    ("ServerAlias x", "ServerAlias not allowed in the server's context, outside of any section", 0),
    ("AssignUserID alice alice", "AssignUserID not allowed in the server's context, outside of any section", 0),
    ("Require all granted", "Require not allowed in the server's context, outside of any section", 0),
    ("Options +Indexes FollowSymLinks", "Either all Options must start with + or -, or no Option may.", 17),
    ("Options Foo", "Illegal option Foo", 8),
    ("ErrorDocument 200 x", "200 is out of range: 400..599 expected", 14),
    ("ErrorDocument 499 x", "Unsupported HTTP response code 499", 14),
    ("AddType text .x", "'text' is no media type: type/subtype expected", 8),
    ("Header frob x y", "first argument must be one of set, append, add, merge, unset, edit, setifempty, echo, note, edit*, not 'frob'", 7),
    ("Header set X-A", "set takes a header name and a value, and env=NAME", 7),
    ("Header set X:A b early", "'early' is not supported: env=NAME or env=!NAME expected", 17),
    ('Header set X "%{a}q"', "Unrecognized header format %{a}q: there are %%, %t, %D, %{NAME}e and %{NAME}s", 13),
    ('Header set X "100%"', "a header value cannot end in a single %: write %%", 13),
    ("Header edit X ( y", "Regular expression '(' could not be compiled: missing closing parenthesis at offset 1", 14),
    ('LogFormat "%Y"', "Unrecognized LogFormat directive %Y", 10),
    ('LogFormat "%i"', "%i needs an argument in braces, as in %{NAME}i", 10),
    ("CustomLog |/bin/x combined", ("CustomLog to a program is not supported: write to a file and let the program follow it (tail -F), or rotate "
                                   "the file with logrotate and perchildctl reopen"), 10),
    ('ErrorLog "|x"', ("ErrorLog to a program is not supported: write to a file and let the program follow it (tail -F), or rotate "
                      "the file with logrotate and perchildctl reopen"), 9),
    ("ErrorLog syslog:local1", "ErrorLog to syslog is not supported: write to a file; systemd's journal or a syslog daemon can read it from there", 9),
    ("CustomLog x y when=z", "'when=z' is no condition: env=NAME or env=!NAME expected", 14),
    ("LogLevel loud", ("'loud' is none of emerg, alert, crit, error, warn, notice, info, debug, trace1, trace2, trace3, trace4, trace5, trace6, "
                      "trace7, trace8"), 9),
    ("RequestReadTimeout header=20-10", "Maximum timeout must be larger than initial timeout: 'header=20-10'", 19),
    ("RequestReadTimeout foo", "'foo' is no RequestReadTimeout parameter: header|body=seconds[-seconds][,MinRate=bytes_per_second] expected", 19),
    ("Redirect 301 /x", "URL to redirect to is missing", 0),
    ("Redirect gone /x http://y/", "Redirect URL not valid for this status", 17),
    ("Redirect /x y", "Redirect to non-URL", 12),
    ("RedirectMatch ( /y", "Regular expression '(' could not be compiled: missing closing parenthesis at offset 1", 14),
    ("Alias x /y", "Alias needs a URL path that begins with '/', not 'x'", 6),
    ("ErrorLogFormat %M", "ErrorLogFormat takes json or default; other formats are not supported", 15),
    ("FileETag Foo", "Unknown keyword 'Foo' for FileETag directive: INode, MTime, Size, All or None expected", 9),
    ("MaxThreadsPerChild 65", None, 0),
    ("LimitRequestBody 99999999999999999999", "99999999999999999999 is out of range: 0..9223372036854775807 expected", 17),
    ("UnsetEnv", "UnsetEnv requires at least one argument, name ...", 0),
    ("<If x>\n</If>", ("'<If>' is a directive of httpd's core, which perchildd does not support; remove it, or put it into <IfModule !perchild.c> so that "
                      "only httpd reads it"), 0),
    ("<Directry /x>\n</Directry>", ("Invalid command '<Directry>', perhaps misspelled or defined by a module not included in the server "
                                   "configuration; did you mean <Directory>?"), 0),
    ("<RequireAny>\n</RequireAny>", "<RequireAny> not allowed in the server's context, outside of any section", 0),
])
def test_each_error_names_reason_and_word(world: Any, line: str, reason: str | None, column: int) -> None:
    """The caret stands below the offending word."""
    (error,) = world.compile("Listen 1\nAcceptScope unassigned\n" + line + "\n").errors
    if reason is None:
        assert error.reason == "MaxThreadsPerChild 65 is out of range: 1..64 expected (ThreadLimit is 64)"
    else:
        assert (error.reason, error.column, error.line) == (reason, column, 3)


@pytest.mark.parametrize(("line", "reason"), [
    ("Require", "Require requires at least one argument, [not] all granted|all denied|ip ...|host ...|local|env ...|method ..."),
    ("Require all maybe", "Argument for 'Require all' must be 'granted' or 'denied'"),
    ("Require ip 300.1.2.3", "ip address '300.1.2.3' appears to be invalid"),
    ("Require ip 10.0.0.0/33", "the specified IP range '10.0.0.0/33' is invalid: a mask of 0..32 bits expected"),
    ("Require ip 10.0.0.0/255.0.255.0", "the specified IP range '10.0.0.0/255.0.255.0' is invalid: a mask of 0..32 bits expected"),
    ("Require ip", "'ip' requires at least one argument"),
    ("Require not", "'not' needs a requirement after it"),
    ("Require not ip 1.2.3.4", "<RequireAny> directive contains only negative authorization directives"),
    ("Require valid-user", "Require valid-user needs authentication, which this version does not have"),
    ("Require foo bar", "Unknown Authz provider: foo; there are all, ip, host, env, method, local"),
    ("Require not all granted", "Require not all is not supported; say Require all granted or Require all denied"),
    ("Order foo", "unknown order: deny,allow | allow,deny | mutual-failure expected"),
    ("Allow all", "Allow requires at least two arguments, from all|address|host|env=[!]variable ..."),
    ("Allow to all", "allow and deny must be followed by 'from'"),
    ("DocumentRoot /x", "DocumentRoot not allowed in <Directory> context"),
    ("Listen 80", "Listen not allowed in <Directory> context"),
    ("<VirtualHost *>\n</VirtualHost>", "<VirtualHost> not allowed in <Directory> context"),
    ("<RequireAll>\nRequire not ip 1.1.1.1\n</RequireAll>", "<RequireAll> directive contains only negative authorization directives"),
    ("<RequireAll>\nOptions All\n</RequireAll>", "Options not allowed in <RequireAll> context"),
    ("AllowOverride Foo", "Illegal override option Foo"),
])
def test_each_error_in_a_section_is_told(world: Any, line: str, reason: str) -> None:
    """Errors within sections, also in the second of two equal ones."""
    text = f"<Directory /x>\n{line}\n</Directory>\n<Directory /y>\n{line}\n</Directory>\n"
    assert world.reasons(text) == [reason, reason]


def test_a_directive_that_httpd_knows_and_we_do_not_is_an_error_that_says_so(world: Any) -> None:
    """With the module, so that the operator knows what is missing."""
    assert world.reasons("RewriteEngine On\n") == [
        ("'RewriteEngine' is a directive of httpd's mod_rewrite, which perchildd does not support; remove it, or put it into <IfModule !perchild.c> "
        "so that only httpd reads it")]


@pytest.mark.parametrize(("word", "hint"), [
    ("Lisen", "Listen"), ("ServerNmae", "ServerName"), ("documentroot2", "DocumentRoot"), ("ChildPerUserId1", "ChildPerUserID"),
])
def test_an_unknown_word_gets_the_nearest_known_name(world: Any, word: str, hint: str) -> None:
    """Typing errors are met with the name that was meant."""
    assert world.reasons(f"{word} x\n")[0].endswith(f"did you mean {hint}?")


def test_a_word_like_no_other_gets_no_hint(world: Any) -> None:
    """No guessing."""
    assert world.reasons("Qqqqq x\n") == [
        "Invalid command 'Qqqqq', perhaps misspelled or defined by a module not included in the server configuration"]


def test_no_name_is_both_ours_and_said_to_be_unsupported() -> None:
    """known.py lists only what the table has not."""
    ours = {name.lower().strip("<>") for name in directives.ALL_NAMES}
    assert ours & set(known.OF_MODULE) == set()


def test_every_directive_of_the_issue_is_in_the_table() -> None:
    """The whole list, with 2.0's and 2.4's names."""
    names = ["ServerRoot", "Listen", "ListenBacklog", "User", "Group", "PidFile", "ScoreBoardFile", "CoreDumpDirectory", "ServerName", "ServerAlias", "ServerAdmin", "DocumentRoot", "DirectoryIndex", "Options", "AllowOverride", "Require", "Order", "Allow", "Deny", "Alias", "AliasMatch", "Redirect", "RedirectMatch", "ErrorDocument", "AddType", "TypesConfig", "ForceType", "DefaultType", "AddCharset", "AddDefaultCharset", "AddEncoding", "Header", "RequestHeader", "SetEnv", "UnsetEnv", "PassEnv", "LogFormat", "CustomLog", "ErrorLog", "LogLevel", "TransferLog", "Timeout", "KeepAlive", "KeepAliveTimeout", "MaxKeepAliveRequests", "RequestReadTimeout", "LimitRequestLine", "LimitRequestFieldSize", "LimitRequestFields", "LimitRequestBody", "SendBufferSize", "ReceiveBufferSize", "ServerTokens", "ServerSignature", "FileETag", "AcceptPathInfo", "AcceptMutex", "LockFile", "MaxMemFree", "ThreadStackSize", "EnableExceptionHook", "GracefulShutdownTimeout", "LoadModule", "NumServers", "StartThreads", "MinSpareThreads", "MaxSpareThreads", "MaxThreadsPerChild", "ChildPerUserID", "AssignUserID", "ThreadLimit", "ServerLimit", "StartServers", "MinSpareServers", "MaxSpareServers", "MaxClients", "MaxRequestWorkers", "ThreadsPerChild", "MaxRequestsPerChild", "MaxConnectionsPerChild", "MPM", "AcceptScope", "KeepAliveScope", "IdleTimeout", "LimitUIDRange", "LimitGIDRange", "ErrorLogFormat", "UseCanonicalName", "SetHandler", "NameVirtualHost"]
    assert [name for name in names if name.lower() not in directives.TABLE] == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200, deadline=None)
@given(st.lists(st.one_of(
    st.sampled_from(sorted(row.name for row in directives.ROWS)), st.sampled_from(sorted(directives.SECTIONS)),
    st.sampled_from(["</Directory>", "</VirtualHost>", "<IfModule x>", "</IfModule>", "Define a b", "${a}", "\\", '"', "/x", "on", "*:80",
                     "ip 10.0.0.1", "all granted", "0", "-1", "#", "\udcff", "é", "%", "x" * 300, "²", "٣", "(", "<", ">", "</", "env=", "Include /main.conf"]),
    st.text(max_size=8)), max_size=25), st.sampled_from([" ", "\n", "\n", "\t"]))
def test_no_text_makes_the_compiler_stumble(world: Any, parts: list[str], glue: str) -> None:
    """Any text gives either a configuration or errors, each of which can be shown with its caret."""
    result = world.compile("Listen 80\n" + glue.join(parts))
    assert (result.compiled is None) is bool(result.errors)
    assert format_errors(result.errors).count("\n") >= len(result.errors)
    assert all(warning.render_line() for warning in result.warnings)
