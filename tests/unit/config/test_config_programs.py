"""Programs and back ends: what hosts say of them, what the child's record and the runner's file hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

ALICE = "<VirtualHost *:80>\nServerName alice.example\nDocumentRoot /home/alice/web\nAssignUserID alice alice\n{}</VirtualHost>\n"
BOB = "<VirtualHost *:80>\nServerName bob.example\nDocumentRoot /home/bob/web\nAssignUserID bob bob\n{}</VirtualHost>\n"
SOCKETS = "/var/lib/perchild-tenants/1001:1001:2000,2001"


def identity(result: Any, name: str = "alice") -> Any:
    """Return an identity of the plan."""
    return next(one for one in result.compiled.plan.identities if one.name == name)


def runner(result: Any, name: str = "alice") -> dict[str, Any]:
    """Return an identity's runner file."""
    tree: dict[str, Any] = json.loads(result.compiled.records[identity(result, name).runner])
    return tree


def host_of(world: Any, by_tag: Any, result: Any, name: str = "alice") -> dict[str, Any]:
    """Return the last host of an identity, by tag."""
    found: dict[str, Any] = by_tag([value for tag, value in world.record(result, name) if tag == "HOST"][-1])
    return found


def passes(world: Any, by_tag: Any, text: str) -> list[tuple[Any, ...]]:
    """Return (kind, from, to) of alice's passes."""
    host = host_of(world, by_tag, world.good(ALICE.format(text)))
    return [tuple(value for _, value in one[:3]) for one in host.get("PROXY_PASS", [])]


# --- which identity needs a runner -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "ScriptAlias /cgi-bin/ /srv/cgi/\n", "ScriptAliasMatch ^/c/(.*) /srv/c/$1\n", "SetHandler cgi-script\n",
    "AddHandler fcgid-script .fcgi\n", "<Directory /home/alice>\n<Files x>\nSetHandler cgi-script\n</Files>\n</Directory>\n",
    "FcgidWrapper /srv/php .php\n", "PHPPool on\n", "AppServer gunicorn app:app\n", "WSGIScriptAlias / /srv/x.wsgi\n",
    "AddType application/x-httpd-cgi .cgi\n",
])
def test_who_has_programs_run_here_has_a_runner(world: Any, text: str) -> None:
    """And nobody else."""
    result = world.good(ALICE.format(text) + BOB.format(""))
    assert identity(result).runner.endswith(".runner")
    assert (identity(result, "bob").runner, identity(result, "www-data").runner) == ("", "")


@pytest.mark.parametrize("text", [
    "", "ProxyPass / http://127.0.0.1:81/\n", 'SetHandler "proxy:unix:/run/x.sock|fcgi://localhost"\n', "Alias /x /srv/x\n",
    "RemoveHandler .cgi\nPHPPool off\n", "ScriptLog /x\nRLimitCPU 5\n", "AddType application/x-httpd-php .php\n",
])
def test_who_only_passes_on_has_none(world: Any, text: str) -> None:
    """A socket is connected to by the child itself."""
    assert identity(world.good(ALICE.format(text))).runner == ""


def test_a_changed_program_changes_one_identity(world: Any) -> None:
    """Record and runner file of the others keep their names."""
    text = ALICE.format("ScriptAlias /cgi-bin/ /srv/cgi/\n{}") + BOB.format("ScriptAlias /cgi-bin/ /srv/cgi/\n")
    first, second = (world.good(text.format(limit)) for limit in ("RLimitCPU 5\n", "RLimitCPU 6\n"))
    assert identity(first).runner != identity(second).runner
    assert identity(first).record == identity(second).record
    assert identity(first, "bob") == identity(second, "bob")


