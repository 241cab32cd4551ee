/* gateway.h - the languages of programs and back ends, pure: bytes in, facts out; facts in, bytes out. No descriptor, no clock.
 * Runs as:  child, as the identity that owns the host.   Sees: requests, and what tenants' programs and back ends write.
 * Trusts:   the host's configuration.   Distrusts: clients, programs and back ends alike.
 * Before:   gate.c (bytes and descriptors)   After: respond.c
 * Words and returns as in pc.h: parsers give >0 consumed, 0 need more, <0 -PC_E_*. */
#ifndef PC_GATEWAY_H
#define PC_GATEWAY_H

#include "pc.h"

/* ------------------------------------------------------------------ reply.c: the head of an answer */

enum pc_reply_id { /* fields that the gateway itself looks at */
    PC_REPLY_OTHER, PC_REPLY_STATUS, PC_REPLY_LOCATION, PC_REPLY_CONTENT_TYPE, PC_REPLY_CONTENT_LENGTH,
    PC_REPLY_TRANSFER_ENCODING, PC_REPLY_CONNECTION, PC_REPLY_UPGRADE, PC_REPLY_KEEP_ALIVE, PC_REPLY_TRAILER, PC_REPLY_TE,
    PC_REPLY_PROXY_CONNECTION, PC_REPLY_PROXY_AUTHENTICATE, PC_REPLY_CONTENT_LOCATION, PC_REPLY_SET_COOKIE, PC_REPLY_DATE,
    PC_REPLY_SERVER, PC_REPLY_IDS,
};

enum pc_reply_framing { /* RFC 9112 6.3, as a client sees it */
    PC_REPLY_UNTIL_END, /* until the program closes: also every CGI answer that may have a body */
    PC_REPLY_NO_BODY,   /* HEAD, 1xx, 204, 304: whatever the fields say */
    PC_REPLY_LENGTH,    /* `length` bytes */
    PC_REPLY_CHUNKED,   /* pc_chunked_decode */
    PC_REPLY_TUNNEL,    /* 101: the connection is another protocol's from here on */
};

struct pc_reply_field {
    struct pc_span name, value; /* value without blanks around it */
    uint8_t id;                 /* enum pc_reply_id */
    bool is_hop;                /* ends here: hop-by-hop by itself or named by Connection (RFC 9110 7.6.1); in a CGI answer
                                   also Status and Transfer-Encoding. Content-Length is never hop-by-hop. */
};

struct pc_reply {
    uint32_t at;   /* parsed so far: whole lines only */
    uint32_t seen; /* looked through for a line's end */
    uint32_t field_count;
    uint32_t known; /* bit 1 << enum pc_reply_id: such a field was there */
    uint32_t status;        /* 100..999; CGI: Status, else 302 with a Location that is no path, else 200 */
    struct pc_span reason;  /* len 0 = none given: the usual phrase */
    uint8_t minor;          /* HTTP: 0 or 1 */
    uint8_t framing;        /* enum pc_reply_framing */
    bool has_line;          /* HTTP: the status line is parsed */
    bool has_status;        /* HTTP: always; CGI: a Status field was there */
    bool has_length;        /* one valid Content-Length was there; with NO_BODY it tells what a GET would have had */
    bool is_chunked;        /* HTTP only */
    bool is_interim;        /* 1xx but 101: another head follows; zero the struct and go on behind this one */
    bool is_local;          /* CGI: status 200 or none, and Location is a path: serve that instead (RFC 3875 6.2.2) */
    bool wants_close;       /* not to be used again: said so, HTTP/1.0 without keep-alive, UNTIL_END or TUNNEL; CGI: said so */
    bool wants_keep;        /* Connection: keep-alive was said */
    bool wants_upgrade;     /* Connection: upgrade was said */
    uint64_t length;
    struct pc_span location, content_type, upgrade; /* values of the first such fields; len 0 = absent or empty */
    struct pc_reply_field fields[PC_MAX_REPLY_FIELDS]; /* from here on nothing is read before it is written */
};

/* The three go on parsing: `reply` is zeroed by the caller (offsetof fields is enough) before the first call, buf holds the same
 * bytes as before plus more (it may have moved). They return the head's length, its empty line included, 0 need more,
 * -PC_E_BAD (502, CGI 500), -PC_E_HEAD_LARGE (above PC_MAX_REPLY_HEAD_BYTES or PC_MAX_REPLY_FIELDS; same statuses).
 * All refuse: NUL and other controls, bare CR, folded lines, a name that is no token or has a blank behind it, repeated or odd
 * Content-Length, Content-Length with Transfer-Encoding.
 * If the bytes end (program closed) while they say 0, the head has no end: 502/500, "End of script output before headers". */

