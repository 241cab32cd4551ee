/* pc.h - the contract of the native extension: what every request needs, in the order a connection meets it.
 * The files are read in the order of the sections below; docs/architecture.md tells the story.
 * Words: child, identity, slot, inbox, hand-off, route table, record, generation - as in docs/architecture.md.
 * Returns, unless a prototype says otherwise: 0 or -PC_E_*; parsers: >0 consumed, 0 need more, <0 -PC_E_*.
 * Outputs are called ret_* and are untouched on failure. */
#ifndef PC_H
#define PC_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "limits.h"
#include "record.h"

/* ------------------------------------------------------------------ words that every file uses */

enum pc_error {
    PC_E_BAD = 1,      /* malformed: 400 */
    PC_E_URI_LONG,     /* request line above its limit: 414 */
    PC_E_HEAD_LARGE,   /* field or head above its limit: 431 */
    PC_E_VERSION,      /* HTTP version we do not speak: 505 */
    PC_E_UNKNOWN,      /* transfer coding or method we do not know: 501 */
    PC_E_BODY_LARGE,   /* body above LimitRequestBody: 413 */
    PC_E_EXPECT,       /* expectation we cannot meet: 417 */
    PC_E_NOT_FOUND,    /* 404 */
    PC_E_FORBIDDEN,    /* 403 */
    PC_E_RANGE,        /* no range can be satisfied: 416 */
    PC_E_AGAIN,        /* the socket or inbox is full or empty now */
    PC_E_CLOSED,       /* the other side is gone */
    PC_E_PEER,         /* a hand-off that breaks the rules; `ret` says which */
    PC_E_FORMAT,       /* record or table that we did not write */
    PC_E_MEMORY,       /* out of memory */
    PC_E_SYS,          /* a system call failed; errno says why */
};

struct pc_slice {
    const char *base; /* not NUL-terminated */
    size_t len;
};

/* A place in a buffer that may move: offset and length. */
struct pc_span {
    uint32_t at, len;
};

static inline struct pc_slice
pc_slice_at(const char *base, struct pc_span span)
{
    return (struct pc_slice){.base = base + span.at, .len = span.len};
}

#define PC_S(literal) ((struct pc_slice){.base = (literal), .len = sizeof(literal) - 1})

/* util.c: bytes, numbers, memory */

bool pc_slice_eq(struct pc_slice a, struct pc_slice b);
bool pc_slice_ieq(struct pc_slice a, struct pc_slice b); /* ASCII letters without regard to case */
bool pc_slice_starts(struct pc_slice s, struct pc_slice prefix);
bool pc_slice_is_token(struct pc_slice s); /* RFC 9110 5.6.2; an empty one is none */
struct pc_slice pc_slice_trim(struct pc_slice s); /* without blanks and tabs around it */
/* What stands behind its first len bytes, and before the first `end` (all of it, if there is none). */
static inline struct pc_slice
pc_slice_behind(struct pc_slice s, size_t len)
{
    return (struct pc_slice){s.base + len, s.len - len};
}

static inline struct pc_slice
pc_slice_before(struct pc_slice s, char end)
{
    const char *found = s.len > 0 ? memchr(s.base, end, s.len) : NULL;
    return (struct pc_slice){s.base, found != NULL ? (size_t)(found - s.base) : s.len};
}

/* Next element of a comma-separated list, trimmed, maybe empty; *at is 0 at first. false: behind the last one. */
bool pc_list_next(struct pc_slice list, size_t *at, struct pc_slice *ret_item);
/* A byte of a token (RFC 9110 5.6.2); of a field's value: blank, tab, visible, 0x80 and up. */
static inline bool
pc_byte_is_token(uint8_t c)
{
    static const uint32_t bits[8] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff}; /* bit c%32 of word c/32 */

    return ((bits[c / 32] >> (c % 32)) & 1) != 0;
}
static inline bool
pc_byte_is_text(uint8_t c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}
uint32_t pc_crc32(const char *base, size_t len); /* zlib's */
/* Decimal digits of `number` to `out` (20 bytes of room); returns how many. */
size_t pc_number(char *out, uint64_t number);
/* Digits only, 1..19 of them, no sign, no blank. Returns 0 or -PC_E_BAD. */
int pc_parse_u64(struct pc_slice s, uint64_t *ret_number);
/* siphash.c: SipHash-2-4 */
#define PC_KEY_BYTES 16
uint64_t pc_siphash(const uint8_t key[PC_KEY_BYTES], const void *bytes, size_t len);
uint64_t pc_now_ns(void);  /* CLOCK_MONOTONIC */
int64_t pc_wall_us(void);  /* CLOCK_REALTIME, microseconds */
_Noreturn void pc_bug(const char *what);             /* our mistake: aborts; never compiled out */
_Noreturn void pc_die(int exit_code, const char *what); /* the environment's: _exit after one line on stderr */

/* arena.c: memory that dies with the request. A chain of blocks; the first stays with the worker. */

struct pc_arena {
    struct pc_block *first, *last;
    bool is_small; /* it begins with a block that is just enough for a file */
};