def test_the_runner_file_says_who_and_what(world: Any) -> None:
    """Every key of it."""
    tree = runner(world.good("RunnerIdle 60\n" + ALICE.format(
        "ScriptAlias /cgi-bin/ /srv/cgi/\nAliasMatch ^/x/(.*) /srv/x/a$1\nFcgidWrapper '/srv/php/starter -x' .php\n"
        "RLimitCPU 5 10\nRLimitMEM max\nNiceValue 7\nNoNewPrivileges off\n")))
    assert tree == {
        "version": 1, "user": "alice", "uid": 1001, "gid": 1001, "home": "/home/alice",
        "roots": ["/home/alice/web", "/srv/php", "/srv/cgi", "/srv/x"], "limits": {"cpu": [5, 10], "mem": [-1, -1], "nproc": None},
        "nice": 7, "new_privs": True, "path": "/usr/local/bin:/usr/bin:/bin", "idle_s": 60, "is_json": False,
        "services": [{"name": "fcgid0", "kind": "fcgid", "socket": f"{SOCKETS}/fcgid0.sock", "idle_s": 60,
                      "command": ["/srv/php/starter", "-x"], "max_children": 4, "env": {}, "log": tree["services"][0]["log"]}],
    }


def test_of_several_hosts_the_strictest_limit_counts(world: Any) -> None:
    """The least number, the highest nice value; the server's where a host says nothing."""
    hosts = [ALICE.format(text) for text in ("PHPPool on\nRLimitCPU 9 max\nNiceValue 2\n", "RLimitCPU 8 30\nNiceValue 1\n", "")]
    tree = runner(world.good("RLimitNPROC 50\nRLimitCPU 20 40\n" + "".join(hosts)))
    assert (tree["limits"], tree["nice"], tree["new_privs"]) == ({"cpu": [8, 30], "mem": None, "nproc": [50, 50]}, 2, False)


def test_the_main_server_may_have_programs(world: Any) -> None:
    """They run as User and Group, and hosts inherit them as themselves."""
    result = world.good("PHPPool on\n" + ALICE.format(""))
    assert runner(result, "www-data")["services"][0]["socket"] == "/var/lib/perchild-tenants/33:33:/php.sock"
    assert runner(result)["services"][0]["socket"] == f"{SOCKETS}/php.sock"


def test_each_wrapper_is_a_service_of_its_identity(world: Any, by_tag: Any) -> None:
    """Wherever it is said; hosts of one user with the same command, variables and number share it."""
    main = "FcgidInitialEnv A 1\nFcgidMaxProcessesPerClass 9\n"
    inside = "<Directory /home/alice>\n<Files *.php>\nFCGIWrapper /a/b .php\n</Files>\n</Directory>\nFCGIWrapper '/c/d e' .x\n"
    other = "FcgidWrapper /a/b .y\nFcgidInitialEnv {} 2\n"
    result = world.good(main + ALICE.format(inside) + ALICE.format(inside) + ALICE.format(other.format("B")) + BOB.format(inside))
    assert [(one["name"], one["command"], one["max_children"], one["env"]) for one in runner(result)["services"]] == [
        ("fcgid0", ["/a/b"], 9, {"A": "1"}), ("fcgid1", ["/c/d", "e"], 9, {"A": "1"}), ("fcgid2", ["/a/b"], 9, {"A": "1", "B": "2"})]
    assert {"/a", "/c"} <= set(runner(result)["roots"])
    assert len(runner(result, "bob")["services"]) == 2
    record = world.record(result, "alice")
    wanted = [[("/a/b", "service:0"), ("/c/d e", "service:1")]] * 2 + [[("/a/b", "service:2")]]
    assert [by_tag(value)["FCGID_SERVICE"] for tag, value in record if tag == "HOST"] == wanted


# --- services ----------------------------------------------------------------------------------------------------


def test_a_pool_is_shared_by_hosts_that_want_the_same(world: Any) -> None:
    """Another version or other settings of PHP make another one."""
    wants = ("PHPPool on\n", "PHPPool on\n", "PHPPool 8.2 max_children=3 idle=9\n", "PHPPool on\nphp_flag display_errors On\n")
    result = world.good("".join(ALICE.format(text) for text in wants))
    services = runner(result)["services"]
    assert [(one["name"], one["version"], one["max_children"], one["idle_s"], one["values"]) for one in services] == [
        ("php", "", 8, 300, []), ("php1", "8.2", 3, 9, []), ("php2", "", 8, 300, [["php_flag", "display_errors", "1"]])]
    record = world.record(result, "alice")
    assert [value for tag, value in record if tag == "SERVICE"] == [
        [("SERVICE_KIND", 0), ("SERVICE_SOCKET", f"{SOCKETS}/{name}.sock"), ("SERVICE_CONNECTIONS", workers)]
        for name, workers in (("php", 8), ("php1", 3), ("php2", 8))]
    assert [dict(value)["PHP_SERVICE"] for tag, value in record if tag == "HOST"] == [0, 0, 1, 2]


