"""From text to plan, routes and records."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from perchild.wire.plan import decode_plan, encode_plan

NO = 0xFFFFFFFF
Find = Callable[[bytes, str, int, str], int]
TWO = """
<VirtualHost *:80 10.0.0.1:8080>
    ServerName alice.example
    ServerAlias www.alice.example *.alice.example
    AssignUserID alice alice
</VirtualHost>
<Virtualhost *:80>
    ServerName bob.example:8080
    AssignUserID bob bob
</vIRTUALHOST>
"""


def test_the_route_table_knows_names_aliases_wildcards_and_defaults(world: Any, find_route: Find) -> None:
    """Exact names, then wildcards, then the address's first host; the main server where no host is."""
    compiled = world.good(TWO).compiled
    numbers = {one.name: one.number for one in compiled.plan.identities}
    for ip, port, name, wanted in [
        ("1.2.3.4", 80, "alice.example", "alice"), ("1.2.3.4", 80, "www.alice.example", "alice"), ("1.2.3.4", 80, "x.alice.example", "alice"),
        ("1.2.3.4", 80, "bob.example", "bob"), ("1.2.3.4", 80, "else", "alice"), ("10.0.0.1", 8080, "else", "alice"),
        ("10.0.0.1", 8080, "bob.example", "alice"), ("10.0.0.1", 81, "bob.example", "www-data"), ("::1", 80, "bob.example", "bob"),
    ]:
        assert find_route(compiled.route_table, ip, port, name) == numbers[wanted], (ip, port, name)


def test_a_record_routes_only_its_own_names_to_its_hosts(world: Any, find_route: Find, by_tag: Callable[..., dict[str, Any]]) -> None:
    """Values are indexes of HOST items; a foreign name finds nothing, the default only where the default host is its own."""
    result = world.good(TWO)
    alice, bob = (by_tag(world.record(result, name)) for name in ("alice", "bob"))
    assert find_route(alice["ROUTE"], "1.2.3.4", 80, "www.alice.example") == 0
    assert find_route(alice["ROUTE"], "1.2.3.4", 80, "bob.example") == 0  # alice's is the address's default
    assert find_route(bob["ROUTE"], "1.2.3.4", 80, "bob.example") == 0
    assert find_route(bob["ROUTE"], "1.2.3.4", 80, "alice.example") == NO
    assert find_route(bob["ROUTE"], "10.0.0.1", 8080, "bob.example") == NO
    main = by_tag(world.record(result))
    assert find_route(main["ROUTE"], "10.0.0.1", 81, "x") == 0


def test_the_first_mention_of_a_name_wins_and_the_second_is_warned_about(world: Any, find_route: Find) -> None:
    """A name is served by one host; whose name it also was is told."""
    host = "<VirtualHost *:80>\nServerName same.example\nAssignUserID {0} {0}\n</VirtualHost>\n"
    result = world.good(host.format("alice") + host.format("bob"))
    assert find_route(result.compiled.route_table, "1.1.1.1", 80, "same.example") == 1
    (warning,) = result.warnings
    assert "same.example is already the name of the host of /main.conf:3" in warning.reason


@pytest.mark.parametrize(("address", "ip", "port"), [
    ("*:80", "9.9.9.9", 80), ("_default_:80", "9.9.9.9", 80), ("_DEFAULT_:*", "9.9.9.9", 1), ("*", "9.9.9.9", 1), ("[::1]:80", "::1", 80),
    ("127.0.0.1:80", "127.0.0.1", 80), ("127.0.0.1", "127.0.0.1", 5), ("two.example:80", "10.0.0.1", 80), ("two.example:80", "::1", 80),
    ("1.1.1.1:80 2.2.2.2:80", "2.2.2.2", 80),
])
def test_all_forms_of_addresses_are_taken(world: Any, find_route: Find, address: str, ip: str, port: int) -> None:
    """The forms that panels write, and what they stand for."""
    compiled = world.good(f"<VirtualHost {address}>\nServerName a\nAssignUserID alice alice\n</VirtualHost>\n").compiled
    assert find_route(compiled.route_table, ip, port, "a") == 1