/* Never NULL (dies when there is no memory); aligned to 16. */
void *pc_arena_alloc(struct pc_arena *arena, size_t len);
/* Copy with a NUL behind it that len does not count. */
struct pc_slice pc_arena_copy(struct pc_arena *arena, struct pc_slice s);
/* printf into the arena. */
struct pc_slice pc_arena_print(struct pc_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pc_arena_reset(struct pc_arena *arena); /* keeps the first block */
void pc_arena_free(struct pc_arena *arena);

/* ------------------------------------------------------------------ before: dropping privileges (drop.c) */

enum pc_drop_step { /* also the exit status less PC_EXIT_DROP when the step fails */
    PC_DROP_DESCRIPTORS, PC_DROP_SESSION, PC_DROP_LIMITS, PC_DROP_KEYRING, PC_DROP_BOUNDING, PC_DROP_AMBIENT,
    PC_DROP_SECUREBITS, PC_DROP_GROUPS, PC_DROP_GID, PC_DROP_UID, PC_DROP_CAPABILITIES, PC_DROP_VERIFY_IDS,
    PC_DROP_VERIFY_BACK, PC_DROP_VERIFY_CAPABILITIES, PC_DROP_DUMPABLE, PC_DROP_PARENT, PC_DROP_NO_NEW_PRIVS,
    PC_DROP_SECCOMP, PC_DROP_STEPS,
};
#define PC_EXIT_DROP 64 /* exit status of a child whose drop failed: PC_EXIT_DROP + step */

struct pc_drop {
    uint32_t uid, gid;
    const uint32_t *groups; /* exact supplementary groups */
    size_t group_count;
    const int *keep_fds; /* descriptors that stay open, any order; 0, 1 and 2 always stay */
    size_t keep_count;
    int parent_pid;          /* of the dispatcher; the child ends when it is gone */
    uint64_t nofile;         /* RLIMIT_NOFILE */
    bool is_privileged;      /* false: the caller is no root, ids must already be the wanted ones */
    const void *seccomp_bpf; /* struct sock_filter[]; NULL = none */
    size_t seccomp_count;    /* of struct sock_filter */
    bool is_runner;          /* it executes programs: the filter is the runner's, and the parent is out of sight */
    bool may_gain;           /* runner: no no_new_privs, so that set-gid mail programs work; its filter is loaded while still root */
    int parent_fd;           /* runner: pidfd of the dispatcher; closed once it was looked at */
};

/* Become the identity for good, verify it, try to go back. Returns only when all of it holds; any failure ends the
 * process with _exit(PC_EXIT_DROP + step). Single-threaded. Source: security.md; capabilities(7), setresuid(2). */
void pc_drop_privileges(const struct pc_drop *drop);
/* seccomp.c: compile the child's filter once, in the dispatcher (libseccomp). ret_bpf is malloc'ed, for the process's life. */
int pc_seccomp_build_child(void **ret_bpf, size_t *ret_count);
/* The same for runners and what they execute: nothing in it that a program for users needs. */
int pc_seccomp_build_runner(void **ret_bpf, size_t *ret_count);

/* restrict.c: what the throw-away compile process keeps: CAP_DAC_READ_SEARCH, to read configuration, and nothing else; no
 * network. Returns 0 or -PC_E_SYS; the caller ends on failure. */
int pc_restrict_to_read_search(void);

/* ------------------------------------------------------------------ pure parsers: bytes in, facts out */

/* host.c: a server name as clients write it */

struct pc_hostname {
    char name[PC_MAX_HOST_BYTES + 1]; /* lower case, without trailing dot, NUL-terminated; "[v6]" keeps its brackets */
    uint16_t len;
    uint16_t port; /* 0 = none given */
};

/* Strict: letters, digits, '-', '_', '.', or a bracketed IPv6 literal, then an optional port 0..65535; nothing else.
 * Empty: len 0 and port 0, allowed (RFC 9110 7.2). Returns 0 or -PC_E_BAD. */
int pc_host_parse(struct pc_slice raw, struct pc_hostname *ret_host);

/* proxyhdr.c: what a front end says before a client's first byte (PROXY protocol, versions 1 and 2) */

struct pc_proxyhdr {
    bool has_client; /* false: LOCAL or UNKNOWN: the socket's peer is the client */
    union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } client;
};

/* Returns the header's length (at most PC_MAX_PROXYHDR_BYTES), 0, or -PC_E_BAD with ret_why: static text for the error log. */
int pc_proxyhdr_parse(const char *buf, size_t len, struct pc_proxyhdr *ret_header, const char **ret_why);

/* hello.c: the first message of a TLS connection (RFC 8446 4.1.2) */

struct pc_hello {
    struct pc_hostname name; /* of the extension server_name; len 0 = there is none */
};

/* Needs no more bytes than up to the end of the name; all of the message if there is none. Returns how many it has looked at, 0,
 * -PC_E_VERSION (no TLS at all), -PC_E_BAD, -PC_E_HEAD_LARGE, -PC_E_NOT_FOUND (a name that no host can have). */
int pc_hello_parse(const char *buf, size_t len, struct pc_hello *ret_hello);