def test_a_pool_knows_what_sections_of_its_hosts_change(world: Any) -> None:
    """Whatever host they are in, and the main server's; what the hosts say themselves is theirs anyway."""
    files = "<Files x.php>\nphp_value {} 1\n</Files>\n"
    result = world.good("<Directory /x>\n<Files y.php>\nphp_admin_flag main on\n</Files>\n</Directory>\n"
                        + ALICE.format("PHPPool on\nphp_value own 1\n" + files.format("b"))
                        + ALICE.format("PHPPool on\nphp_value own 1\n<Location /x>\nphp_admin_value b 2\nphp_flag a.c on\n</Location>\n")
                        + ALICE.format("PHPPool 8.2\n" + files.format("d")) + ALICE.format(files.format("none")))
    assert [one["changed"] for one in runner(result)["services"]] == [["a.c", "b", "main"], ["d", "main"]]
    assert [[pair for tag, pair in value if tag == "SERVICE_PHP_NAME"] for tag, value in world.record(result, "alice") if tag == "SERVICE"] == [
        [("a.c", "0"), ("b", "1"), ("main", "1")], [("d", "0"), ("main", "1")]]


def test_a_pool_takes_php_files_unless_the_host_says_otherwise(world: Any, by_tag: Any) -> None:
    """An AddHandler for the same extension has the last word."""
    for more, handler in (("", "service:0"), ("RemoveHandler .php\n", "service:0"), ("AddHandler application/x-httpd-php82 .php\n", "application/x-httpd-php82")):
        host = host_of(world, by_tag, world.good(ALICE.format("PHPPool on\n" + more)))
        assert by_tag(host["BASE"])["ADD_HANDLER"] == [("php", handler)]


def test_a_pool_can_be_off_in_a_host(world: Any, by_tag: Any) -> None:
    """The server's is then not taken."""
    result = world.good("PHPPool on\n" + ALICE.format("PHPPool off\n"))
    assert identity(result).runner == ""
    assert "PHP_SERVICE" not in host_of(world, by_tag, result)


def test_an_application_server_is_a_service_behind_a_path(world: Any, by_tag: Any) -> None:
    """Its path ends with a slash; the default is all of the host; what an Alias names stays here."""
    result = world.good(ALICE.format(
        "Alias /static /srv/static\nAlias /api/doc /srv/doc\nSetEnv KEY v\nAppServer /api/ ./run {socket}\nAppServer gunicorn app:app\n"
        "ErrorLog /home/alice/error.log\n"))
    host = host_of(world, by_tag, result)
    assert [tuple(value for _, value in one[:3]) for one in host["PROXY_PASS"]] == [
        (0, "/api/doc", "!"), (0, "/api", "service:0/api"), (0, "/static", "!"), (0, "/api/doc", "!"), (0, "/", "service:1/")]
    assert dict(host["PROXY_PASS"][1])["PROXY_UPGRADE"] == "websocket"
    assert runner(result)["services"][0] == {
        "name": "app0", "kind": "app", "socket": f"{SOCKETS}/app0.sock", "idle_s": 300, "command": ["./run", "{socket}"],
        "cwd": "/home/alice", "env": {"KEY": "v"}, "log": "/home/alice/error.log"}


def test_the_same_application_of_two_hosts_runs_once(world: Any) -> None:
    """As a host under two ports is written."""
    result = world.good(ALICE.format("WSGIScriptAlias /w /srv/app/x.wsgi\n") * 2)
    services = runner(result)["services"]
    assert [(one["name"], one["kind"], one["file"], one["mount"], one["cwd"]) for one in services] == [
        ("wsgi0", "wsgi", "/srv/app/x.wsgi", "/w", "/srv/app")]