@pytest.mark.parametrize(("address", "reason"), [
    ("::1:80", "'::1:80': an IPv6 address must stand in brackets: [::1:80]:port"),
    ("*:99999", "99999 is out of range: 1..65535 expected"),
    ("*:http", "'http' is not a number: 1..65535 expected"),
    ("[::1", "'[::1' is no address: [v6address]:port expected"),
    (":80", "':80' has no address before its port; write *:80"),
])
def test_a_broken_address_is_an_error(world: Any, address: str, reason: str) -> None:
    """Not a host that nobody finds."""
    assert world.reasons(f"<VirtualHost {address}>\n</VirtualHost>\n") == [reason]


def test_the_order_of_directives_does_not_matter(world: Any) -> None:
    """Every order of these lines gives the same records."""
    blocks = [
        "NumServers 6\n", "ChildPerUserID alice alice 6\n", "LogFormat %h short\n", "CustomLog logs/a short\n", "Timeout 7\n",
        "<VirtualHost *:80>\nServerName a\nAssignUserID alice alice\nCustomLog logs/b short\n</VirtualHost>\n", "User www-data\n",
    ]
    seen = set()
    for order in itertools.islice(itertools.permutations(blocks), 0, 5040, 211):
        compiled = world.good("".join(order)).compiled
        seen.add((compiled.route_table, tuple(sorted(compiled.records.values())), compiled.plan.scale))
    assert len(seen) == 1


def test_hosts_inherit_the_main_servers_values(world: Any) -> None:
    """What a host does not say, the main server says; sections and settings are merged."""
    host = world.host("""
        Timeout 11
        KeepAliveTimeout 1500ms
        ServerAdmin me@x
        DirectoryIndex main.html
        Options Indexes
        AddType text/x-a .a .B
        AddType text/x-b b
        LogLevel info
        CustomLog /var/log/main.log common
        Alias /m /srv/m
        Redirect gone /main
        <VirtualHost *:80>
            ServerName h.example:81
            Options +ExecCGI
            AddType text/x-c c
            Alias /h/ /srv/h/
            Redirect 301 /old http://new/
        </VirtualHost>
    """)
    assert (host["NAME"], host["PORT"], host["ADMIN"]) == ("h.example", 81, "me@x")
    assert host["TIMES"] == (11000, 1500, 20000, 40000, 20000, 0, 500, 500)
    assert host["KEEP_ALIVE"] == (1, 100, 0)
    assert host["LIMITS"] == (8190, 8190, 100)
    assert host["ERROR_LOG"][1] == 6
    base = dict(host["BASE"])
    assert base["OPTIONS"] == (1, 1 | 16, 0)
    assert base["DIRECTORY_INDEX"] == ("main.html",)
    assert [value for tag, value in host["BASE"] if tag == "ADD_TYPE" and "php" not in value[1]] == [("a", "text/x-a"), ("b", "text/x-b"), ("c", "text/x-c")]
    assert [dict(alias)["ALIAS_TO"] for alias in host["ALIAS"]] == ["/srv/h/", "/srv/m"]
    redirects = [value for tag, value in host["BASE"] if tag == "REDIRECT"]
    assert [redirect[0][1] for redirect in redirects] == [(301, 0), (410, 0)]
    assert len(host["LOG"]) == 1


def test_a_host_with_a_log_of_its_own_does_not_use_the_main_servers(world: Any, by_tag: Callable[..., dict[str, Any]]) -> None:
    """mod_log_config's rule; log files of a record are numbered in it."""
    result = world.good("""
        ErrorLog /var/log/p/error.log
        CustomLog /var/log/p/access.log combined
        <VirtualHost *:80>
            AssignUserID alice alice
            CustomLog /home/alice/logs/a.log vhost_combined env=!quiet
            TransferLog /home/alice/logs/t.log
            ErrorLog /home/alice/logs/e.log
        </VirtualHost>
    """)
    alice = by_tag(world.record(result, "alice"))
    files = [dict(file) for file in alice["LOG_FILE"]]
    assert [(file["FILE_PATH"], file["FILE_OPENER"]) for file in files] == [
        ("/home/alice/logs/a.log", 0), ("/home/alice/logs/t.log", 0), ("/home/alice/logs/e.log", 0)]
    logs = [dict(log) for log in dict(by_tag(alice["HOST"][0]))["LOG"]]
    assert [log["LOG_INDEX"] for log in logs] == [0, 1]
    assert logs[0]["LOG_ENV"] == "!quiet"
    assert by_tag(alice["HOST"][0])["ERROR_LOG"] == (2, 4)
    main = by_tag(world.record(result))
    assert [dict(file)["FILE_OPENER"] for file in main["LOG_FILE"]] == [1, 1]
    plan = result.compiled.plan
    assert [log.path for log in plan.identities[1].logs] == [file["FILE_PATH"] for file in files]


