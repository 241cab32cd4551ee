"""The same files, the same configuration, the same requests: perchildd and Debian's httpd (event) must agree.

Compared are the status, the fields in FIELDS and the body. Pages that a server writes itself (errors, redirections, listings)
are compared by status, Location, Allow and Content-Range; of a listing the names and their order. What differs on purpose
stands in DIFFERENCES, each with its reason.
Runs as: root; httpd serves as the tenant's uid.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote_to_bytes

import pytest

from tests.lab import Lab, Response
from tests.system.wire import HAS_APACHE, Client, Httpd, client, get

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"),
              pytest.mark.skipif(not HAS_APACHE, reason="Debian's apache2 is not installed")]

OLD = 1_600_000_000  # a second in 2020: strong ETags
FIELDS = ("content-type", "content-length", "location", "content-range", "allow", "etag", "last-modified", "accept-ranges",
          "content-encoding", "content-language", "x-a", "x-b", "x-always", "cache-control", "vary", "retry-after")
OWN_PAGE_FIELDS = ("location", "allow", "content-range", "x-a", "x-always")

CONFIG = """
DirectoryIndex index.html index.txt
<Directory {root}>
Options Indexes FollowSymLinks
AllowOverride None
Require all granted
</Directory>
<Directory {aliased}>
Require all granted
</Directory>
<Directory {root}/noindex>
Options -Indexes
</Directory>
<Directory {root}/nolinks>
Options -FollowSymLinks
</Directory>
<Directory {root}/ownlinks>
Options -FollowSymLinks +SymLinksIfOwnerMatch
</Directory>
Alias /al {aliased}
Alias /al-slash/ {aliased}/
AliasMatch ^/am/(.*)\\.x$ {aliased}/$1.txt
Redirect /red http://example.org/new
Redirect permanent /perm /moved
Redirect 303 /see http://example.org/other
Redirect gone /gone
Redirect 308 /eight http://example.org/eight
RedirectMatch 302 ^/rm/(.*)$ /x/$1
RedirectMatch ^/rmq/(\\d+)$ http://example.org/?n=$1
<Location /ed-text>
ErrorDocument 404 "no such thing"
</Location>
<Location /ed-local>
ErrorDocument 404 /errors/404.html
</Location>
<Location /ed-url>
ErrorDocument 404 http://example.org/404
</Location>
<Location /ed-missing>
ErrorDocument 404 /errors/none.html
</Location>
AddType text/x-special .spec
AddCharset iso-8859-2 .l2
AddEncoding x-gzip .gz
<Location /charset>
AddDefaultCharset utf-8
</Location>
<Location /forced>
ForceType text/x-forced
</Location>
<Files "*.secret">
Require all denied
</Files>
<FilesMatch "^\\.ht">
Require all denied
</FilesMatch>
<Location /ip-no>
Require ip 10.0.0.0/8
</Location>
<Location /ip-yes>
Require ip 127.0.0.0/8
</Location>
<Location /ip-not>
<RequireAll>
Require all granted
Require not ip 127.0.0.1
</RequireAll>
</Location>
<Location /any>
<RequireAny>
Require ip 10.1.2.3
Require local
</RequireAny>
</Location>
<Location /order>
Order allow,deny
Allow from all
Deny from 127.0.0.1
</Location>
<Location /order-yes>
Order deny,allow
Deny from all
Allow from 127.
</Location>
Header set X-A one
Header append X-A two
Header always set X-Always yes
<Location /header>
Header unset X-A
Header set X-B "took %% and {{x}}"
</Location>
<Location /noetag>
FileETag None
</Location>
<Location /pathinfo-on>
AcceptPathInfo On
</Location>
<Location /pathinfo-off>
AcceptPathInfo Off
</Location>
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both servers on the same files."""

    lab: Lab
    httpd: Httpd

    def ask(self, raw: bytes) -> tuple[Response, Response]:
        """Return both answers: ours, then httpd's."""
        answers = []
        for one in (client(self.lab), Client(("127.0.0.1", self.httpd.port))):
            with one as conn:
                answers.append(conn.ask(raw))
        return answers[0], answers[1]