/* h1.c: the head of an HTTP/1.1 request (RFC 9112), stricter than most; works on peeked bytes, no allocation */

enum pc_method { PC_GET, PC_HEAD, PC_POST, PC_PUT, PC_DELETE, PC_OPTIONS, PC_TRACE, PC_CONNECT, PC_PATCH, PC_METHOD_OTHER };

enum pc_field_id { /* fields that the server itself looks at; index of pc_head.known */
    PC_F_HOST, PC_F_CONTENT_LENGTH, PC_F_TRANSFER_ENCODING, PC_F_CONNECTION, PC_F_EXPECT, PC_F_RANGE, PC_F_IF_RANGE,
    PC_F_IF_MATCH, PC_F_IF_NONE_MATCH, PC_F_IF_MODIFIED_SINCE, PC_F_IF_UNMODIFIED_SINCE, PC_F_USER_AGENT, PC_F_REFERER,
    PC_F_ACCEPT_ENCODING, PC_F_COOKIE, PC_F_AUTHORIZATION, PC_F_UPGRADE, PC_F_KNOWN, PC_F_OTHER = PC_F_KNOWN,
};

struct pc_h1_limits {
    uint32_t line_bytes, field_bytes, field_count; /* LimitRequestLine, LimitRequestFieldSize, LimitRequestFields */
};

struct pc_field {
    struct pc_span name, value; /* value without blanks around it */
    uint32_t id;                /* enum pc_field_id */
};

struct pc_head {
    uint32_t at;          /* parsed so far: whole lines only */
    uint32_t field_count;
    struct pc_span line;   /* the request line without CRLF */
    struct pc_span method, target;
    struct pc_span authority; /* of an absolute-form target, else len 0 at 0 */
    struct pc_span path;      /* origin-form part of the target, with query; "*" for OPTIONS * */
    uint8_t method_id;        /* enum pc_method */
    uint8_t minor;            /* 0 or 1 */
    bool has_line;
    bool is_chunked;
    bool has_length;
    bool expects_continue;
    bool wants_close;  /* Connection: close, or 1.0 without keep-alive */
    bool wants_keep;   /* Connection: keep-alive was said */
    uint64_t content_length;
    uint16_t known[PC_F_KNOWN]; /* 1 + index in fields of the first field with that id; 0 = absent */
    struct pc_hostname host; /* checked: the target's authority, else the Host field; len 0 = none or empty */
    /* Nothing of them is read before it is written, so they need no zeroing; nor need more of them be there. */
    struct pc_field fields[PC_MAX_FIELDS_HARD];
};

/* Go on parsing: `head` is zeroed by the caller before the first call, buf is the same bytes as before plus more (it may
 * have moved). Resumes behind the last whole line, so bytewise arrival costs no more than a line's length squared.
 * Returns the head's length, 0, or -PC_E_BAD, -PC_E_URI_LONG, -PC_E_HEAD_LARGE, -PC_E_VERSION, -PC_E_UNKNOWN, -PC_E_EXPECT.
 * Refuses what security.md 6.1 lists: bare CR or LF, obs-fold, blanks before a colon, two Hosts, Content-Length with
 * Transfer-Encoding, repeated or odd Content-Length, any Transfer-Encoding but one "chunked", in HTTP/1.0 any, and so on.
 * One empty line before the request line is skipped (RFC 9112 2.2). */
int pc_h1_parse_head(struct pc_head *head, const char *buf, size_t len, const struct pc_h1_limits *limits);
/* The name to route by, from the first bytes of a connection: the target's authority, else the first Host field.
 * Needs no more bytes than up to the end of that line (or of the head: then ret_name is empty).
 * Returns >0 found, 0, or an error of pc_h1_parse_head. ret_name points into buf and is not checked yet. */
int pc_h1_peek_name(const char *buf, size_t len, struct pc_slice *ret_name);
struct pc_slice pc_head_field(const struct pc_head *head, const char *buf, enum pc_field_id id); /* base NULL = absent */
/* First field called `name` (any case); base NULL = absent. */
struct pc_slice pc_head_find(const struct pc_head *head, const char *buf, struct pc_slice name);

/* chunked.c: RFC 9112 7.1 */

struct pc_chunked {
    uint8_t state;       /* 0 = start */
    bool is_done;        /* the final CRLF was consumed */
    uint8_t digit_count;
    uint8_t trailer_fields;
    uint16_t ext_bytes, trailer_bytes; /* without the last LF */
    uint16_t fresh_bytes; /* so many at the end of what the last call has consumed are of the trailer section, its empty line included */
    uint64_t left_bytes; /* of the current chunk */
};

/* One step: returns >0 bytes consumed, of which ret_data (maybe empty) is body; 0 need more; -PC_E_BAD. */
int pc_chunked_decode(struct pc_chunked *chunked, const char *buf, size_t len, struct pc_slice *ret_data);

/* uri.c */

/* Decode once and normalise the path of `target` (up to '?'): "%XX" decoded, "." and ".." resolved, repeated slashes merged,
 * result begins with '/'. out has room for cap bytes, cap > raw.len. Returns its length, -PC_E_BAD (bad escape, NUL, control
 * byte, ".." above the root, no leading slash), -PC_E_NOT_FOUND ("%2f", as AllowEncodedSlashes Off). */
