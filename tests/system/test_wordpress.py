"""WordPress as a person uses it: Debian's files in a tenant's document root, PHPPool, a MariaDB of the test's own, and a browser.

It is installed by its own pages, and then read, written, commented on, and given pictures. Addresses of posts are
/index.php/year/...: WordPress finds out by asking itself whether the server knows PATH_INFO, and chooses them.
Runs as: root, which starts the server; PHP runs as the tenant, the database as an uid of its own.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import shutil
import stat
import struct
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, Page
from tests.lab import BASE_UID, ROOT, Lab, comm_of, tree_of, uid_of
from tests.mariadb import HAS_MARIADB, Mariadb

WORDPRESS = ROOT / "build/debian/usr/share/wordpress"
HAS_MYSQLI = any(Path("/usr/lib/php").glob("*/mysqli.so"))
MISSING = "needs wordpress, mariadb-server-core, php-fpm, php-mysql, php-gd: packaging/test gets them"

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(120),
              pytest.mark.skipif(os.geteuid() != 0, reason="changes uids"),
              pytest.mark.skipif(not (WORDPRESS.exists() and HAS_MARIADB and HAS_MYSQLI), reason=MISSING)]

TITLE = "Alice's blog \N{EN DASH} \N{GREEK SMALL LETTER ALPHA}"
PASSWORD = "a long passphrase & more"
DATABASE_PASSWORD = "only this database's"
HOST = """
ServerAlias 127.0.0.1
DirectoryIndex index.php index.html
PHPPool on max_children=4
php_value upload_max_filesize 16M
php_value post_max_size 16M
php_flag display_errors off
php_admin_value open_basedir {home}:/tmp
"""
# It asks itself (permalinks, cron), and nobody outside.
SETTINGS = "define( 'WP_HTTP_BLOCK_EXTERNAL', true );\ndefine( 'WP_ENVIRONMENT_TYPE', 'local' );\n"


class Blog:
    """A server whose tenant alice has WordPress, and its owner's browser."""

    def __init__(self, lab: Lab, database: Mariadb) -> None:
        """Start the server; nothing is installed."""
        self.lab, self.database, self.alice = lab, database, lab.tenants["alice"]
        put_files(self.alice.docroot, self.alice.uid)
        lab.has_vhosts, lab.config_tail = False, lab.host_block(self.alice, HOST.format(home=self.alice.home))
        lab.start()
        self.base = f"http://127.0.0.1:{lab.port}"
        self.owner = Browser(self.base)

    def install(self) -> None:
        """Go through the installer's pages as a browser does."""
        first = self.owner.open("/")
        assert first.url == f"{self.base}/wp-admin/setup-config.php"
        form = self.owner.open("/wp-admin/setup-config.php?step=1").form("dbname", "dbhost")
        made = self.owner.send(form, dbname="blog", uname="alice", pwd=DATABASE_PASSWORD,
                               dbhost=f"localhost:{self.database.socket}", prefix="wp_")
        link = next(link for link in made.links if "install.php" in link)
        form = self.owner.open(link).form("weblog_title", "user_name")
        done = self.owner.send(form, weblog_title=TITLE, user_name="alice", admin_password=PASSWORD, admin_password2=PASSWORD,
                               admin_email="alice@example.org", blog_public="0")
        assert "Success!" in done.text, done.text

    def log_in(self) -> None:
        """Get the owner's cookies."""
        form = self.owner.open("/wp-login.php").form("log", "pwd")
        page = self.owner.send(form, log="alice", pwd=PASSWORD)
        assert page.url == f"{self.base}/wp-admin/", page.text

    def rest(self, route: str, data: dict[str, str]) -> Page:
        """Ask for something as the editor's page does: JSON, with a number that the page got."""
        nonce = self.owner.open("/wp-admin/post-new.php").find(r'createNonceMiddleware\(\s*"(\w+)"')
        return self.owner.open(f"/index.php/wp-json{route}", json.dumps(data).encode(),
                               fields={"X-WP-Nonce": nonce, "Content-Type": "application/json"})

    def publish(self, title: str, content: str) -> str:
        """Publish a post; return its address."""
        page = self.rest("/wp/v2/posts", {"title": title, "content": content, "status": "publish"})
        assert page.status == 201, page.text
        assert page.headers["Location"] == f"{self.base}/index.php/wp-json/wp/v2/posts/{page.json()['id']}"
        return str(page.json()["link"])