@pytest.mark.parametrize(("text", "found"), [
    ("WSGIDaemonProcess d python-home=/v python-path=/a:/b home=/h\nWSGIScriptAlias / /srv/x.wsgi\n", ("/v", ["/a", "/b"], "/h")),
    ("WSGIProcessGroup other\nWSGIScriptAlias / /srv/x.wsgi\n", ("/o", [], "/srv")),
    ("WSGIScriptAlias / /srv/x.wsgi process-group=other\n", ("/o", [], "/srv")),
    ("WSGIScriptAlias / /srv/x.wsgi\n", ("", [], "/srv")),
])
def test_an_application_uses_the_python_of_its_daemon_process(world: Any, text: str, found: tuple[Any, ...]) -> None:
    """Named by it or its host, wherever it is defined; else the only one of its host."""
    other = BOB.format("WSGIDaemonProcess other python-home=/o\n")
    service = runner(world.good(ALICE.format(text) + other))["services"][0]
    assert (service["python_home"], service["python_path"], service["cwd"]) == found


def test_a_socket_whose_path_is_too_long_is_refused(world: Any) -> None:
    """The kernel would refuse it at the first request."""
    reasons = world.reasons("DefaultRuntimeDir /" + "x" * 90 + "\n" + ALICE.format("PHPPool on\n"))
    assert len(reasons) == 1
    assert reasons[0].endswith("107 is the most there can be: name a shorter DefaultRuntimeDir")


# --- handlers ----------------------------------------------------------------------------------------------------


def test_a_proxy_section_gives_its_name_a_socket(world: Any, by_tag: Any) -> None:
    """Behind or before the handler, with its timeout; of two hosts each has its own."""
    section = '<Proxy "unix:/run/{}.sock|fcgi://php">\nProxySet timeout=7\n</Proxy>\n'
    handler = "<Files x>\nSetHandler proxy:fcgi://php\n</Files>\nAddHandler proxy:fcgi://php .php\n"
    result = world.good(ALICE.format(handler + section.format("a")) + ALICE.format(section.format("b") + handler) + ALICE.format(handler))
    for (tag, value), want in zip([one for one in world.record(result, "alice") if one[0] == "HOST"],
                                  ("unix:/run/a.sock|", "unix:/run/b.sock|", ""), strict=True):
        assert tag == "HOST"
        host = by_tag(value)
        inside = by_tag(dict(host["SECTION"][0])["SECTION_SETTINGS"])
        assert inside["HANDLER"] == f"proxy:{want}fcgi://php"
        assert by_tag(host["BASE"])["ADD_HANDLER"] == [("php", f"proxy:{want}fcgi://php")]
        assert inside.get("PROXY_TIMEOUT") == (7000 if want else None)


def test_settings_of_programs_are_merged_as_the_modules_do(world: Any, by_tag: Any) -> None:
    """By name or extension, the host's over the server's."""
    base = by_tag(host_of(world, by_tag, world.good(
        "AddHandler cgi-script .cgi .pl\nphp_value memory_limit 1M\nAction a /x\nProxyPassReverse /o http://o/\nFcgidWrapper /a/b\n"
        + ALICE.format("RemoveHandler .pl\nphp_value memory_limit 2M\nphp_admin_value memory_limit 3M\nAction a /y virtual\n"
                       "ProxyPassReverse /i http://i/\nFCGIWrapper '/c/d e' .PHP\n")))["BASE"])
    assert base["ADD_HANDLER"] == [("cgi", "cgi-script"), ("pl", "")]
    assert base["PHP_VALUE"] == [("php_value", "memory_limit", "2M"), ("php_admin_value", "memory_limit", "3M")]
    assert base["ACTION"] == [("a", "/y", "virtual")]
    assert base["PROXY_REVERSE"] == [("/i", "http://i/"), ("/o", "http://o/")]
    assert base["FCGID_WRAPPER"] == [("/a/b", ""), ("/c/d e", "php")]