int pc_uri_decode_path(struct pc_slice raw, char *out, size_t cap);
/* Split origin-form into path and query (without '?'; base NULL when there is none). */
void pc_uri_split(struct pc_slice target, struct pc_slice *ret_path, struct pc_slice *ret_query);

/* escape.c: out has room for the worst case, which each says; returns bytes written */

size_t pc_escape_html(struct pc_slice s, char *out);  /* & < > " '   worst 6x */
size_t pc_escape_path(struct pc_slice s, char *out);  /* percent-encode for a URL path, '/' stays; worst 3x */
size_t pc_escape_log(struct pc_slice s, char *out);   /* as httpd: \" \\ \n \t \xHH for controls, DEL and > 0x7e; worst 4x */

/* date.c: RFC 9110 5.6.7 */

void pc_date_format(int64_t unix_s, char out[29]);            /* "Sun, 06 Nov 1994 08:49:37 GMT" */
int pc_date_parse(struct pc_slice s, int64_t *ret_unix_s);    /* all three forms; -PC_E_BAD */

/* cond.c: preconditions and ranges (RFC 9110 13, 14), pure */

struct pc_validators {
    struct pc_slice etag; /* with its quotes, maybe W/; len 0 = none */
    int64_t modified_s;   /* -1 = none */
};

/* Returns 0 (go on), 304 or 412. ret_range: whether Range may be honoured (If-Range). */
int pc_cond_check(const struct pc_head *head, const char *buf, const struct pc_validators *now, bool *ret_range);

struct pc_range {
    uint64_t first, length;
};

/* Returns how many ranges (1..PC_MAX_RANGES) are in ret_ranges, 0 = ignore the field and send it all (syntax, more than
 * PC_MAX_RANGES, or overlapping so that their sum exceeds size), -PC_E_RANGE = 416. */
int pc_range_parse(struct pc_slice value, uint64_t size, struct pc_range ret_ranges[PC_MAX_RANGES]);

/* wild.c */

/* Shell wildcards * ? [set] and \ as fnmatch(3). pathname: * and ? do not match '/'. icase: ASCII. Linear or O(n*m), never
 * exponential. */
bool pc_wild_match(struct pc_slice pattern, struct pc_slice s, bool pathname, bool icase);
bool pc_wild_has(struct pc_slice pattern); /* whether it holds * ? or [ */

/* ------------------------------------------------------------------ the record in memory (record.c) */

/* One TLV item; the reader is pure and bounds-checked. Returns bytes consumed, 0 at the end, -PC_E_FORMAT. */
struct pc_item {
    uint16_t tag;
    struct pc_slice payload;
};
int pc_item_next(struct pc_slice box, size_t *at, struct pc_item *ret_item);

struct pc_regex; /* PCRE2, compiled at load; match limits set */

/* One group of settings: BASE or a section. Lookups go from the most specific layer to BASE, so nothing is merged per
 * request. A member that a section does not set is NULL, -1 or count 0. */
struct pc_settings {
    bool has_options, options_absolute, has_etag, etag_absolute;
    uint32_t options_add, options_remove, etag_add, etag_remove;
    bool has_index;
    struct pc_slice *index;
    uint32_t index_count;
    struct pc_slice require;       /* ACCESS bytes; base NULL = not set */
    struct pc_order *order;        /* Order/Allow/Deny, NULL = not set */
    struct pc_errordoc *errordocs; uint32_t errordoc_count;
    struct pc_pair *types; uint32_t type_count;
    struct pc_pair *charsets; uint32_t charset_count;
    struct pc_pair *encodings; uint32_t encoding_count;
    struct pc_slice force_type, default_type, default_charset, handler; /* base NULL = not set; len 0 = none/off */
    struct pc_header_op *headers; uint32_t header_count;
    struct pc_header_op *request_headers; uint32_t request_header_count;
    struct pc_pair *env; uint32_t env_count;
    struct pc_slice *unset_env; uint32_t unset_env_count;
    struct pc_redirect *redirects; uint32_t redirect_count;
    int32_t accept_path_info, signature, ask; /* -1 = not set */
    bool has_limit_body;
    uint64_t limit_body;
    /* programs and back ends */
    struct pc_pair *handlers; uint32_t handler_count;      /* AddHandler: extension, handler; value len 0 = none */
    struct pc_action *actions; uint32_t action_count;
    struct pc_pair *proxy_reverse; uint32_t proxy_reverse_count; /* our path, back end's URL */
    struct pc_pair *cookie_paths; uint32_t cookie_path_count;    /* back end's, ours */
    struct pc_pair *cookie_domains; uint32_t cookie_domain_count;
    struct pc_pair *wrappers; uint32_t wrapper_count;      /* FcgidWrapper: command, extension; value len 0 = all */
    struct pc_fcgi_env *fcgi_env; uint32_t fcgi_env_count;
    struct pc_php_value *php_values; uint32_t php_value_count;
    int32_t preserve_host, cgi_pass_auth; /* -1 = not set */
    uint32_t proxy_timeout_ms;            /* 0 = not set */
    int32_t ssl_require, ssl_verify;      /* -1 = not set; enum pc_verify */
    bool has_ssl_options, ssl_options_absolute;
    uint32_t ssl_options_add, ssl_options_remove; /* PC_SSL_* */
};