def put_files(docroot: Path, uid: int) -> None:
    """Put WordPress there as its own archive would: everything the tenant's, no configuration."""
    (docroot / "index.html").unlink()
    shutil.copytree(WORDPRESS, docroot, dirs_exist_ok=True, ignore=shutil.ignore_patterns("wp-config.php", ".htaccess"))
    sample = docroot / "wp-config-sample.php"
    text = sample.read_text()
    mark = "/* That's all"
    assert mark in text
    sample.write_text(text.replace(mark, SETTINGS + mark))
    for directory, _, names in os.walk(docroot):
        os.chown(directory, uid, uid)
        for name in names:
            os.chown(os.path.join(directory, name), uid, uid)


@pytest.fixture(scope="module")
def blog() -> Iterator[Blog]:
    """An installed WordPress whose owner has logged in."""
    with Lab("LogLevel info\n", names=("alice",)) as lab:
        database = Mariadb(lab.base / "db", BASE_UID + 400, name="blog", user="alice", password=DATABASE_PASSWORD.replace("'", "''"))
        with database:
            one = Blog(lab, database)
            one.install()
            one.log_in()
            yield one
            lab.stop()


def picture(side: int, seed: int) -> bytes:
    """Return a PNG of side * side pixels that does not compress: about 3 * side * side bytes."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * side) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- reading


def test_the_front_page_and_all_that_belongs_to_it_come(blog: Blog) -> None:
    """Title in UTF-8, fields of the program, styles and scripts with their types, also those that PHP joins for the dashboard."""
    page = Browser(blog.base).open("/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    assert f'<{blog.base}/index.php/wp-json/>; rel="https://api.w.org/"' in page.headers.get_all("Link", [])
    assert page.find(r"<title>(.*?)</title>") == TITLE.replace("'", "&#039;")
    assert page.text.endswith("</html>\n")
    parts = [part for part in page.parts + blog.owner.open("/wp-admin/").parts if part.startswith(blog.base)]
    assert any("/wp-admin/load-styles.php?" in part for part in parts)
    kinds = {".css": "text/css", ".js": ("text/javascript", "application/javascript"), "load-styles.php": "text/css", "load-scripts.php": "application/javascript"}
    for part in parts:
        got = blog.owner.open(part)
        wanted = next((kind for end, kind in kinds.items() if part.partition("?")[0].endswith(end)), got.type)
        assert (got.status, got.type in wanted, bool(got.body)) == (200, True, True), f"{part}: {got.status} {got.type}"


def test_addresses_lead_to_what_they_name(blog: Blog) -> None:
    """PATH_INFO to posts, a slash to a directory, old addresses to new ones, UTF-8 in a query; what is not there is the blog's own 404."""
    link = blog.publish("Addresses", "<p>Where things are.</p>")
    assert link.startswith(f"{blog.base}/index.php/20") and link.endswith("/addresses/")
    visitor = Browser(blog.base)
    assert "Where things are." in visitor.open(link).text
    assert visitor.open(link.rstrip("/")).url == link
    number = visitor.open(link).find(r"rel='shortlink' href='[^']*\?p=(\d+)'")
    moved = blog.lab.get(f"127.0.0.1:{blog.lab.port}", f"/?p={number}")
    assert (moved.status, moved.fields["location"], moved.fields["x-redirect-by"]) == (301, link, "WordPress")
    assert visitor.open("/wp-admin").url == f"{blog.base}/wp-login.php?redirect_to={urllib.parse.quote(blog.base, safe='')}%2Fwp-admin%2F&reauth=1"
    assert "Where things are." in visitor.open("/?s=where+things").text
    assert "\N{GREEK SMALL LETTER ALPHA}\N{MICRO SIGN}" in visitor.open("/?s=%CE%B1%C2%B5").find(r"(?s)<title>(.*?)</title>")
    lost = visitor.open("/index.php/nothing/here/")
    assert (lost.status, "</html>" in lost.text, lost.headers["Cache-Control"].split(",")[0]) == (404, True, "no-cache")
    assert visitor.open("/nothing.php").status == 404