def fill(lab: Lab) -> None:
    """Write the files."""
    alice = lab.tenants["alice"]
    files = {
        "file.txt": b"0123456789" * 100, "empty.txt": b"", "page.html": b"<p>page</p>\n", "noext": b"no extension\n", "a.spec": b"special\n",
        "latin.html.l2": b"latin\n", "packed.txt.gz": b"packed\n", "pic.PNG": b"png", "style.css": b"a{}\n", "code.js": b"1\n",
        "data.json": b"{}\n", "x.secret": b"secret\n", ".htaccess": b"\n", ".hidden": b"hidden\n", "sp ace.txt": b"space\n",
        "per%cent.txt": b"percent\n", "ümlaut.txt": "ü\n".encode(), "charset/page.html": b"x\n", "charset/pic.png": b"x\n",
        "forced/page.html": b"x\n", "noetag/f.txt": b"x\n", "header/f.txt": b"x\n", "noindex/f.txt": b"x\n", "sub/index.txt": b"sub index\n",
        "sub/deep/index.html": b"deep\n", "both/index.html": b"html\n", "both/index.txt": b"txt\n", "errors/404.html": b"<p>my 404</p>\n",
        "list/b.txt": b"b\n", "list/a.txt": b"a\n", "list/C.txt": b"C\n", "list/<b>&\"'.txt": b"x\n", "list/sp ace%.txt": b"x\n",
        "list/new\nline.txt": b"x\n", "list/ü.txt": b"x\n", "list/.hidden": b"x\n", "list/dir/x": b"x\n", "list/q?#;=+:.txt": b"x\n",
        "pathinfo-on/f.html": b"x\n", "pathinfo-off/f.html": b"x\n", "ip-no/f.txt": b"x\n", "ip-yes/f.txt": b"x\n",
        "ip-not/f.txt": b"x\n", "any/f.txt": b"x\n", "order/f.txt": b"x\n", "order-yes/f.txt": b"x\n", "multi.tar.gz": b"x\n",
        "trailing.": b"x\n", "nolinks/real.txt": b"x\n", "ownlinks/real.txt": b"x\n",
    }
    for name, data in files.items():
        path = alice.write(name, data)
        os.utime(path, (OLD, OLD))
    alice.write("unreadable.txt", "x\n", 0o000)
    aliased = alice.home / "aliased"
    aliased.mkdir()
    for name in ("one.txt", "index.html"):
        (aliased / name).write_text(f"aliased {name}\n")
        os.utime(aliased / name, (OLD, OLD))
    for name, target in {"link.txt": "file.txt", "nolinks/l.txt": "real.txt", "ownlinks/l.txt": "real.txt", "dangling": "nowhere",
                         "loop": "loop", "ownlinks/root.txt": "/etc/hostname"}.items():
        (alice.docroot / name).symlink_to(target)
        os.chown(alice.docroot / name, alice.uid, alice.uid, follow_symlinks=False)
    for path in (aliased, *aliased.iterdir()):
        os.chown(path, alice.uid, alice.uid)
        path.chmod(0o700 if path.is_dir() else 0o600)
    for directory, _, _ in os.walk(alice.docroot):
        os.utime(directory, (OLD, OLD))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Both, running; httpd under alice's uid."""
    lab = Lab(names=("alice",))
    with lab:
        fill(lab)
        alice = lab.tenants["alice"]
        text = CONFIG.format(root=alice.docroot, aliased=alice.home / "aliased")
        lab.host_config = text
        lab.start()
        httpd = Httpd(lab.base / "httpd", alice.uid, f"DocumentRoot {alice.docroot}\n{text}")
        with httpd:
            yield Pair(lab, httpd)


def ask(path: str, *fields: str, method: str = "GET", host: str = "alice.test") -> bytes:
    """Return one request's bytes."""
    return get(host, path, *fields, method=method)