/* RFC 3875 6: lines end in LF or CRLF. Refuses also: no field at all, two of Status, Location or Content-Type, a Status that is
 * not three digits (and a reason behind a blank) or below 200. framing is NO_BODY (204, 304, is_local) or UNTIL_END: has_length
 * and length are the program's word, to be held against what it then writes. For CGI and FastCGI. */
int pc_reply_parse_cgi(struct pc_reply *reply, const char *buf, size_t len);
/* RFC 9112 4, 5, 6.3: lines end in CRLF; "HTTP/1.0" or "HTTP/1.1", one blank, three digits, then a blank and a reason, or the
 * end. Refuses also: any Transfer-Encoding but one "chunked", in HTTP/1.0 any, and a 101 that names no protocol.
 * is_head: the request was HEAD. */
int pc_reply_parse_http(struct pc_reply *reply, const char *buf, size_t len, bool is_head);
/* The same for the output of an nph- script: lines may end in LF alone. */
int pc_reply_parse_nph(struct pc_reply *reply, const char *buf, size_t len, bool is_head);

/* ------------------------------------------------------------------ trailer.c: fields behind a body (RFC 9110 6.5) */

/* Whether a trailer of this name may go on to a client: none that says something of framing, routing, authentication, caching or the
 * content, for somebody on the way might take it for a field of the head; and none that the answer's Connection names. head: base of
 * reply's spans. */
bool pc_trailer_may_pass(const struct pc_reply *reply, const char *head, struct pc_slice name);
/* Those fields of a whole section, which pc_chunked_decode has checked, that may pass; the slices point into it. Returns how many;
 * ret_fields is in the arena. */
uint32_t pc_trailer_take(struct pc_arena *arena, struct pc_slice section, const struct pc_reply *reply, const char *head,
                         const struct pc_pair **ret_fields);
/* What is left of the value of a Trailer field; len 0 = nothing. In the arena. */
struct pc_slice pc_trailer_names(struct pc_arena *arena, struct pc_slice list, const struct pc_reply *reply, const char *head);

/* ------------------------------------------------------------------ phpini.c: settings of PHP, for php-fpm */

/* The value of PHP_VALUE, or PHP_ADMIN_VALUE, for a request, in its arena; base NULL = nothing is to be said. pool: the service of ours that
 * runs PHP for this request, NULL = another php-fpm, of which nothing is known. */
struct pc_slice pc_phpini_lines(const struct pc_req *req, const struct pc_service *pool, bool is_admin);

/* ------------------------------------------------------------------ fcgi.c: FastCGI 1.0, the side of the web server */

#define PC_FCGI_HEAD_BYTES 8

enum pc_fcgi_type {
    PC_FCGI_BEGIN_REQUEST = 1, PC_FCGI_ABORT_REQUEST, PC_FCGI_END_REQUEST, PC_FCGI_PARAMS, PC_FCGI_STDIN, PC_FCGI_STDOUT,
    PC_FCGI_STDERR,
};
enum pc_fcgi_protocol { PC_FCGI_COMPLETE, PC_FCGI_CANT_MPX, PC_FCGI_OVERLOADED, PC_FCGI_UNKNOWN_ROLE };

/* Into the caller's buffer. Zero it, then set out, cap and request_id (1..65535). When the room is out nothing more is written
 * and pc_fcgi_end_params says so: begin again with more. */
struct pc_fcgi_writer {
    char *out;
    size_t cap, len;     /* len: written so far */
    size_t record_at;    /* of the open PARAMS record */
    uint16_t request_id;
    bool is_open, is_full;
};
void pc_fcgi_begin(struct pc_fcgi_writer *writer, bool keep); /* BEGIN_REQUEST, responder; keep = FCGI_KEEP_CONN */
void pc_fcgi_param(struct pc_fcgi_writer *writer, struct pc_slice name, struct pc_slice value);
/* A pc_cgienv_sink; `to` is the writer. Returns 0, or -PC_E_HEAD_LARGE when the room is out. */
int pc_fcgi_param_sink(void *to, struct pc_slice name, struct pc_slice value);
/* Close the last record, and the stream by an empty one. Returns 0, or -PC_E_HEAD_LARGE when anything did not fit. */
int pc_fcgi_end_params(struct pc_fcgi_writer *writer);
/* The head of a record of len content bytes (0..65535; a STDIN of 0 ends the body; ABORT_REQUEST has 0). The content follows,
 * then as many zero bytes as this returns (0..7). */