struct pc_pair { struct pc_slice name, value; };
struct pc_action { struct pc_slice name /* handler or media type */, path /* URL path */; bool is_virtual; };
struct pc_fcgi_env { struct pc_slice name, value /* FORMAT operations; base NULL = unset the variable */; };
struct pc_php_value { bool is_admin; struct pc_slice name, value; };
struct pc_errordoc { uint32_t status, kind; struct pc_slice value; };
struct pc_order { uint32_t order; struct pc_slice allow, deny; };
struct pc_header_op {
    uint32_t action; bool always, edit_all;
    struct pc_slice name, value /* FORMAT operations */, env;
    struct pc_regex *pattern;
};
struct pc_redirect { uint32_t status, kind; struct pc_slice from, to; struct pc_regex *pattern; };

struct pc_section {
    uint32_t kind; /* SECTION_KIND */
    struct pc_slice pattern;
    bool has_wild;
    struct pc_regex *regex;
    struct pc_settings settings;
    struct pc_section *inner; uint32_t inner_count;
};

enum pc_alias_kind { PC_ALIAS, PC_ALIAS_MATCH, PC_ALIAS_SCRIPT, PC_ALIAS_SCRIPT_MATCH };
static inline bool pc_alias_is_match(uint32_t kind) { return kind == PC_ALIAS_MATCH || kind == PC_ALIAS_SCRIPT_MATCH; }
static inline bool pc_alias_is_script(uint32_t kind) { return kind >= PC_ALIAS_SCRIPT; } /* CGI programs, whatever their names */
struct pc_alias { uint32_t kind; struct pc_slice from, to; struct pc_regex *regex; int root_fd; };

enum pc_service_kind { PC_SERVICE_FCGI, PC_SERVICE_HTTP };
struct pc_service {
    uint32_t kind;
    struct pc_slice socket; /* NUL behind it */
    uint32_t connections;   /* a child that has no more than these to it may keep them; 0 = keeps none */
    struct pc_pair *php_names; uint32_t php_name_count; /* PHPPool: settings that sections change; "1" if one does by php_admin_value */
};
#define PC_NO_SERVICE UINT32_MAX

/* ProxyPass and its like, tried in order. to: "!" = not here, or where to (PC_T_PROXY_TO says the forms). */
enum pc_pass_kind { PC_PASS_PREFIX, PC_PASS_MATCH };
struct pc_pass {
    uint32_t kind;
    struct pc_slice from, to, upgrade; /* upgrade base NULL = none */
    uint32_t timeout_ms, connect_ms, retry_s_plus_1; /* 0 = default; retry 0 tries again at once */
    bool single_use; /* no second request on one connection */
    uint32_t kept;   /* FastCGI: connections that there may be for one to be kept; 0 = none is */
    struct pc_regex *regex;
};

struct pc_log { uint32_t file; struct pc_slice format, env; };

struct pc_cert {
    struct pc_slice pem;
    uint32_t key_number; /* index among the child's key descriptors */
    struct pc_slice key_path; /* NUL behind it */
};
enum { PC_CRL_LEAF = 1, PC_CRL_CHAIN = 2, PC_CRL_MISSING_OK = 4 };
enum pc_verify { PC_VERIFY_NONE, PC_VERIFY_OPTIONAL, PC_VERIFY_REQUIRE, PC_VERIFY_NO_CA };

/* How a host speaks TLS. A slice with base NULL is not set. */
struct pc_tls_conf {
    struct pc_slice broken; /* why it cannot: its handshakes are ended with an alert; base NULL = it can */
    struct pc_cert *certs; uint32_t cert_count;
    uint32_t protocols; /* PC_TLS_TLSV1_2, PC_TLS_TLSV1_3 */
    struct pc_slice ciphers, suites;
    bool server_order, tickets, strict;
    struct pc_pair *commands; uint32_t command_count; /* SSL_CONF_cmd(3) */
    uint32_t timeout_s;
    uint32_t verify; /* enum pc_verify */
    uint32_t depth;
    struct pc_slice ca, crl; /* PEM */
    uint32_t crl_check; /* PC_CRL_*; 0 = crl is not looked at */
    struct pc_pair *sources; uint32_t source_count; /* what of all this is in files, for compile: kind, path */
};

/* Of the whole server; an HTTP/2 connection's, whatever its hosts. */
struct pc_h2_limits {
    uint32_t streams, window_bytes, frame_bytes /* 0 = what fits */, early_hints /* 0, 1 */;
};

