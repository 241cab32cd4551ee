"""What compile writes, the child reads: every record goes through native/record.c itself."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perchild.config import directives

NATIVE = Path(__file__).parents[3] / "native"
Check = Callable[[bytes, bytes], str]
EVERYTHING = """
ServerName main.example:8080
ServerAdmin "me, <me@example>"
DocumentRoot /srv/main
ErrorLogFormat json
LogFormat "%400,501{User-agent}i %!200{Referer}i %{%F}t %{local}p" odd
CustomLog logs/odd odd env=!quiet
TransferLog logs/t
Alias /a /srv/a
AliasMatch ^/b(.*) /srv/b$1
Redirect gone /gone
RedirectMatch 301 ^/c(.*)$ https://x/$1
Options Indexes
FileETag INode
DirectoryIndex a b
SetEnv A b
UnsetEnv C
LimitRequestBody 5000000000
RequestReadTimeout header=0 body=10-20,MinRate=1
LimitRequestFields 0
<Directory />
    Require all denied
    <FilesMatch "\\.php$">
        SetHandler x
    </FilesMatch>
    <Files *.txt>
        ForceType text/x-t
        Order deny,allow
        Deny from all
        Allow from 10 ::1 .x.net env=A
    </Files>
</Directory>
<DirectoryMatch ^/srv/(a|b)/>
    <RequireAll>
        Require all granted
        Require not ip 1.2.3.4 10/8
        <RequireNone>
            Require env X
            Require method GET HEAD
        </RequireNone>
    </RequireAll>
    AllowOverride All
</DirectoryMatch>
<Files ".ht*">
    Require all denied
</Files>
<LocationMatch ^/s>
    Redirect https://y/
    ErrorDocument 404 "no"
    ErrorDocument 500 default
    ErrorDocument 403 /e
    ErrorDocument 503 https://z/
</LocationMatch>
<Location /h>
    Header always set X "%t %D %{A}e %%" env=B
    Header edit* Y (a) $1
    Header unset Z
    RequestHeader setifempty Q r
    AddType text/x-q .q
    AddCharset utf-8 q
    AddEncoding gzip gz
    AddDefaultCharset On
    DefaultType none
    AcceptPathInfo On
    ServerSignature EMail
</Location>
<Proxy unix:/run/fpm.sock|fcgi://named>
    ProxySet timeout=7 connectiontimeout=2 retry=3 disablereuse=on
    Require all granted
</Proxy>
<FilesMatch "\\.php$">
    SetHandler proxy:fcgi://named
</FilesMatch>
ScriptAlias /cgi-bin/ /srv/cgi/
ScriptAliasMatch ^/c2/(.*) /srv/c2/$1
AddHandler cgi-script .cgi .pl
RemoveHandler .pl
Action media/type /cgi-bin/x virtual
Action other /cgi-bin/y
CGIPassAuth On
SSLRequireSSL
SSLOptions +StdEnvVars
FcgidWrapper "/srv/bin/php -x" .php
FCGIWrapper /srv/bin/all
FcgidInitialEnv PHPRC /srv
ProxyFCGISetEnvIf "true" A "x%{reqenv:B}y%{HTTP:C}%{REMOTE_ADDR}"
ProxyFCGISetEnvIf "true" !D
php_value memory_limit 1M
php_flag display_errors on
php_admin_value open_basedir /srv:/tmp
php_admin_flag engine Off
PHPPool 8.2 max_children=3 idle=9
ProxyPass /p http://127.0.0.1:81/q timeout=5 upgrade=websocket
ProxyPassMatch ^/m/(.*)$ unix:/run/m.sock|http://m/$1
ProxyPass /no !
ProxyPassReverse /p http://127.0.0.1:81/q
ProxyPassReverseCookiePath /q /p
ProxyPassReverseCookieDomain in.example out.example
ProxyPreserveHost On
ProxyTimeout 20
AppServer /app/ node server.js {socket}
WSGIScriptAlias /w /srv/w.wsgi
RemoteIPHeader X-Forwarded-For
RemoteIPInternalProxy 10.0.0.0/8 ::1
RemoteIPTrustedProxy 192.0.2.7
RemoteIPProxyProtocol On
<Location /loc>
    ProxyPass ws://127.0.0.1:82/
    ProxyPassReverse ws://127.0.0.1:82/
</Location>
<VirtualHost *:80 [::1]:81 10.0.0.1>
    ServerName alice.example
    ServerAlias *.alice.example a?.example
    AssignUserID alice alice
    CustomLog /home/alice/l combined
    <Directory /home/alice>
        Require ip 10.0.0.0/8 fe80::/10
    </Directory>
</VirtualHost>
<VirtualHost *:80>
    ServerName bob.example
    AssignUserID bob bob
</VirtualHost>
"""


class _Slice(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("len", ctypes.c_size_t))


@pytest.fixture(scope="module")
def read_record(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Return (record, types) -> "" or why native/record.c refuses it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("native") / "record.so"
    subprocess.run([compiler, "-O0", "-shared", "-fPIC", "-std=gnu17", "-D_GNU_SOURCE", "-idirafter", str(NATIVE),
                    *map(str, sorted(NATIVE.glob("*.c"))), "-o", str(library), "-lpcre2-8", "-lseccomp",
                    "-lssl", "-lcrypto", "-lnghttp2", "-pthread"], check=True)
    parse = ctypes.CDLL(str(library)).pc_record_parse
    free = ctypes.CDLL(str(library)).pc_record_free
    parse.argtypes = [_Slice, _Slice, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_char_p)]
    free.argtypes = [ctypes.c_void_p]

    def check(raw: bytes, types: bytes) -> str:
        config, why = ctypes.c_void_p(), ctypes.c_char_p()
        if parse(_Slice(raw, len(raw)), _Slice(types, len(types)), ctypes.byref(config), ctypes.byref(why)) != 0:
            return (why.value or b"?").decode()
        free(config)
        return ""

    return check


def test_the_child_reads_every_kind_of_item(world: Any, read_record: Check) -> None:
    """A configuration that uses nearly every directive is taken whole; one cut off is not."""
    result = world.good(EVERYTHING)
    assert result.warnings == []
    types = result.compiled.types_table
    records = [result.compiled.records[one.record] for one in result.compiled.plan.identities]
    assert len(records) == 3
    for raw in records:
        assert read_record(raw, types) == ""
        assert read_record(raw[:-1], types) != ""


def test_the_text_above_uses_every_directive_of_sections() -> None:
    """A directive that is added to the table must be added to the text above."""
    used = {line.split()[0].lower() for line in EVERYTHING.splitlines() if line.strip()}
    missing = {row.name for row in directives.ROWS if row.scope == "settings"} - {row.name for row in directives.ROWS if row.name.lower() in used}
    assert missing == {"PassEnv", "RedirectPermanent", "RedirectTemp"}  # they make the items of SetEnv and Redirect
