"""What a person's browser does with a site, for tests: cookies, redirects, links, forms with their hidden fields, uploads.

Its HTTP is Python's own, which is nobody's in this project: what it cannot read, other clients may not read either.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from http.cookiejar import Cookie, CookieJar
from typing import Any

PATIENCE_S = 60.0


@dataclass(slots=True)
class Form:
    """One form of a page: where it goes, and what its fields hold so far."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    """Collects forms and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.parts: list[str] = []
        self._select = self._textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note forms, what a form sends without a click, and addresses."""
        own = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(own.get("action", ""), own.get("method", "get").upper()))
        elif tag == "a" and "href" in own:
            self.links.append(own["href"])
        elif tag in {"script", "img"} and "src" in own:
            self.parts.append(own["src"])
        elif tag == "link" and own.get("rel") in {"stylesheet", "icon"}:
            self.parts.append(own.get("href", ""))
        elif self.forms:
            self._note_field(tag, own)

    def _note_field(self, tag: str, own: dict[str, str]) -> None:
        fields, name, value = self.forms[-1].fields, own.get("name", ""), own.get("value", "")
        if tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in own or self._select not in fields):
            fields[self._select] = value
        elif tag == "textarea" and name:
            self._textarea, fields[name] = name, ""
        elif tag == "input" and name:
            kind = own.get("type", "text")
            if kind not in {"submit", "button", "reset", "image", "file"} and (kind not in {"checkbox", "radio"} or "checked" in own):
                fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a field that has content."""
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        """Note what a field holds."""
        if self._textarea:
            self.forms[-1].fields[self._textarea] += data


class Page:
    """One answer, after redirects: `url` is where they led."""

    def __init__(self, url: str, status: int, headers: Message, body: bytes) -> None:
        """Keep it; forms and addresses are read when asked for."""
        self.url, self.status, self.headers, self.body = url, status, headers, body

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(self.headers.get_content_charset() or "utf-8")

    @property
    def type(self) -> str:
        """The media type without its parameters."""
        return self.headers.get_content_type()

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    def _read(self) -> _Reader:
        reader = _Reader()
        reader.feed(self.text)
        return reader

    def form(self, *names: str) -> Form:
        """Return the first form that has these fields."""
        for form in self._read().forms:
            if set(names) <= form.fields.keys():
                form.action = urllib.parse.urljoin(self.url, form.action)
                return form
        raise AssertionError(f"{self.url}: no form with {names}: {self.text[:2000]}")

    @property
    def links(self) -> list[str]:
        """Whole addresses that the page links to."""
        return [urllib.parse.urljoin(self.url, link) for link in self._read().links]

    @property
    def parts(self) -> list[str]:
        """Whole addresses of what a browser loads with the page, each once: styles, scripts, images."""
        return list(dict.fromkeys(urllib.parse.urljoin(self.url, part) for part in self._read().parts if not part.startswith("data:")))

    def find(self, pattern: str) -> str:
        """Return the first group of a regular expression in the text, which must be there."""
        match = re.search(pattern, self.text)
        assert match, f"{self.url} ({self.status}): no {pattern} in {self.text[:2000]}"
        return match[1]


class Browser:
    """Keeps cookies and follows redirects."""

    def __init__(self, base: str) -> None:
        """base: where relative addresses begin, as in http://127.0.0.1:8080/."""
        self.base = base
        self._jar = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._jar))

    @property
    def cookies(self) -> list[Cookie]:
        """The cookies that it has."""
        return list(self._jar)

    def open(self, address: str, data: bytes | dict[str, str] | None = None, *, fields: dict[str, str] | None = None,
             method: str | None = None) -> Page:
        """Return what is there; a dictionary as `data` is sent as a form. An error's page is a page."""
        body = urllib.parse.urlencode(data).encode() if isinstance(data, dict) else data
        request = urllib.request.Request(urllib.parse.urljoin(self.base, address), body, fields or {}, method=method)
        try:
            with self._opener.open(request, timeout=PATIENCE_S) as answer:
                return Page(answer.url, answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Page(error.url, error.code, error.headers, error.read())

    def send(self, form: Form, **more: str) -> Page:
        """Send a form with some of its fields filled in."""
        data = {**form.fields, **more}
        if form.method == "POST":
            return self.open(form.action, data)
        return self.open(f"{form.action}?{urllib.parse.urlencode(data)}")

    def upload(self, address: str, fields: dict[str, str], name: str, file: str, kind: str, content: bytes) -> Page:
        """Send a file as a form does (RFC 7578)."""
        mark = uuid.uuid4().hex
        parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: {kind}\r\n\r\n'.encode()
        return self.open(address, b"".join([*parts, head, content, f"\r\n--{mark}--\r\n".encode()]),
                         fields={"Content-Type": f"multipart/form-data; boundary={mark}"})