def test_sections_stand_in_the_order_in_which_httpd_merges_them(world: Any) -> None:
    """Directories by depth, server's before host's; then DirectoryMatch, Files, Location."""
    host = world.host("""
        <Location /s></Location>
        <Files s></Files>
        <DirectoryMatch s></DirectoryMatch>
        <Directory /a/b/></Directory>
        <Directory /></Directory>
        <VirtualHost *>
            <LocationMatch ^/h></LocationMatch>
            <Location ~ h2></Location>
            <FilesMatch h></FilesMatch>
            <Directory ~ "h x"></Directory>
            <Directory /a/b/c></Directory>
            <Directory /a></Directory>
            <Directory /a/h></Directory>
        </VirtualHost>
    """.replace("></", ">\n</"))
    found = [(dict(section)["SECTION_KIND"], dict(section)["SECTION_PATTERN"]) for section in host["SECTION"]]
    assert found == [(0, "/"), (0, "/a"), (0, "/a/b"), (0, "/a/h"), (0, "/a/b/c"), (1, "s"), (1, "h x"), (2, "s"), (3, "h"), (4, "/s"),
                     (5, "^/h"), (5, "h2")]


def test_files_within_a_directory_are_inner_sections(world: Any) -> None:
    """A Files section may stand within a Directory."""
    host = world.host("""
        <VirtualHost *>
        <Directory /a>
            ForceType text/plain
            <FilesMatch "\\.php$">
                SetHandler none
            </FilesMatch>
        </Directory>
        </VirtualHost>
    """)
    section = dict(host["SECTION"][0])
    assert section["SECTION_SETTINGS"] == [("FORCE_TYPE", "text/plain")]
    assert section["SECTION_INNER"] == [("SECTION_KIND", 3), ("SECTION_PATTERN", "\\.php$"), ("SECTION_SETTINGS", [("HANDLER", "")])]


def test_equal_sections_of_many_hosts_keep_their_own_paths(world: Any) -> None:
    """What is compiled once for many hosts is only what they have in common."""
    text = "".join(f"<VirtualHost *>\nServerName h{number}\n<Directory /h/{number}>\nRequire all granted\n</Directory>\n</VirtualHost>\n"
                   for number in range(3))
    hosts = [value for tag, value in world.record(world.good(text)) if tag == "HOST"]
    patterns = [dict(dict(host)["SECTION"])["SECTION_PATTERN"] for host in hosts[1:]]
    assert patterns == ["/h/0", "/h/1", "/h/2"]


def test_the_plan_survives_its_json_and_names_the_records(world: Any) -> None:
    """What the dispatcher reads is what compile wrote; digests are of the bytes."""
    compiled = world.good(TWO + "ListenBacklog 7\nPidFile /run/x.pid\nErrorLogFormat json\nDefaultRuntimeDir /run/x\n").compiled
    plan = decode_plan(encode_plan(compiled.plan))
    assert plan == compiled.plan
    assert (plan.pid_file, plan.error_log_json, plan.run_dir, plan.listeners[0].backlog) == ("/run/x.pid", True, "/run/x", 7)
    assert plan.host_count == 2  # the main server is none of them
    for one in plan.identities:
        assert hashlib.sha256(compiled.records[one.record]).hexdigest() == one.digest
    assert hashlib.sha256(compiled.types_table).hexdigest() == plan.types_digest


