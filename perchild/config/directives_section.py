"""The table, part three: settings that may also stand in <Directory>, <Files> and <Location>.

Runs as: compile (pure).  Source: httpd's core, mod_dir, mod_mime, mod_headers, mod_env, mod_alias, mod_authz_core.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from perchild.config import access
from perchild.config.formats import compile_header_value, literal
from perchild.config.messages import BadDirectiveError
from perchild.config.rows import ANYWHERE, MANY, SECTION, Parse, Row, custom, one
from perchild.config.values import Env, check_php_name, choice, number, parse_status
from perchild.wire import record
from perchild.wire.record import HEADER_ACTIONS, OPTION_BITS

OPTIONS_ALL = OPTION_BITS["indexes"] | OPTION_BITS["includes"] | OPTION_BITS["followsymlinks"] | OPTION_BITS["execcgi"]
ETAG_BITS = {"inode": 1, "mtime": 2, "size": 4}
OVERRIDE_BITS = {"authconfig": 1, "fileinfo": 2, "indexes": 4, "limit": 8, "options": 16}
OVERRIDE_ALL = 31
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(\s*;.*)?\Z")
_ENV_NAME = re.compile(r"[^\s=]+\Z")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Bits(NamedTuple):
    """Options and the like: whether they replace what was there (1) or change it (0), bits added, bits removed."""

    absolute: int
    added: int
    removed: int

    def then(self, over: Bits) -> Bits:
        """Return what `over` makes of this."""
        if over.absolute:
            return over
        added = (self.added & ~over.removed) | over.added
        return Bits(1, added, 0) if self.absolute else Bits(0, added, (self.removed & ~over.added) | over.removed)


def _parse_options(words: list[str], _env: Env) -> Bits:
    bits = Bits(0, 0, 0)
    relative = [word[0] in "+-" for word in words]
    if any(relative) and not all(relative):
        message = "Either all Options must start with + or -, or no Option may."
        raise BadDirectiveError(message, relative.index(not relative[0]))
    if not any(relative):
        bits = Bits(1, 0, 0)
    for index, word in enumerate(words):
        name = word.lstrip("+-").lower()
        if name == "all":
            bit = OPTIONS_ALL
        elif name == "none":
            bit = 0
            bits = Bits(1, 0, 0) if not any(relative) else bits
        elif name in OPTION_BITS:
            bit = OPTION_BITS[name]
        else:
            message = f"Illegal option {word}"
            raise BadDirectiveError(message, index)
        bits = (Bits(bits.absolute, bits.added & ~bit, bits.removed | bit) if word[0] == "-"
                else Bits(bits.absolute, bits.added | bit, bits.removed & ~bit))
    return bits


def _parse_etag(words: list[str], _env: Env) -> Bits:
    bits = Bits(0, 0, 0)
    relative = [word[0] in "+-" for word in words]
    if not all(relative):
        if any(relative):
            message = "FileETag: either all of INode, MTime, Size have + or - before them, or none"
            raise BadDirectiveError(message, relative.index(not relative[0]))
        bits = Bits(1, 0, 0)
    for index, word in enumerate(words):
        name = word.lstrip("+-").lower()
        if name not in {*ETAG_BITS, "all", "none"}:
            message = f"Unknown keyword '{word}' for FileETag directive: INode, MTime, Size, All or None expected"
            raise BadDirectiveError(message, index)
        bit = {**ETAG_BITS, "all": 7, "none": 0}[name]
        bits = Bits(bits.absolute, bits.added & ~bit, bits.removed | bit) if word[0] == "-" else bits._replace(added=bits.added | bit)
    return bits


def _parse_override(words: list[str], env: Env) -> int:
    if env.context in {"<location", "<locationmatch", "<files", "<filesmatch"}:
        env.warn("Useless use of AllowOverride: it has effect in <Directory> only", -1)
    bits = 0
    for index, word in enumerate(words):
        name, equals, _ = word.lower().partition("=")
        if name == "all" and not equals:
            bits = OVERRIDE_ALL
        elif name == "none" and not equals:
            bits = 0
        elif name in OVERRIDE_BITS:
            bits |= OVERRIDE_BITS[name]
        elif name != "nonfatal" or not equals:
            message = f"Illegal override option {word}"
            raise BadDirectiveError(message, index)
    return bits


def _parse_directory_index(words: list[str], _env: Env) -> tuple[str, ...]:
    if len(words) == 1 and words[0].lower() == "disabled":
        return ()
    return tuple(words)


def _parse_error_document(words: list[str], env: Env) -> dict[int, tuple[int, str]]:
    status = parse_status(words[0], 0, 400, 599)
    value = words[1]
    if _URL.match(value):
        if status == 401:  # noqa: PLR2004
            env.warn("cannot use a full URL in a 401 ErrorDocument directive --- ignoring!", 1)
            return {}
        return {status: (2, value)}
    if value.startswith("/"):
        return {status: (1, value)}
    if value.lower() == "default":
        return {status: (3, "")}
    return {status: (0, value)}


def _check_media_type(word: str, index: int) -> str:
    if not _MEDIA_TYPE.match(word):
        message = f"'{word}' is no media type: type/subtype expected"
        raise BadDirectiveError(message, index)
    return word


def _by_extension(value: str, words: list[str]) -> dict[str, str]:
    return {word.lstrip(".").lower(): value for word in words}


def _parse_add_type(words: list[str], _env: Env) -> dict[str, str]:
    return _by_extension(_check_media_type(words[0], 0), words[1:])


def _parse_add_token(words: list[str], _env: Env) -> dict[str, str]:
    if not _TOKEN.match(words[0]):
        message = f"'{words[0]}' is no name of a charset or content coding"
        raise BadDirectiveError(message, 0)
    return _by_extension(words[0], words[1:])


def _parse_type_or_none(words: list[str], _env: Env) -> str:
    return "" if words[0].lower() == "none" else _check_media_type(words[0], 0)


def _parse_default_charset(words: list[str], _env: Env) -> str:
    lower = words[0].lower()
    if lower in {"on", "off"}:
        return "iso-8859-1" if lower == "on" else ""
    return next(iter(_parse_add_token([words[0], "x"], _env).values()))


def _check_env_name(word: str, index: int) -> str:
    if not _ENV_NAME.match(word):
        message = f"'{word}' is no name for a variable"
        raise BadDirectiveError(message, index)
    check_php_name(word, index)
    return word


def _parse_set_env(words: list[str], _env: Env) -> dict[str, str | None]:
    return {_check_env_name(words[0], 0): words[1] if len(words) > 1 else ""}


def _parse_unset_env(words: list[str], _env: Env) -> dict[str, str | None]:
    return dict.fromkeys(words, None)


def _parse_pass_env(words: list[str], env: Env) -> dict[str, str | None]:
    result: dict[str, str | None] = {}
    for index, word in enumerate(words):
        value = env.environ.get(_check_env_name(word, index))
        if value is None:
            env.warn(f"PassEnv variable {word} was undefined", index)
        else:
            result[word] = value
    return result


# --- Header ------------------------------------------------------------------------------------------------------

_HAS_NO_VALUE = frozenset(("unset", "echo"))
_EDITS = frozenset(("edit", "edit*"))


def _parse_header(words: list[str], env: Env) -> bytes:
    is_always = words[0].lower() == "always"
    at = 1 if words[0].lower() in {"always", "onsuccess"} else 0
    return _pack_header("HEADER", words, at, env, is_always=is_always)


def _parse_request_header(words: list[str], env: Env) -> bytes:
    return _pack_header("REQUEST_HEADER", words, 0, env, is_always=False)


def _pack_header(box: str, words: list[str], at: int, env: Env, *, is_always: bool) -> bytes:
    action = words[at].lower() if at < len(words) else ""
    if action.removesuffix("*") not in HEADER_ACTIONS or (action.endswith("*") and action != "edit*"):
        message = f"first argument must be one of {', '.join([*HEADER_ACTIONS, 'edit*'])}, not '{words[at] if at < len(words) else ''}'"
        raise BadDirectiveError(message, at)
    if box == "REQUEST_HEADER" and action in {"echo", "note"}:
        message = f"RequestHeader has no action '{action}'"
        raise BadDirectiveError(message, at)
    needed = 1 if action in _HAS_NO_VALUE else 3 if action in _EDITS else 2
    rest = words[at + 1 :]
    if len(rest) < needed or len(rest) > needed + 1:
        message = f"{action} takes a header name{['', ' only', ' and a value', ', a pattern and a replacement'][needed]}, and env=NAME"
        raise BadDirectiveError(message, at)
    condition = _parse_header_condition(rest[needed], at + 1 + needed) if len(rest) > needed else ""
    items = [record.u32s("HEADER_ACTION", HEADER_ACTIONS[action.removesuffix("*")], int(is_always), int(action == "edit*")),
             record.text("HEADER_NAME", _check_field_name(rest[0], at + 1, action, env))]
    if action in _EDITS:
        items += [record.item("HEADER_VALUE", literal(rest[2])), record.text("HEADER_PATTERN", env.pattern(rest[1], at + 2))]
    elif needed > 1:
        items.append(record.item("HEADER_VALUE", compile_header_value(_check_field_value(rest[1], at + 2), at + 2)))
    if condition:
        items.append(record.text("HEADER_ENV", condition))
    return record.item(box, b"".join(items))


def _check_field_name(word: str, index: int, action: str, env: Env) -> str:
    if action == "echo":
        return env.pattern(word, index)
    name = word.split(":", 1)[0]
    if not _TOKEN.match(name):
        message = f"'{word}' is no name of a header field"
        raise BadDirectiveError(message, index)
    return name


def _check_field_value(word: str, index: int) -> str:
    if any(ord(char) < 0x20 and char != "\t" for char in word) or "\x7f" in word:  # noqa: PLR2004
        message = "a header value may not contain control characters"
        raise BadDirectiveError(message, index)
    if word.lower().startswith("expr="):
        message = "expr= in a header needs expressions, which this version does not have"
        raise BadDirectiveError(message, index)
    return word


def _parse_header_condition(word: str, index: int) -> str:
    lower = word.lower()
    if lower == "early" or lower.startswith("expr="):
        message = f"'{word}' is not supported: env=NAME or env=!NAME expected"
        raise BadDirectiveError(message, index)
    if not lower.startswith("env=") or not word[4:].removeprefix("!"):
        message = f"'{word}' is no condition: env=NAME or env=!NAME expected"
        raise BadDirectiveError(message, index)
    return word[4:]


# --- Redirect ----------------------------------------------------------------------------------------------------

_REDIRECTION = 3  # the class of statuses that name a target
_REDIRECT_WORDS = {"permanent": 301, "temp": 302, "seeother": 303, "gone": 410}


def _parse_redirect(words: list[str], env: Env) -> bytes:
    return _pack_redirect(words, env, 0, None)


def _parse_redirect_match(words: list[str], env: Env) -> bytes:
    return _pack_redirect(words, env, 1, None)


def _fixed_redirect(status: int) -> Parse:
    def parse(words: list[str], env: Env) -> bytes:
        return _pack_redirect(words, env, 0, status)

    return parse


def _split_redirect(words: list[str], fixed: int | None) -> tuple[int, int]:
    """Return the status, and how many words it took."""
    if fixed is not None:
        return fixed, 0
    word = words[0].lower()
    if word in _REDIRECT_WORDS:
        return _REDIRECT_WORDS[word], 1
    return (parse_status(word, 0, 300), 1) if word.isdecimal() else (302, 0)


def _pack_redirect(words: list[str], env: Env, kind: int, fixed: int | None) -> bytes:
    status, at = _split_redirect(words, fixed)
    rest = words[at:]
    has_target = status // 100 == _REDIRECTION
    wanted = 2 if has_target else 1
    if len(rest) > wanted:
        message = f"too many arguments: '{rest[2]}'" if has_target else "Redirect URL not valid for this status"
        raise BadDirectiveError(message, at + wanted)
    if kind == 0 and len(rest) == wanted - 1 and env.context not in {"", "<virtualhost"}:
        kind, rest = 2, ["", *rest]
    if len(rest) < wanted:
        message = "URL to redirect to is missing" if has_target else "URL path is missing"
        raise BadDirectiveError(message)
    if kind == 1:
        env.pattern(rest[0], at)
    elif kind == 0 and not rest[0].startswith("/"):
        message = f"Redirect needs a URL path that begins with '/', not '{rest[0]}'"
        raise BadDirectiveError(message, at)
    items = [record.u32s("VALUE_U32S", status, kind), record.text("VALUE_STR", rest[0])]
    if has_target:
        items.append(record.text("VALUE_STR", _check_target(rest[1], len(words) - 1)))
    return record.item("REDIRECT", b"".join(items))


def _check_target(target: str, index: int) -> str:
    if not (target.startswith(("/", "$")) or _URL.match(target) or target.lower().startswith("mailto:")):
        message = "Redirect to non-URL"
        raise BadDirectiveError(message, index)
    return _check_field_value(target, index)


_SIGNATURE = {"off": 0, "on": 1, "email": 2}
_PATH_INFO = {"off": 0, "on": 1, "default": 2}

ROWS: tuple[Row, ...] = (
    custom("Options", ANYWHERE, "[+|-]option ...", (1, MANY), _parse_options, "settings", "options",
           "What is allowed here: Indexes, FollowSymLinks, SymLinksIfOwnerMatch, ExecCGI, Includes, IncludesNOEXEC, MultiViews, "
           "All, None",
           store="combine", default="FollowSymLinks"),
    custom("AllowOverride", SECTION, "All|None|class ...", (1, MANY), _parse_override, "settings", "allow_override",
           "Classes of directives that .htaccess files may contain: "
           "AuthConfig, FileInfo, Indexes, Limit, Options or Options=..., Nonfatal=... is taken",
           default="None"),
    custom("Require", SECTION, "[not] all granted|all denied|ip ...|host ...|local|env ...|method ...", (1, MANY), access.parse_require,
           "settings", "require", "Who may have what is here", store="append", is_located=True),
    custom("Order", SECTION, "deny,allow|allow,deny|mutual-failure", (1, 2), access.parse_order, "settings", "order",
           "Which of Allow and Deny has the last word (httpd 2.2's way)", default="deny,allow"),
    custom("Allow", SECTION, "from all|address|host|env=[!]variable ...", (2, MANY), access.parse_allow, "settings", "allow",
           "Who may (httpd 2.2's way)", store="append"),
    custom("Deny", SECTION, "from all|address|host|env=[!]variable ...", (2, MANY), access.parse_allow, "settings", "deny",
           "Who may not (httpd 2.2's way)", store="append"),
    custom("DirectoryIndex", ANYWHERE, "name ...|disabled", (1, MANY), _parse_directory_index, "settings", "directory_index",
           "Files that stand for their directory, the first that exists", store="names", default="index.html"),
    custom("ErrorDocument", ANYWHERE, "status text|/path|URL|default", (2, 2), _parse_error_document, "settings", "error_documents",
           "What is sent with an error", store="update"),
    custom("AddType", ANYWHERE, "media-type extension ...", (2, MANY), _parse_add_type, "settings", "add_type",
           "Media type of files with these extensions", store="update"),
    custom("ForceType", SECTION, "media-type|None", (1, 1), _parse_type_or_none, "settings", "force_type", "Media type of every file here"),
    custom("DefaultType", ANYWHERE, "media-type|none", (1, 1), _parse_type_or_none, "settings", "default_type",
           "Media type of files whose extension tells none", default="none"),
    custom("AddCharset", ANYWHERE, "charset extension ...", (2, MANY), _parse_add_token, "settings", "add_charset",
           "Charset of files with these extensions", store="update"),
    custom("AddDefaultCharset", ANYWHERE, "On|Off|charset", (1, 1), _parse_default_charset, "settings", "default_charset",
           "Charset added to text/plain and text/html; On means iso-8859-1", default="Off"),
    custom("AddEncoding", ANYWHERE, "coding extension ...", (2, MANY), _parse_add_token, "settings", "add_encoding",
           "Content coding of files with these extensions", store="update"),
    custom("Header", ANYWHERE, "[always|onsuccess] action name [value [replacement]] [env=[!]variable]", (2, 6), _parse_header, "settings",
           "headers", f"Change fields of the response: {', '.join(HEADER_ACTIONS)}, edit*", store="append"),
    custom("RequestHeader", ANYWHERE, "action name [value [replacement]] [env=[!]variable]", (2, 5), _parse_request_header, "settings",
           "request_headers", "Change fields of the request before it is handled", store="append"),
    custom("SetEnv", ANYWHERE, "name [value]", (1, 2), _parse_set_env, "settings", "env", "Set a variable for programs and logs",
           store="update"),
    custom("UnsetEnv", ANYWHERE, "name ...", (1, MANY), _parse_unset_env, "settings", "env", "Take a variable away", store="update"),
    custom("PassEnv", ANYWHERE, "name ...", (1, MANY), _parse_pass_env, "settings", "env",
           "Set a variable to the value it has in the server's environment when the configuration is read", store="update"),
    custom("FileETag", ANYWHERE, "[+|-]INode|MTime|Size|All|None ...", (1, MANY), _parse_etag, "settings", "file_etag",
           "What the ETag of a file is made of", store="combine", default="MTime Size"),
    one("AcceptPathInfo", ANYWHERE, choice(_PATH_INFO, "On|Off|Default"), "settings", "accept_path_info",
        "Whether a URL may go on behind the name of a file", default="Default"),
    one("LimitRequestBody", ANYWHERE, number(0, (1 << 63) - 1, "bytes, 0 = any length", "bytes"), "settings", "limit_body_bytes",
        "Longest body of a request", default="1073741824"),
    one("ServerSignature", ANYWHERE, choice(_SIGNATURE, "On|Off|EMail"), "settings", "signature",
        "Last line of the pages that the server makes", default="Off"),
    custom("Redirect", ANYWHERE, "[status] [URL-path] [URL]", (1, 3), _parse_redirect, "settings", "redirects",
           "Send the client elsewhere: permanent, temp, seeother, gone or a number", store="append"),
    custom("RedirectMatch", ANYWHERE, "[status] regex [URL]", (1, 3), _parse_redirect_match, "settings", "redirects",
           "The same for URLs that match; $0..$9 stand for what matched", store="append"),
    custom("RedirectPermanent", ANYWHERE, "URL-path URL", (1, 2), _fixed_redirect(301), "settings", "redirects",
           "Redirect permanent", store="append"),
    custom("RedirectTemp", ANYWHERE, "URL-path URL", (1, 2), _fixed_redirect(302), "settings", "redirects",
           "Redirect temp", store="append"),
)

DEFAULTS: dict[str, object] = {
    "options": Bits(1, OPTION_BITS["followsymlinks"], 0), "directory_index": ("index.html",), "allow_override": 0,
    "file_etag": Bits(1, ETAG_BITS["mtime"] | ETAG_BITS["size"], 0), "accept_path_info": 2, "limit_body_bytes": 1 << 30, "signature": 0,
    "default_charset": "",
}