STAMP = "Sun, 13 Sep 2020 12:26:40 GMT"
ETAG = '"3e8-5af3107a40000"'
REQUESTS: dict[str, bytes] = {
    "file": ask("/file.txt"), "empty": ask("/empty.txt"), "html": ask("/page.html"), "no extension": ask("/noext"),
    "added type": ask("/a.spec"), "charset by name": ask("/latin.html.l2"), "encoding": ask("/packed.txt.gz"),
    "two extensions": ask("/multi.tar.gz"), "capital extension": ask("/pic.PNG"), "css": ask("/style.css"), "js": ask("/code.js"),
    "json": ask("/data.json"), "trailing dot": ask("/trailing."), "space": ask("/sp%20ace.txt"), "percent": ask("/per%25cent.txt"),
    "utf-8": ask("/%C3%BCmlaut.txt"), "utf-8 raw": ask("/ümlaut.txt"), "hidden": ask("/.hidden"), "default charset": ask("/charset/page.html"),
    "default charset of a picture": ask("/charset/pic.png"), "forced type": ask("/forced/page.html"), "no etag": ask("/noetag/f.txt"),
    "header": ask("/header/f.txt"), "HEAD": ask("/file.txt", method="HEAD"), "HEAD of a directory": ask("/sub/", method="HEAD"),
    "POST": ask("/file.txt", "Content-Length: 0", method="POST"), "OPTIONS": ask("/file.txt", method="OPTIONS"),
    "OPTIONS *": ask("*", method="OPTIONS"), "PUT": ask("/file.txt", "Content-Length: 0", method="PUT"),
    "DELETE": ask("/file.txt", method="DELETE"), "PATCH": ask("/file.txt", "Content-Length: 0", method="PATCH"),
    "PROPFIND": ask("/file.txt", method="PROPFIND"), "unknown method": ask("/file.txt", method="BREW"), "TRACE": ask("/file.txt", method="TRACE"),
    "CONNECT": b"CONNECT alice.test:80 HTTP/1.1\r\nHost: alice.test:80\r\n\r\n",
    "missing": ask("/missing"), "missing deep": ask("/missing/more/still"), "denied": ask("/x.secret"), "htaccess": ask("/.htaccess"),
    "missing denied": ask("/none.secret"), "unreadable": ask("/unreadable.txt"), "dot dot": ask("/sub/../file.txt"),
    "dot dot above": ask("/../file.txt"), "dot": ask("/./file.txt"), "double slash": ask("//file.txt"), "encoded slash": ask("/sub%2findex.txt"),
    "encoded NUL": ask("/file.txt%00"), "bad escape": ask("/%zz"), "long name": ask("/" + "a" * 300), "query": ask("/file.txt?x=1&y"),
    "file with a slash": ask("/file.txt/"), "path info": ask("/file.txt/more"), "path info on": ask("/pathinfo-on/f.html/more"),
    "path info off": ask("/pathinfo-off/f.html/more"), "semicolon": ask("/file.txt;x=1"), "absolute form": ask("http://alice.test/file.txt"),
    "directory": ask("/sub"), "directory with a query": ask("/sub?x=1&y=%20"), "directory with a port": ask("/sub", host="alice.test:8080"),
    "directory of a name to escape": ask("/list/dir"), "directory in capitals": ask("/sub", host="ALICE.test"),
    "index": ask("/"), "second index": ask("/sub/"), "first of two": ask("/both/"), "no index, no listing": ask("/noindex/"),
    "POST to a directory": ask("/sub", "Content-Length: 0", method="POST"), "PUT to a directory": ask("/sub/", "Content-Length: 0", method="PUT"),
    "POST to a listing": ask("/list/", "Content-Length: 0", method="POST"), "POST to an index": ask("/sub/", "Content-Length: 0", method="POST"),
    "POST to a directory without index": ask("/noindex/", "Content-Length: 0", method="POST"),
    "listing": ask("/list/"), "listing HEAD": ask("/list/", method="HEAD"), "listing with path info": ask("/list/none/"),
    "link": ask("/link.txt"), "link not followed": ask("/nolinks/l.txt"), "own link": ask("/ownlinks/l.txt"),
    "root's link target": ask("/ownlinks/root.txt"), "dangling": ask("/dangling"), "loop": ask("/loop"),
    "alias": ask("/al/one.txt"), "alias root": ask("/al"), "alias index": ask("/al/"), "alias of another name": ask("/alx/one.txt"),
    "alias with slash": ask("/al-slash/one.txt"), "alias with slash, bare": ask("/al-slash"), "alias match": ask("/am/one.x"),
    "alias match missing": ask("/am/two.x"), "alias dot dot": ask("/al/../file.txt"),
    "redirect": ask("/red"), "redirect below": ask("/red/a/b?q=1"), "redirect not of a prefix": ask("/redx"), "redirect local": ask("/perm/x"),
    "redirect 303": ask("/see"), "redirect gone": ask("/gone"), "redirect 308": ask("/eight"), "redirect match": ask("/rm/a%20b"),
    "redirect match query": ask("/rmq/12"), "redirect match query kept": ask("/rmq/12?z=1"), "redirect escapes": ask("/red/%22%3Cx%3E"),
    "error text": ask("/ed-text/x"), "error page": ask("/ed-local/x"), "error page HEAD": ask("/ed-local/x", method="HEAD"),
    "error elsewhere": ask("/ed-url/x"), "error page missing": ask("/ed-missing/x"),
    "error page asked for": ask("/errors/404.html"), "ip no": ask("/ip-no/f.txt"), "ip yes": ask("/ip-yes/f.txt"), "ip not": ask("/ip-not/f.txt"),
    "any": ask("/any/f.txt"), "order": ask("/order/f.txt"), "order yes": ask("/order-yes/f.txt"),
    "range": ask("/file.txt", "Range: bytes=0-9"), "range open": ask("/file.txt", "Range: bytes=990-"), "range suffix": ask("/file.txt", "Range: bytes=-5"),
    "range suffix too long": ask("/file.txt", "Range: bytes=-5000"), "range beyond": ask("/file.txt", "Range: bytes=1000-"),
    "range past end": ask("/file.txt", "Range: bytes=995-2000"), "ranges": ask("/file.txt", "Range: bytes=0-1,5-6,-2"),
    "ranges, one beyond": ask("/file.txt", "Range: bytes=0-1,2000-"), "range reversed": ask("/file.txt", "Range: bytes=5-2"),
    "range of another unit": ask("/file.txt", "Range: lines=1-2"), "range malformed": ask("/file.txt", "Range: bytes=x"),
    "range zero suffix": ask("/file.txt", "Range: bytes=-0"), "range of an empty file": ask("/empty.txt", "Range: bytes=0-"),
    "range HEAD": ask("/file.txt", "Range: bytes=0-9", method="HEAD"), "range of a listing": ask("/list/", "Range: bytes=0-9"),
    "range whole": ask("/file.txt", "Range: bytes=0-"), "range of an error": ask("/missing", "Range: bytes=0-1"),
    "if-range etag": ask("/file.txt", "Range: bytes=0-9", f"If-Range: {ETAG}"), "if-range stale": ask("/file.txt", "Range: bytes=0-9", 'If-Range: "x"'),
    "if-range date": ask("/file.txt", "Range: bytes=0-9", f"If-Range: {STAMP}"),
    "if-range old date": ask("/file.txt", "Range: bytes=0-9", "If-Range: Sun, 13 Sep 2015 12:26:40 GMT"),
    "if-none-match": ask("/file.txt", f"If-None-Match: {ETAG}"), "if-none-match weak": ask("/file.txt", f"If-None-Match: W/{ETAG}"),
    "if-none-match star": ask("/file.txt", "If-None-Match: *"), "if-none-match list": ask("/file.txt", f'If-None-Match: "a", {ETAG}'),
    "if-none-match other": ask("/file.txt", 'If-None-Match: "a"'), "if-none-match POST": ask("/file.txt", f"If-None-Match: {ETAG}", "Content-Length: 0", method="POST"),
    "if-match": ask("/file.txt", f"If-Match: {ETAG}"), "if-match other": ask("/file.txt", 'If-Match: "a"'), "if-match star": ask("/file.txt", "If-Match: *"),
    "if-modified-since": ask("/file.txt", f"If-Modified-Since: {STAMP}"),
    "if-modified-since later": ask("/file.txt", "If-Modified-Since: Mon, 14 Sep 2020 12:26:40 GMT"),
    "if-modified-since earlier": ask("/file.txt", "If-Modified-Since: Sat, 12 Sep 2020 12:26:40 GMT"),
    "if-modified-since nonsense": ask("/file.txt", "If-Modified-Since: soon"),
    "if-modified-since rfc 850": ask("/file.txt", "If-Modified-Since: Sunday, 13-Sep-20 12:26:40 GMT"),
    "if-modified-since and none-match": ask("/file.txt", 'If-None-Match: "a"', f"If-Modified-Since: {STAMP}"),
    "if-unmodified-since": ask("/file.txt", f"If-Unmodified-Since: {STAMP}"),
    "if-unmodified-since earlier": ask("/file.txt", "If-Unmodified-Since: Sat, 12 Sep 2020 12:26:40 GMT"),
    "not modified HEAD": ask("/file.txt", f"If-None-Match: {ETAG}", method="HEAD"),
    "not modified index": ask("/both/", f"If-Modified-Since: {STAMP}"),
    "range not modified": ask("/file.txt", "Range: bytes=0-9", f"If-None-Match: {ETAG}"),
}
DIFFERENCES = {
    "OPTIONS": "httpd names a type of a body that is empty",
    "OPTIONS *": "httpd names no methods; fields of the host are those of the default host here",
    "PROPFIND": "httpd knows the names of DAV's methods without mod_dav; to us they are unknown",
    "unknown method": "Allow belongs to 405 (RFC 9110 15.5.6), httpd sends it with 501 too",
    "TRACE": "off; httpd's TraceEnable is on by default",
    "CONNECT": "refused before a host is chosen",
    "encoded NUL": "httpd looks for the file; no such name can be meant well",
    "long name": "a name that cannot exist is not found; httpd's 403 says that something else is wrong",
    "dangling": "as if it were not there; httpd's 403 tells a stranger that the link exists",
    "error text": "everything that is ours is UTF-8",
    "error page": "validators of the error page's file are no validators of what was asked for",
    "range beyond": "httpd loses Content-Range, which a client needs with 416 (RFC 9110 15.5.17)",
    "range zero suffix": "RFC 9110 14.1.2: a suffix of 0 cannot be satisfied",
    "range HEAD": "RFC 9110 14.2: Range is for GET alone",
    "range of a listing": "ranges of a page that is made anew each time would not fit together",
    "if-none-match star": "Accept-Ranges with 304 (RFC 9110 15.4.5 lists what belongs there)",
    "if-none-match": "the same", "if-none-match weak": "the same", "if-none-match list": "the same", "range not modified": "the same",
    "not modified HEAD": "the same", "if-modified-since": "the same", "if-modified-since later": "the same",
    "if-modified-since rfc 850": "the same", "not modified index": "the same",
    "if-match other": "Header without always is for successes; httpd applies it to those 412 that its handler finds",
    "if-unmodified-since earlier": "the same", "if-none-match POST": "the same",
}