struct pc_host_row;
struct pc_host {
    struct pc_slice name, admin, document_root;
    uint32_t port, index;
    uint32_t timeout_ms, keep_alive_ms, head_ms, head_max_ms, body_ms, body_max_ms, head_rate, body_rate;
    bool keep_alive, keep_scope_identity;
    uint32_t max_requests;
    struct pc_h1_limits limits;
    struct pc_log *logs; uint32_t log_count;
    uint32_t error_log, error_level;
    struct pc_settings base;
    struct pc_section *sections; uint32_t section_count;
    bool has_location_or_files; /* any section that is not a plain Directory */
    struct pc_alias *aliases; uint32_t alias_count;
    struct pc_pass *passes; uint32_t pass_count;
    uint32_t php_service; /* index of the service for PHP's handlers and media types, or PC_NO_SERVICE */
    struct pc_pair *wrappers; uint32_t wrapper_count; /* FcgidWrapper: command, "service:K" */
    bool has_programs;    /* a handler, action, alias or pass here may lead to what is no file */
    struct pc_slice remote_ip_header, remote_ip_internal, remote_ip_trusted; /* the last two: ACCESS leaves; base NULL = not set */
    bool proxy_protocol;
    struct pc_tls_conf *tls;  /* NULL = plain HTTP */
    uint32_t protocols;       /* PC_PROTOCOL_*; never 0 */
    _Atomic(struct pc_host_row *) row; /* of the child's page; NULL = nothing was answered yet */
    int root_fd;              /* O_PATH of document_root, -1 = not opened yet */
    uint64_t root_checked_ns; /* pc_now_ns of the last look at its device and inode */
    uint64_t root_dev, root_ino;
    pthread_mutex_t root_lock; /* held while root_fd is replaced; readers dup nothing: replaced fds are closed a sweep later */
    int old_root_fd;
};

/* What logs, pages and programs call it: one without ServerName is "localhost", as in -S. */
static inline struct pc_slice
pc_host_name(const struct pc_host *host)
{
    return host->name.len > 0 ? host->name : PC_S("localhost");
}

struct pc_log_file {
    struct pc_slice path;
    bool by_dispatcher;
    int fd; /* -1 = could not be opened: lines are counted as lost */
    pthread_mutex_t lock;
    char *buffer; /* PC_LOG_BUFFER_BYTES, allocated at the first line */
    size_t used;
    uint64_t lost_lines;
};

struct pc_config {
    uint32_t identity_no, uid, gid;
    struct pc_slice own_route; /* route table of own hosts */
    struct pc_slice types;     /* the shared types table */
    struct pc_slice server;    /* value of the Server field */
    struct sockaddr_storage *listeners; uint32_t listener_count;
    struct pc_log_file *log_files; uint32_t log_file_count;
    bool error_log_json;
    uint32_t start_threads, min_spare, max_spare, max_threads, max_connections, idle_s;
    uint32_t send_buffer_bytes, receive_buffer_bytes;
    struct pc_h2_limits h2;
    struct pc_service *services; uint32_t service_count;
    struct pc_host *hosts; uint32_t host_count;
    struct pc_arena memory; /* everything above lives here */
    void *map; size_t map_len; /* the record itself, mapped; slices point into it */
};

/* Read a whole record from fd (mmap, private, read-only) and compile its patterns. ret_why: static text for the log.
 * Returns 0, -PC_E_FORMAT, -PC_E_SYS. */
int pc_record_load(int record_fd, int types_fd, struct pc_config **ret_config, const char **ret_why);
/* The same from memory; bytes must outlive the configuration (fuzzing, tests). */
int pc_record_parse(struct pc_slice raw, struct pc_slice types, struct pc_config **ret_config, const char **ret_why);
void pc_record_free(struct pc_config *config);

/* regex.c: PCRE2 behind four functions */
int pc_regex_compile(struct pc_slice pattern, bool icase, struct pc_regex **ret_regex);
/* Returns number of groups + 1, 0 = no match (also at the match limit); spans of up to 10 groups, unset: len 0. */
int pc_regex_match(const struct pc_regex *regex, struct pc_slice subject, struct pc_span ret_groups[10]);
/* Replace $0..$9 (also \$ as a literal dollar) in `with` by groups of `subject`. escape: percent-encode what is put in. */
struct pc_slice pc_regex_expand(struct pc_arena *arena, struct pc_slice with, struct pc_slice subject,
                                const struct pc_span groups[10], bool escape);
void pc_regex_free(struct pc_regex *regex);

/* mime.c: the shared types table */
struct pc_slice pc_types_find(struct pc_slice table, struct pc_slice extension); /* base NULL = unknown */

/* ------------------------------------------------------------------ the request and its response */

enum pc_body_kind { PC_BODY_NONE, PC_BODY_MEMORY, PC_BODY_FILE, PC_BODY_PARTS, PC_BODY_PRODUCER };

struct pc_part { /* of multipart/byteranges: text, then bytes of the file */
    struct pc_slice text;
    uint64_t offset, length;
};

struct pc_req;
/* A response whose bytes come from somewhere else than a file: CGI, FastCGI, a proxy, Python. */
struct pc_producer {
    /* Give the next bytes: ret_bytes stays valid until the next call. Returns 1 bytes given, 0 end, -PC_E_AGAIN (the producer
     * wakes the connection by pc_conn_wake), other errors cut the response off. */
    int (*next)(struct pc_req *req, struct pc_slice *ret_bytes);
    void (*end)(struct pc_req *req); /* always called once, also when the client is gone */
};