# --- proxying ----------------------------------------------------------------------------------------------------


def test_passes_keep_their_order_and_locations_come_first(world: Any, by_tag: Any) -> None:
    """Of several Locations the last has the first word, as in httpd."""
    assert passes(world, by_tag, "ProxyPass /a/b !\nProxyPass /a http://h/\nProxyPassMatch ^/(x)$ fcgi://127.0.0.1:9000/d/$1\n"
                                 "<Location /l>\nProxyPass http://l/\n</Location>\n<Location /l/m>\nProxyPass http://l/\n</Location>\n"
                                 "<LocationMatch ^/r>\nProxyPass unix:/s|http://r/\n</LocationMatch>\n") == [
        (1, "^/r", "unix:/s|http://r/"), (0, "/l/m", "http://l/"), (0, "/l", "http://l/"),
        (0, "/a/b", "!"), (0, "/a", "http://h/"), (1, "^/(x)$", "fcgi://127.0.0.1:9000/d/$1")]


def test_a_reverse_within_a_location_is_of_its_path(world: Any, by_tag: Any) -> None:
    """Though both sections say the same."""
    host = host_of(world, by_tag, world.good(ALICE.format(
        "".join(f"<Location {path}>\nProxyPassReverse http://b/\n</Location>\n" for path in ("/a", "/c")))))
    assert [by_tag(dict(one)["SECTION_SETTINGS"])["PROXY_REVERSE"] for one in host["SECTION"]] == [
        [("/a", "http://b/")], [("/c", "http://b/")]]


def test_parameters_of_a_pass_and_of_its_proxy_section(world: Any, by_tag: Any) -> None:
    """What the pass says counts more."""
    result = world.good("<Proxy http://b:1>\nProxySet timeout=5 retry=6\nOrder allow,deny\nAllow from all\n</Proxy>\n"
                        + ALICE.format("ProxyPass /p http://b:1/p timeout=500ms connectiontimeout=2 disablereuse=on upgrade=ANY\n"))
    assert dict(host_of(world, by_tag, result)["PROXY_PASS"][0]) == {
        "PROXY_KIND": 0, "PROXY_FROM": "/p", "PROXY_TO": "http://b:1/p", "PROXY_TIMES": (500, 2000, 7), "PROXY_UPGRADE": "ANY",
        "PROXY_SINGLE_USE": 1}


def test_connections_to_a_responder_are_kept_where_that_is_asked_for(world: Any, by_tag: Any) -> None:
    """max says how many workers there are for each child; disablereuse has the last word."""
    for words, want in (("enablereuse=on max=4", 4), ("enablereuse=on", 16), ("max=4", None), ("enablereuse=off max=4", None),
                        ("enablereuse=on disablereuse=on", None)):
        result = world.good(ALICE.format(f"ProxyPass /p fcgi://127.0.0.1:9000/p {words}\n"))
        assert dict(host_of(world, by_tag, result)["PROXY_PASS"][0]).get("PROXY_KEPT") == want


def test_upgrade_none_is_said(world: Any, by_tag: Any) -> None:
    """Where the <Proxy> allows a protocol, and where ws:// would."""
    result = world.good("<Proxy http://b:1>\nProxySet upgrade=websocket\n</Proxy>\n" + ALICE.format(
        "ProxyPass /p http://b:1/p upgrade=NONE\nProxyPass /q http://b:1/q\nProxyPass /w ws://b:1/w upgrade=none\n"))
    assert [dict(one)["PROXY_UPGRADE"] for one in host_of(world, by_tag, result)["PROXY_PASS"]] == ["NONE", "websocket", "none"]


def test_retry_0_is_not_the_default(world: Any, by_tag: Any) -> None:
    """Seconds and 1, for 0 says that nothing was said; a pass that says 0 counts more than its <Proxy>."""
    for text, times in (("retry=0", (0, 0, 1)), ("retry=1", (0, 0, 2))):
        result = world.good("<Proxy http://b:1>\nProxySet retry=6\n</Proxy>\n" + ALICE.format(f"ProxyPass /p http://b:1/p {text}\n"))
        assert dict(host_of(world, by_tag, result)["PROXY_PASS"][0])["PROXY_TIMES"] == times
    assert "PROXY_TIMES" not in dict(host_of(world, by_tag, world.good(ALICE.format("ProxyPass /p http://b:1/p\n")))["PROXY_PASS"][0])