size_t pc_fcgi_head(char out[PC_FCGI_HEAD_BYTES], enum pc_fcgi_type type, uint16_t request_id, size_t len);

enum pc_fcgi_what { PC_FCGI_NOTHING, PC_FCGI_OUT, PC_FCGI_ERR, PC_FCGI_END };

struct pc_fcgi_event {
    uint8_t what;          /* enum pc_fcgi_what */
    struct pc_slice bytes; /* OUT, ERR: at least one byte, within buf */
    uint32_t app_status;   /* END: the program's exit status */
    uint8_t protocol;      /* END: enum pc_fcgi_protocol, or a number above */
};

/* Zeroed by the caller for each request, then request_id set. */
struct pc_fcgi_reader {
    uint16_t request_id;
    uint8_t type;          /* of the record in work */
    uint8_t protocol;
    uint32_t app_status;
    uint32_t content, padding; /* bytes of it still to come */
    bool is_refused;       /* what was refused stays refused */
    bool has_end;          /* END_REQUEST was read; its padding may be missing */
    bool is_done;          /* the END event was given: nothing more is consumed, the connection is free if it was kept */
};
/* One step: >0 bytes consumed (with an event, maybe NOTHING), 0 need more (or is_done), -PC_E_BAD: wrong version, another
 * request's id, a type that we never asked for, an END_REQUEST that is not 8 bytes. Needs 8 bytes in a row at most. */
int pc_fcgi_decode(struct pc_fcgi_reader *reader, const char *buf, size_t len, struct pc_fcgi_event *ret_event);

/* ------------------------------------------------------------------ cgienv.c: a request as RFC 3875 variables */

enum pc_cgienv_kind { PC_CGIENV_CGI, PC_CGIENV_FCGI };

struct pc_cgienv_facts { /* a slice whose base is NULL is not known */
    uint8_t kind;                   /* enum pc_cgienv_kind; CGI gets a PATH unless SetEnv has one */
    struct pc_slice gateway;        /* GATEWAY_INTERFACE; NULL = "CGI/1.1" */
    struct pc_slice method;         /* NULL = the client's; GET for an ErrorDocument */
    struct pc_slice script_name;    /* URL path of the script, decoded; NULL = the request's path without path_info */
    struct pc_slice script_filename; /* NULL = req->filename */
    struct pc_slice path_info;      /* NULL or empty = none: neither PATH_INFO nor PATH_TRANSLATED */
    struct pc_slice path_translated; /* NULL = DOCUMENT_ROOT and path_info */
    struct pc_slice context_prefix, context_root; /* of the Alias; NULL = "" and DOCUMENT_ROOT */
    struct pc_slice signature;      /* SERVER_SIGNATURE: pc_serve_signature */
    uint64_t body_len;              /* UINT64_MAX = unknown: no CONTENT_LENGTH; 0 without a Content-Length: none either */
    bool pass_auth;                 /* CGIPassAuth; FastCGI always gets Authorization */
    const struct pc_pair *more;     /* server-made variables of the caller's: PHP_VALUE, FCGI_ROLE; they win over all others */
    uint32_t more_count;
};

/* Takes one variable; the slices live as long as the request. Returns 0, or <0 to stop. */
typedef int (*pc_cgienv_sink)(void *to, struct pc_slice name, struct pc_slice value);

/* Each variable of the request once: SetEnv's and REDIRECT_*, then HTTP_*, then the server's own. A name that the server makes
 * is nobody else's, even where this request has no value for it (but HTTPS, which SetEnv may set where the server has no TLS).
 * Names are [A-Za-z_][A-Za-z0-9_]* (SetEnv's others get '_', as in httpd), values hold no NUL (what does is left out). Never
 * HTTP_PROXY; no field whose name is not [A-Za-z0-9-]; repeated fields are joined by ", ", Cookie by "; ". RequestHeader's
 * results count. Allocates in req->arena. Returns 0, or what the sink returned. */
int pc_cgienv_each(const struct pc_req *req, const struct pc_cgienv_facts *facts, pc_cgienv_sink sink, void *to);

/* "192.0.2.1", "2001:db8::1"; empty for neither. */
struct pc_slice pc_cgienv_address(struct pc_arena *arena, const struct sockaddr_storage *address);