#define PC_MAX_OUT_FIELDS 96

struct pc_out_field { struct pc_slice name, value; };

struct pc_resp {
    uint32_t status;
    struct pc_slice reason; /* len 0 = the usual phrase */
    uint32_t field_count, field_room;
    struct pc_out_field *fields; /* of the arena; all but Date, Server, Content-Length, Connection, Transfer-Encoding, which
                                    respond.c writes */
    uint8_t body; /* enum pc_body_kind */
    bool has_length; /* length is known (always but for producers) */
    bool close;      /* end the connection behind this response */
    bool is_tunnel;  /* 101: what follows is another protocol's, in both directions until both have ended */
    struct pc_slice date, server; /* a back end's instead of ours; len 0 = ours */
    uint64_t length;
    struct pc_slice memory;
    int fd;             /* owned by the request; closed by respond.c at the end */
    uint64_t offset;
    struct pc_part *parts; /* the last one has length 0 */
    uint32_t part_count;
    const struct pc_producer *producer;
    void *producer_state;
    struct pc_slice content_type; /* also among the fields; for charset and logs */
    const struct pc_pair *trailers; /* a producer's, when it has come to its end, for who takes them */
    uint32_t trailer_count;
};

enum pc_ask { PC_ASK_NOTHING, PC_ASK_HOSTNAME, PC_ASK_POLICY, PC_ASK_HANDLER };
enum pc_serve { PC_SERVED = 0, PC_SERVE_ASK = 1, PC_SERVE_BLOCKS = 2, PC_SERVE_GATE = 3 };
enum pc_gate_kind { PC_GATE_NONE, PC_GATE_CGI, PC_GATE_FCGI, PC_GATE_HTTP, PC_GATES }; /* protocols of gate.c */

struct pc_req {
    struct pc_conn *conn;
    const struct pc_config *config;
    struct pc_host *host;
    struct pc_arena *arena;
    const char *raw;     /* base of head's spans */
    struct pc_head *head;
    uint16_t port_out;             /* port for self-referential URLs */
    bool is_tls, is_h2, is_mistaken /* plain HTTP, on an address that speaks TLS */;
    uint64_t start_ns;             /* first byte of the request */
    uint64_t end_ns;               /* behind its last byte, 0 = not yet: all of its log lines say the same */
    int64_t start_wall_us;
    uint64_t id;                   /* request log id: unique in the child; logs show it with the pid */
    uint32_t nth;                  /* requests on this connection before this one */
    uint64_t bytes_in, bytes_out, body_out; /* counted by the connection */
    struct pc_slice path;          /* decoded, normalised, NUL behind; changes at an internal redirect */
    struct pc_slice query;         /* base NULL = none */
    struct pc_slice filename;      /* file system path for logs and scripts */
    struct pc_slice path_info;
    struct pc_slice handler;       /* name for %R; len 0 = none */
    uint32_t layer_count;
    uint32_t options;              /* effective Options */
    struct pc_pair *env; uint32_t env_count, env_cap; /* SetEnv and REDIRECT_* of this request */
    struct pc_pair *in_edits; uint32_t in_edit_count; /* RequestHeader's results: value.base NULL = unset */
    uint32_t redirect_depth;
    uint32_t error_status;         /* status an ErrorDocument is being made for; 0 = none */
    /* Python is asked: question, and its answer when the request is served again. */
    uint8_t ask; /* enum pc_ask */
    bool aborted; /* the client went away before the last byte: %X */
    bool is_decided;               /* PC_ASK_POLICY was answered */
    uint8_t gate;                  /* enum pc_gate_kind: what answers when pc_serve said PC_SERVE_GATE; filename is its program */
    struct pc_slice back_end;      /* PC_GATE_FCGI, PC_GATE_HTTP: the target, as PC_T_PROXY_TO says its forms, expanded; pc_target_parse */
    const struct pc_pass *pass;    /* whose target that is; NULL = a handler's: then filename is its script */
    struct pc_pair front_field;    /* RemoteIPHeader's field as far as it was not used; name.base NULL = none was, value.base NULL = all */
    bool has_peer;                 /* it was: then client is who it names, and peer who the connection came from */
    bool by_script_alias;          /* ScriptAlias made filename: it is a program, and ExecCGI need not be said */
    bool is_without_body;          /* an internal redirect: a GET, and the body was for what it stands for */
    struct pc_pair *kept_env; uint32_t kept_env_count; /* REDIRECT_* of internal redirects: served again, it begins with these */
    bool has_answer, may_block;    /* may_block: a follower leads, this thread may take its time */
    struct pc_slice client_name;   /* PC_ASK_HOSTNAME's answer: confirmed name, or empty; base NULL = not asked yet */
    struct pc_slice answer;        /* PC_ASK_HANDLER's answer: the body */
    uint32_t answer_status;        /* PC_ASK_HANDLER: status; PC_ASK_POLICY: status of an error, or 0 = go on */
    struct pc_slice answer_type;   /* PC_ASK_HANDLER: media type */
    struct pc_resp resp;
    /* Behind this line nothing is cleared for a new request: filled before it is read. */
    struct pc_hostname name;       /* the Host that was asked for */
    struct sockaddr_storage client, server, peer; /* the members of their family only */
    const struct pc_settings *layers[PC_MAX_LAYERS]; /* least specific first; [0] = host->base */
};