def is_own_page(answer: Response) -> bool:
    """Whether the server wrote the body itself."""
    return b"<!DOCTYPE" in answer.body[:20]


def shape(answer: Response, other: Response, raw: bytes) -> dict[str, object]:
    """What of an answer is compared."""
    made = is_own_page(answer) or is_own_page(other) or (raw.startswith(b"HEAD") and (answer.status >= 400 or raw.startswith(b"HEAD /list/")))
    names = OWN_PAGE_FIELDS if made else FIELDS
    fields = {name: answer.fields.get(name) for name in names}
    if fields.get("allow") is not None:
        fields["allow"] = ",".join(sorted(set(re.split(", *", str(fields["allow"]))) - {"TRACE"}))
    body = answer.body
    if "boundary=" in (answer.fields.get("content-type") or ""):
        boundary = answer.fields["content-type"].split("boundary=")[1].encode()
        body = body.replace(b"Content-type", b"Content-Type").replace(b"Content-range", b"Content-Range")
        body, fields["content-type"], fields["content-length"] = body.replace(boundary, b"B"), "multipart", None
    if made:
        body = names_listed(body) if b"Index of" in body else b""
    return {"status": answer.status, "body": body, **fields}


def names_listed(body: bytes) -> bytes:
    """Names of a listing in order, without the parent; hidden ones are left out by Debian's IndexIgnore, and by us."""
    links = [unescape(link) for link in re.findall(r'href="([^?"][^"]*)"', body.decode())]
    names = [unquote_to_bytes(link.removeprefix("./")) for link in links]
    return b"|".join(name for name in names if name not in {b"/", b"../"} and not name.startswith(b"."))


def compare(pair: Pair, raw: bytes) -> dict[str, tuple[object, object]]:
    """Return what differs: name -> (ours, httpd's)."""
    ours, theirs = pair.ask(raw)
    first, second = shape(ours, theirs, raw), shape(theirs, ours, raw)
    if pair.lab.tls and first["location"] is not None:  # which says how it was asked
        first["location"] = str(first["location"]).replace("https://alice.test", "http://alice.test")
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}


@pytest.mark.parametrize("name", [name for name in REQUESTS if name not in DIFFERENCES])
def test_both_answer_alike(pair: Pair, name: str) -> None:
    """Status, fields and body are httpd's."""
    different = compare(pair, REQUESTS[name])
    assert not different, "\n".join(f"{key}: ours {one!r}, httpd's {two!r}" for key, (one, two) in different.items())


@pytest.mark.parametrize("name", list(DIFFERENCES))
def test_listed_difference_is_one(pair: Pair, name: str) -> None:
    """What is listed as different still is: else the row must go."""
    assert compare(pair, REQUESTS[name]), DIFFERENCES[name]