def test_front_ends_are_told_to_the_child(world: Any, by_tag: Any) -> None:
    """Names as their addresses; the server's lists count where a host has none."""
    result = world.good("RemoteIPHeader X-Real-IP\nRemoteIPInternalProxy 10/8 two.example\nRemoteIPProxyProtocol On\n" + ALICE.format(""))
    host = host_of(world, by_tag, result)
    assert (host["REMOTE_IP_HEADER"], host["PROXY_PROTOCOL"], "REMOTE_IP_TRUSTED" in host) == ("X-Real-IP", 1, False)
    assert host["REMOTE_IP_INTERNAL"] == (b"\6\0\6\0\4\10\12\0\0\0" b"\6\0\6\0\4\40\12\0\0\1" b"\6\0\22\0\6\200" + bytes(15) + b"\1")


# --- what is refused, and what is said ---------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "reason"), [
    ("ProxyRequests On", "ProxyRequests On would make an open proxy"),
    ("ProxyPass /a https://b/", "a back end under https needs a TLS client"),
    ("ProxyPass /a balancer://b/", "balancing over several back ends is not supported"),
    ("ProxyPass /a ajp://b/", "AJP is not supported"),
    ("ProxyPass /a gopher://b/", "gopher:// is not spoken to back ends: there are fcgi, http, ws"),
    ("ProxyPassMatch ^/(.*)$ http://$1/", "'http://$1/': the back end's host and port cannot come from the request"),
    ("ProxyPassMatch ^/(.*)$ unix:/run/$1|http://h/", "'unix:/run/$1|http://h/': the path of the socket cannot come from the request"),
    ("ProxyPass /a unix:rel|http://h/", "'unix:rel|http://h/': the path of the socket must be absolute"),
    ("ProxyPass /a unix:/x", "'unix:/x' is no back end"),
    ("ProxyPass /a http://:80/", "'http://:80/': the URL names no host"),
    ("ProxyPass /a http://b:0/", "0 is out of range: 1..65535 expected"),
    ("ProxyPass /a http://b/ colour=red", "unknown worker parameter 'colour'"),
    ("ProxyPass /a http://b/ timeout=0", "0 is out of range"),
    ("ProxyPass a http://b/", "ProxyPass needs a URL path that begins with '/', not 'a'"),
    ("<Directory /x>\nProxyPass http://b/\n</Directory>", "ProxyPass not allowed in <directory> context"),
    ("<Location /x>\nProxyPass /y http://b/\n</Location>", "ProxyPass within <Location> takes the back end's URL alone"),
    ("<Proxy balancer://x>\n</Proxy>", "balancing over several back ends is not supported"),
    ("<Proxy *>\nRequire ip 10\n</Proxy>", "rules of access in <Proxy> are not supported"),
    ("<Proxy *>\nOrder deny,allow\nDeny from all\n</Proxy>", "rules of access in <Proxy> are not supported"),
    ("<Proxy *>\nSetEnv A b\n</Proxy>", "<Proxy> may contain ProxySet and Require all granted"),
    ("<Location />\nProxySet timeout=1\n</Location>", "ProxySet belongs into <Proxy URL>"),
    ("SetHandler proxy:unix:/x", "'unix:/x' is no back end"),
    ("SetHandler proxy:balancer://x", "balancing over several back ends is not supported"),
    ("AddHandler proxy:https://x .php", "a back end under https needs a TLS client"),
    ("PHPPool maybe", "'maybe' is neither on, off nor a version of PHP such as 8.2"),
    ("PHPPool on idle=0", "0 is out of range: 1..86400 seconds expected"),
    ("PHPPool on x=1", "'x=1' is no parameter of PHPPool"),
    ("php_flag x maybe", "php_flag must be On or Off, not 'maybe'"),
    ("php_value a[b] 1", "'a[b]' is no name of a PHP setting"),
    ('php_value a "x\x01y"', "a value may not contain control characters: they would begin another setting"),
    ("php_value a \"it's $x\"", "a value may not contain ' together with"),
    ("<Files x.php>\nphp_admin_value disable_functions exec\n</Files>", "disable_functions may stand in a virtual host only"),
    ("SetEnv PHP_ADMIN_VALUE open_basedir=/", "PHP_ADMIN_VALUE is made by php_admin_value name value"),
    ("<Files x.php>\nSetEnv PHP_VALUE memory_limit=1G\n</Files>", "PHP_VALUE is made by php_value name value"),
    ("PassEnv PHP_VALUE", "PHP_VALUE is made by php_value name value"),
    ("ProxyFCGISetEnvIf true PHP_ADMIN_VALUE open_basedir=/", "PHP_ADMIN_VALUE is made by php_admin_value name value"),
    ("AppServer /x/", "AppServer needs a command behind the URL path"),
    ("Action a b", "Action needs a URL path that begins with '/', not 'b'"),
    ("Action a /b x", "unrecognized option 'x': virtual expected"),
    ("FcgidWrapper php", "'php' is no command: the absolute path of a program expected"),
    ('ProxyFCGISetEnvIf "-z x" A b', "a condition needs expressions, which this version does not have"),
    ('ProxyFCGISetEnvIf "true" A "%{md5:x}"', "%{md5:x} is not supported here"),
    ("RLimitCPU 5 4", "the first number cannot be more than the second: 5 and 4"),
    ("RLimitCPU max 4", "the first number cannot be more than the second: max and 4"),
    ("NiceValue 20", "20 is out of range: -20..19 expected"),
    ("RemoteIPInternalProxy nowhere.example", "'nowhere.example' is no IP address, no network, and no name that is known"),
    ("RemoteIPInternalProxy 10.0.0.0/33", "the specified IP range '10.0.0.0/33' is invalid"),
    ("ScriptAliasMatch ^/(.*) $1", "ScriptAliasMatch needs a path that begins with a directory, not with what the client sent: '$1'"),
    ("AliasMatch ^/(.*) $1", "AliasMatch needs a path that begins with a directory"),
    ("ScriptAlias cgi /x", "ScriptAlias needs a URL path that begins with '/', not 'cgi'"),
])
def test_what_cannot_be_is_refused_with_its_reason(world: Any, text: str, reason: str) -> None:
    """One error, which begins so."""
    reasons = world.reasons(f"{text}\n")
    assert len(reasons) == 1
    assert reasons[0].startswith(reason)