/* serve.c: from path to response. Fills req->resp completely (also for errors). Called again after PC_SERVE_ASK (then
 * has_answer) and after PC_SERVE_BLOCKS (then may_block). PC_SERVE_GATE: a program makes the response, see gate.h.
 * Before: request.c  After: respond.c, gate.c */
enum pc_serve pc_serve(struct pc_req *req);
/* Make resp an error page: the host's ErrorDocument, else ours (never the request's text unescaped). `why` goes to the error
 * log when not NULL. */
void pc_serve_error(struct pc_req *req, uint32_t status);

/* map.c: Redirect, Alias, sections */
void pc_map_layers(struct pc_req *req);     /* Location walk, Directory and Files walk: fills layers, options */
/* remoteip.c: who the client is if front ends that the host trusts say so; changes req->client */
void pc_remoteip_apply(struct pc_req *req);
/* access.c: Require and Order/Allow/Deny. Returns 0 allowed, -PC_E_FORBIDDEN, or 1 = Python must be asked for the name. */
int pc_access_check(struct pc_req *req);
/* Whether one of ACCESS leaves (ip) has the address. */
bool pc_access_has(struct pc_slice leaves, const struct sockaddr_storage *address);
/* file.c: openat2 below a held root; index files; conditional requests; ranges */
int pc_file_open(struct pc_req *req, int root_fd, const char *relative, int *ret_fd, int *ret_errno);
enum pc_serve pc_file_serve(struct pc_req *req);
/* listing.c */
enum pc_serve pc_listing_serve(struct pc_req *req, int dir_fd);
/* fields.c: response fields, the Header directive, environment */
void pc_resp_set(struct pc_req *req, struct pc_slice name, struct pc_slice value); /* slices must live as long as the request */
void pc_resp_add(struct pc_req *req, struct pc_slice name, struct pc_slice value);
void pc_resp_unset(struct pc_req *req, struct pc_slice name);
struct pc_slice pc_resp_get(const struct pc_req *req, struct pc_slice name); /* base NULL = absent */
void pc_fields_apply(struct pc_req *req);         /* Header directives of all layers; called once, last */
void pc_fields_apply_request(struct pc_req *req); /* RequestHeader */
/* A request field as RequestHeader left it; base NULL = absent. */
struct pc_slice pc_fields_in(const struct pc_req *req, struct pc_slice name);
/* All of them so, in the client's order, repeated ones as they came; what RequestHeader changed is there once. Arena. */
uint32_t pc_fields_in_all(const struct pc_req *req, struct pc_pair **ret_fields);
bool pc_fields_is_edited(const struct pc_req *req, struct pc_slice name); /* its value, or absence, is RequestHeader's */
struct pc_slice pc_env_get(const struct pc_req *req, struct pc_slice name); /* base NULL = unset */
void pc_env_set(struct pc_req *req, struct pc_slice name, struct pc_slice value);
const char *pc_status_phrase(uint32_t status); /* "Not Found"; never NULL */

/* format.c: FORMAT operations. Appends to out (cap bytes), cutting at cap; returns bytes written. in_log: escape as a log
 * does and write "-" for what is absent; otherwise raw with CR and LF taken out ((null) for absent, as Header does). */
size_t pc_format_write(const struct pc_req *req, struct pc_slice ops, bool in_log, char *out, size_t cap);

/* log.c: access logs */
int pc_log_open(struct pc_config *config, const int *fds, size_t fd_count); /* fds: by index, those of the dispatcher; -1 = none */
void pc_log_request(struct pc_req *req);      /* after the last byte (or the end of the connection) */
void pc_log_flush(struct pc_config *config);  /* whole lines; also before a reopen */
void pc_log_end(struct pc_config *config);    /* the last flush: what waits behind it is lost, and counted */
int pc_log_reopen(struct pc_config *config, const int *fds, size_t fd_count);
uint64_t pc_log_lost(struct pc_config *config); /* lines that could not be written, of all logs, since the start */

/* errlog.c: one line, one write: "[Sat Nov 21 01:03:00.123456 2026] [core:error] [pid 7:tid 9] [client 192.0.2.1:5000] AH...: text" */
enum pc_level { PC_EMERG, PC_ALERT, PC_CRIT, PC_ERROR, PC_WARN, PC_NOTICE, PC_INFO, PC_DEBUG };
void pc_errlog(const struct pc_config *config, const struct pc_host *host, enum pc_level level, const char *module,
               const struct sockaddr_storage *client, const char *format, ...) __attribute__((format(printf, 6, 7)));
void pc_errlog_req(const struct pc_req *req, enum pc_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* why.c: httpd's sentence about a head that pc_h1_parse_head or pc_h1_peek_name refused with `error`. */
struct pc_why {
    enum pc_level level;
    char text[512];
};
void pc_why_refused(int error, struct pc_slice raw, const struct pc_h1_limits *limits, struct pc_why *ret_why);

#endif