/* An environment block "NAME=value\0...", as a job message has it. A pc_cgienv_sink; `to` is this struct, zeroed, then out and
 * cap set. Returns 0, or -PC_E_HEAD_LARGE when the room is out. */
struct pc_cgienv_block {
    char *out;
    size_t cap, len;
    uint32_t count;
};
int pc_cgienv_block_sink(void *to, struct pc_slice name, struct pc_slice value);

/* ------------------------------------------------------------------ h1out.c: a request for a back end */

enum pc_h1out_framing { PC_H1OUT_NO_BODY, PC_H1OUT_LENGTH, PC_H1OUT_CHUNKED };

struct pc_h1out_facts {
    struct pc_slice method;  /* NULL = the client's; GET for an ErrorDocument */
    struct pc_slice target;  /* origin-form, percent-encoded, with the query; "*" for OPTIONS * */
    struct pc_slice host;    /* authority of the back end's URL; the Host field unless preserve_host */
    bool preserve_host;      /* the client's Host field instead */
    bool no_forwarded;       /* no X-Forwarded-For, -Host, -Server, -Proto of ours */
    bool is_upgrade;         /* Upgrade and Connection: upgrade go along; see pc_h1out_wants_upgrade */
    bool keep;               /* else Connection: close */
    bool takes_trailers;     /* TE: trailers goes along, unless is_upgrade */
    uint8_t framing;         /* enum pc_h1out_framing; a POST without a body is LENGTH 0 */
    uint64_t length;
};

/* Request line and fields of a proxied request, with the empty line, as HTTP/1.1. Fields as RequestHeader left them, in the
 * client's order, without hop-by-hop ones, those that Connection names (what RequestHeader set is not the client's to take away),
 * Expect (answered here), Proxy, and names that read as one we write when '_' is '-'.
 * X-Forwarded-For, -Host and -Server get our word appended, as httpd's; X-Forwarded-Proto is added where there is none, and on
 * TLS is always ours. Returns the length, -PC_E_HEAD_LARGE (cap), -PC_E_BAD (a target or value that would not stay on its
 * line). Allocates in req->arena. */
int pc_h1out_head(const struct pc_req *req, const struct pc_h1out_facts *facts, char *out, size_t cap);
/* Whether the client asked for another protocol: GET, HTTP/1.1, Connection: upgrade and an Upgrade field. */
bool pc_h1out_wants_upgrade(const struct pc_req *req);

/* ProxyPassReverse: Location, Content-Location. pairs: name = our path, value = back end's URL ("unix:/path|http://host/x" too).
 * The first whose URL is a prefix that ends where a path's part does gives self + path + rest; self is pc_map_self's.
 * base NULL = none fits: pass it on as it is. */
struct pc_slice pc_proxy_reverse(struct pc_arena *arena, struct pc_slice location, struct pc_slice self,
                                 const struct pc_pair *pairs, uint32_t count);
/* ProxyPassReverseCookiePath, -Domain: the value of one Set-Cookie. name = internal, value = public. Returns `cookie` itself
 * where nothing changes. */
struct pc_slice pc_proxy_cookie(struct pc_arena *arena, struct pc_slice cookie, const struct pc_pair *paths, uint32_t path_count,
                                const struct pc_pair *domains, uint32_t domain_count);

/* ------------------------------------------------------------------ target.c: where a request is passed on to */

enum pc_target_kind { PC_TARGET_TCP, PC_TARGET_UNIX, PC_TARGET_SERVICE };

/* "http://host[:port]/path", "unix:/socket|http://host/path", "service:K/path"; the slices point into the text. */
struct pc_target {
    uint8_t kind;               /* enum pc_target_kind */
    uint16_t port;              /* TCP: 0 = none is named */
    uint32_t service;           /* SERVICE: its index */
    struct pc_slice scheme;     /* "http", "ws", "fcgi"; empty for a service */
    struct pc_slice authority;  /* host[:port] as it is written: what a Host field says; may be empty but for TCP */
    struct pc_slice host;       /* TCP: a name or an address, without brackets */
    struct pc_slice socket;     /* UNIX: absolute path */
    struct pc_slice path;       /* from its '/' on, or empty */
};
/* Returns 0 or -PC_E_BAD. */
int pc_target_parse(struct pc_slice text, struct pc_target *ret_target);
/* Percent-encode a path as httpd does for a back end; worst 3x. Returns bytes written. */
size_t pc_target_escape(struct pc_slice path, char *out);

#endif