def test_two_compilations_of_one_text_are_equal(world: Any) -> None:
    """A reload of an unchanged configuration touches nobody."""
    first, second = world.good(TWO).compiled, world.good(TWO).compiled
    assert (first.plan, first.records, first.route_table) == (second.plan, second.records, second.route_table)


def test_a_reload_changes_only_the_records_of_what_changed(world: Any) -> None:
    """Another generation changes no record; a new host of alice's changes hers alone; the route table knows both."""
    before, later = world.good(TWO).compiled, world.good(TWO, generation=2).compiled
    assert before.records == later.records
    assert before.route_table != later.route_table
    new = "<VirtualHost *:80>\nServerName new.example\nAssignUserID alice alice\n</VirtualHost>\n"
    after = world.good(TWO + new).compiled
    changed = {one.name for one in after.plan.identities if one.record not in before.records}
    assert changed == {"alice"}


def test_a_line_that_moves_changes_no_record(world: Any) -> None:
    """Comments and empty lines are nobody's matter."""
    assert world.good("# x\n\n" + TWO).compiled.records == world.good(TWO).compiled.records


def test_listen_forms(world: Any) -> None:
    """A bare port is every address of both families; several Listens are several listeners."""
    result = world.compile("Listen 8080\nListen 127.0.0.1:81 http\nListen [::1]:82\nListen *:83\nListen localhost:84\n")
    assert result.errors == []
    assert [(one.family, one.address, one.port) for one in result.compiled.plan.listeners] == [
        (4, "0.0.0.0", 8080), (6, "::", 8080), (4, "127.0.0.1", 81), (6, "::1", 82), (4, "0.0.0.0", 83), (6, "::", 83),
        (4, "127.0.0.1", 84)]


@pytest.mark.parametrize(("line", "reason"), [
    ("Listen 0", "0 is out of range: 1..65535 expected"),
    ("Listen 127.0.0.1", "Port must be specified in '127.0.0.1'"),
    ("Listen 127.0.0.1:x", "'127.0.0.1:x' is no port and no address: port, address:port or [v6address]:port expected"),
    ("Listen ::1:80", "'::1:80': an IPv6 address must stand in brackets: [::1]:80"),
    ("Listen 443 spdy", "protocol 'spdy' is not supported on a listener: http and https are"),
    ("Listen 127.0.0.1:8080", "Cannot define multiple Listeners on the same IP:port: see /main.conf:1"),
    ("Listen nowhere.example:1", "'nowhere.example' is no address, and there is no host of this name"),
])
def test_a_broken_listen_is_an_error(world: Any, line: str, reason: str) -> None:
    """With the word and the remedy."""
    assert world.reasons(line + "\n") == [reason]


def test_no_listen_is_an_error_of_the_whole(world: Any) -> None:
    """httpd's AH00451."""
    (error,) = world.compile("").errors
    assert (error.code, error.line) == ("AH00451", 0)


@pytest.mark.parametrize(("text", "mpm"), [
    ("", "perchild"), ("MPM worker\n", "worker"), ("MPM prefork\n", "prefork"), ("mpm EVENT\n", "worker"),
    ("LoadModule mpm_worker_module modules/mod_mpm_worker.so\n", "worker"), ("LoadModule mpm_event_module x\n", "worker"),
    ("LoadModule mpm_prefork_module x\n", "prefork"), ("LoadModule mpm_itk_module x\nLoadModule mpm_prefork_module x\n", "perchild"),
    ("MPM worker\nLoadModule mpm_worker_module x\n", "worker"),
    ("<IfModule mpm_worker_module>\nStartServers 7\n</IfModule>\nMPM worker\n", "worker"),
])
def test_one_mpm_is_chosen(world: Any, text: str, mpm: str) -> None:
    """By MPM or LoadModule, wherever it stands; perchild if nobody says."""
    assert world.good(text).compiled.plan.mpm == mpm


def test_ifmodule_sees_an_mpm_that_is_chosen_below(world: Any) -> None:
    """The order does not matter for <IfModule> either."""
    text = "<IfModule mpm_worker_module>\nStartServers 7\n</IfModule>\nMPM worker\n"
    assert world.good(text).compiled.plan.scale.start_servers == 7