@pytest.mark.parametrize("text", [
    "FcgidMaxRequestLen 1073741824", "WSGIDaemonProcess x user=alice display-name=x", "WSGIApplicationGroup x", "ScriptLog /x", "ProxyVia On",
    "ProxyPass /a http://b/ keepalive=On", "ProxyPass /a http://b/ nocanon", "ProxyErrorOverride On", "FcgidWrapper /a/b .php virtual",
])
def test_what_has_no_effect_is_said(world: Any, text: str) -> None:
    """One warning, no error."""
    warnings = world.good(f"{text}\n").warnings
    assert len(warnings) == 1
    assert " has no effect" in warnings[0].reason


@pytest.mark.parametrize("name", ["mod_cgi.c", "mod_cgid.c", "mod_fcgid.c", "mod_proxy.c", "mod_proxy_fcgi.c", "mod_proxy_http.c",
                                  "mod_proxy_wstunnel.c", "mod_actions.c", "mod_alias.c", "mod_remoteip.c", "mod_wsgi.c",
                                  "proxy_fcgi_module", "fcgid_module"])
def test_the_modules_that_this_stands_for_are_there(world: Any, name: str) -> None:
    """And those that panels ask for in their stead are not."""
    result = world.good(f"<IfModule {name}>\n<IfModule !mod_fastcgi.c>\nServerName yes.example\n</IfModule>\n</IfModule>\n")
    assert result.model.main.name == "yes.example"