def test_feeds_and_joined_scripts_are_not_sent_twice(blog: Blog) -> None:
    """The program's own ETag and Last-Modified, and its 304 without a body."""
    blog.publish("Fed", "<p>In the feed.</p>")
    feed = blog.owner.open("/index.php/feed/")
    assert (feed.status, feed.type) == (200, "application/rss+xml")
    assert "<title>Fed</title>" in feed.text
    again = blog.owner.open(feed.url, fields={"If-None-Match": feed.headers["ETag"], "If-Modified-Since": feed.headers["Last-Modified"]})
    assert (again.status, again.body) == (304, b"")
    style = next(part for part in blog.owner.open("/wp-admin/").parts if "load-styles.php" in part)
    first = blog.owner.open(style)
    again = blog.owner.open(style, fields={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


def test_one_connection_serves_pages_files_and_forms(blog: Blog) -> None:
    """Each answer ends where it ends: a page, its head alone, a file, a 304, a redirect, a form, and a page again."""
    wire = http.client.HTTPConnection("127.0.0.1", blog.lab.port, timeout=60)

    def ask(method: str, path: str, body: str | None = None, **fields: str) -> tuple[http.client.HTTPResponse, bytes]:
        wire.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
        answer = wire.getresponse()
        return answer, answer.read()

    page, body = ask("GET", "/")
    sock = wire.sock
    head, nothing = ask("HEAD", "/")
    assert (page.status, head.status, body[-8:], nothing) == (200, 200, b"</html>\n", b"")
    assert head.headers["Content-Type"] == page.headers["Content-Type"]
    file, body = ask("GET", "/wp-includes/css/buttons.css")
    assert (file.status, len(body)) == (200, (blog.alice.docroot / "wp-includes/css/buttons.css").stat().st_size)
    again, body = ask("GET", "/wp-includes/css/buttons.css", If_None_Match=file.headers["ETag"])
    assert (again.status, body) == (304, b"")
    moved, _ = ask("GET", "/wp-admin/")
    assert moved.status == 302
    wrong, body = ask("POST", "/wp-login.php", "log=alice&pwd=wrong", Content_Type="application/x-www-form-urlencoded")
    assert (wrong.status, b"login_error" in body) == (200, True)
    last, body = ask("GET", "/index.php/feed/")
    assert (last.status, wire.sock is sock) == (200, True)
    wire.close()


# ---------------------------------------------------------------- writing


def test_cookies_come_and_go_with_the_login(blog: Blog) -> None:
    """Several Set-Cookie fields, each with its path; a wrong password gives none; logging out takes them away."""
    visitor = Browser(blog.base)
    form = visitor.open("/wp-admin/edit.php").form("log", "pwd")
    wrong = visitor.send(form, log="alice", pwd="wrong")
    assert "login_error" in wrong.text
    assert not [one for one in visitor.cookies if one.name.startswith("wordpress_logged_in")]
    inside = visitor.send(form, log="alice", pwd=PASSWORD)
    assert inside.url == f"{blog.base}/wp-admin/edit.php"
    paths = {(one.name.rpartition("_")[0], one.path, one.has_nonstandard_attr("HttpOnly")) for one in visitor.cookies}
    assert {("wordpress", "/wp-admin", True), ("wordpress", "/wp-content/plugins", True), ("wordpress_logged_in", "/", True)} <= paths
    out = next(link for link in inside.links if "action=logout" in link)
    assert "loggedout=true" in visitor.open(out).url
    assert not [one for one in visitor.cookies if one.name.startswith("wordpress_logged_in")]
    assert "/wp-login.php?" in visitor.open("/wp-admin/edit.php").url


def test_a_post_is_commented_on(blog: Blog) -> None:
    """A visitor's form leads back to the post, where the visitor alone sees the comment until the owner approves it."""
    link = blog.publish("Post", "<p>A post with \N{SNOWMAN}.</p>")
    visitor = Browser(blog.base)
    page = visitor.open(link)
    assert "A post with \N{SNOWMAN}." in page.text
    form = page.form("comment_post_ID", "comment")
    sent = visitor.send(form, author="Bob", email="bob@example.org", url="", comment='What a \N{SNOWMAN}, "really" & <b>cold</b>')
    assert sent.url.startswith(link + "?unapproved=")
    assert "really" in sent.text and "awaiting moderation" in sent.text
    assert "really" not in Browser(blog.base).open(link).text
    number = sent.find(r'id="comment-(\d+)"')
    assert blog.rest(f"/wp/v2/comments/{number}", {"status": "approved"}).status == 200
    assert "What a \N{SNOWMAN}, &#8220;really&#8221; &amp; <b>cold</b>" in Browser(blog.base).open(link).text


def test_settings_are_saved_by_their_form(blog: Blog) -> None:
    """options.php: nonces in hidden fields, a redirect back, and what was typed."""
    form = blog.owner.open("/wp-admin/options-general.php").form("blogdescription", "_wpnonce")
    saved = blog.owner.send(form, blogdescription="caf\N{LATIN SMALL LETTER E WITH ACUTE} + 100% & more")
    assert saved.url == f"{blog.base}/wp-admin/options-general.php?settings-updated=true"
    assert "<description>caf\N{LATIN SMALL LETTER E WITH ACUTE} + 100% &#38; more</description>" in Browser(blog.base).open("/index.php/feed/").text
    refused = blog.owner.send(form, _wpnonce="forged", blogdescription="no")
    assert refused.status == 403


def test_a_picture_is_uploaded_and_made_smaller(blog: Blog) -> None:
    """2.9 MB as a form sends it; thumbnails are made; all of them are files of the tenant, and served as what they are."""
    data = picture(1000, seed=1)
    form = blog.owner.open("/wp-admin/media-new.php").form("_wpnonce")
    fields = {"name": "big.png", "action": "upload-attachment", "_wpnonce": media_nonce(blog)}
    assert form.fields["_wpnonce"]
    page = blog.owner.upload("/wp-admin/async-upload.php", fields, "async-upload", "big.png", "image/png", data)
    assert page.status == 200, page.text
    said = page.json()
    assert said["success"], said
    sizes = said["data"]["sizes"]
    assert set(sizes) == {"thumbnail", "medium", "full"}
    visitor = Browser(blog.base)
    for size in sizes.values():
        got = visitor.open(size["url"])
        assert (got.status, got.type) == (200, "image/png")
        assert struct.unpack(">II", got.body[16:24]) == (size["width"], size["height"])
        path = blog.alice.docroot / size["url"].removeprefix(blog.base + "/")
        assert (path.stat().st_uid, path.read_bytes()) == (blog.alice.uid, got.body)
    assert visitor.open(sizes["full"]["url"]).body == data


def media_nonce(blog: Blog) -> str:
    """Return what the media library's page sends with an upload."""
    return blog.owner.open("/wp-admin/upload.php?mode=grid").find(r'"multipart_params":\{[^}]*"_wpnonce":"(\w+)"')


def test_a_program_uploads_with_a_password_of_its_own(blog: Blog) -> None:
    """Authorization reaches PHP; the body is the file itself; without it, or with a wrong one, 401."""
    made = blog.rest("/wp/v2/users/me/application-passwords", {"name": "phone"})
    assert made.status == 201, made.text
    program = Browser(blog.base)
    data = picture(100, seed=2)
    fields = {"Content-Type": "image/png", "Content-Disposition": 'attachment; filename="small.png"'}
    for password, wanted in (("wrong", 401), (made.json()["password"], 201)):
        token = base64.b64encode(f"alice:{password}".encode()).decode()
        page = program.open("/index.php/wp-json/wp/v2/media", data, fields={**fields, "Authorization": f"Basic {token}"})
        assert page.status == wanted, page.text
    assert program.open(page.json()["source_url"]).body == data
    assert program.open("/index.php/wp-json/wp/v2/media", data, fields=fields).status == 401


# ---------------------------------------------------------------- whose it is


def test_everything_is_the_tenants(blog: Blog) -> None:
    """php-fpm and its workers, and each file that WordPress wrote; none of them writes for others."""
    programs = [pid for runner in blog.lab.runners() for pid in tree_of(runner)[1:] if comm_of(pid).startswith("php-fpm")]
    assert programs
    assert {uid for pid in programs if (uid := uid_of(pid)) >= 0} == {blog.alice.uid}  # idle workers end meanwhile
    files = [path for path in blog.alice.docroot.rglob("*") if not path.is_symlink()]
    assert blog.alice.docroot / "wp-config.php" in files
    assert {path.stat().st_uid for path in files} == {blog.alice.uid}
    open_to_all = {path.name for path in files if path.stat().st_mode & stat.S_IWOTH}
    assert open_to_all == {"wp-config.php"}  # setup-config.php wants it so; the directory above is closed


def test_no_source_and_no_secret_is_sent(blog: Blog) -> None:
    """wp-config.php is executed, and says nothing; its name in other spellings is not there; nothing was logged as an error of ours."""
    for path in ("/wp-config.php", "/wp-config.php/", "/wp-config.php/more", "/wp-config%2Ephp", "/./wp-config.php"):
        page = Browser(blog.base).open(path)
        assert (page.status, page.body) == (200, b""), path
    for path in ("/wp-config.php%00.css", "/WP-CONFIG.PHP", "/wp-config.php.", "/wp-config.php~"):
        assert Browser(blog.base).open(path).status in {400, 404}, path