@pytest.mark.parametrize("text", [
    "MPM worker\nMPM prefork\n", "LoadModule mpm_worker_module x\nLoadModule mpm_prefork_module x\n", "MPM perchild\nMPM event\n",
    "LoadModule mpm_event_module x\nLoadModule mpm_worker_module x\n", "LoadModule mpm_itk_module x\nMPM worker\n",
])
def test_two_mpms_are_refused_in_httpds_words(world: Any, text: str) -> None:
    """AH00534."""
    (error,) = world.compile("Listen 1\n" + text).errors
    assert (error.code, error.reason) == ("AH00534", "More than one MPM loaded.")


def test_load_module_is_answered(world: Any) -> None:
    """What we do is taken silently, the rest with a warning."""
    result = world.good("LoadModule headers_module modules/mod_headers.so\nLoadModule ssl_module modules/mod_ssl.so\nLoadModule rewrite_module modules/mod_rewrite.so\n")
    assert [warning.reason for warning in result.warnings] == [
        "LoadModule rewrite_module: nothing is loaded; directives of this module are not available"]


@pytest.mark.parametrize(("word", "value"), [
    ("Prod", "perchildd"), ("Major", "perchildd/0"), ("Minor", "perchildd/0.1"), ("Min", "perchildd/0.1.0"), ("OS", "perchildd/0.1.0 (Unix)"),
    ("Full", "perchildd/0.1.0 (Unix)"),
])
def test_server_tokens_has_httpds_shapes(world: Any, by_tag: Callable[..., dict[str, Any]], word: str, value: str) -> None:
    """The Server field, ready made."""
    assert by_tag(world.record(world.good(f"ServerTokens {word}\n")))["SERVER_TOKENS"] == value


def test_types_config_is_read(world: Any) -> None:
    """Extensions in lower case; a missing file is an error only if it was named."""
    assert b"image/png" in world.good("").compiled.types_table
    world.files["/t"] = "text/x-a AA\n"
    table = world.good("TypesConfig /t\n").compiled.types_table
    assert b"aatext/x-a" in table
    assert b"image/png" not in table
    assert len(world.reasons("TypesConfig /none\n")) == 1
    del world.files["/etc/mime.types"]
    result = world.good("")
    assert b"image/png" in result.compiled.types_table
    assert len(result.warnings) == 1


def test_a_missing_document_root_is_warned_about(world: Any) -> None:
    """As httpd does; it may come later."""
    world.directories = False
    assert [warning.reason for warning in world.good("DocumentRoot /srv/x\n").warnings] == [
        "Warning: DocumentRoot [/srv/x] does not exist"]


def test_the_shipped_numbers_of_the_mpms(world: Any) -> None:
    """Defaults of history: perchild 5 children of 64 threads, worker 3 and 400, prefork 5 and 256."""
    scales = {mpm: world.good(f"MPM {mpm}\n").compiled.plan.scale for mpm in ("perchild", "worker", "prefork")}
    fields = ("start_servers", "min_spare", "max_spare", "server_limit", "threads_per_child", "max_workers")
    assert {mpm: tuple(getattr(scale, name) for name in fields) for mpm, scale in scales.items()} == {
        "perchild": (5, 5, 10, 8, 64, 320), "worker": (3, 75, 250, 16, 25, 400), "prefork": (5, 5, 10, 256, 1, 256)}


def test_assigned_children_scale_as_perchild_does_under_every_mpm(world: Any) -> None:
    """The MPM governs the unassigned children only."""
    host = "<VirtualHost *:80>\nAssignUserID alice alice\n</VirtualHost>\n"
    for mpm in ("worker", "prefork", "perchild"):
        alice = world.good(f"MPM {mpm}\n{host}").compiled.plan.identities[1]
        assert (alice.kind, alice.start_threads, alice.min_spare_threads, alice.max_spare_threads, alice.max_threads, alice.idle_timeout_s) \
            == ("on-demand", 5, 5, 10, 64, 300)
