/* serve.h - what the files between a parsed request and its response share: map, access, file, listing, fields, serve.
 * pc.h has what the rest of native/ may call; nothing outside these files includes this one (but record.c, for its kinds). */
#ifndef PC_SERVE_H
#define PC_SERVE_H

#include <sys/stat.h>

#include "pc.h"

enum pc_section_kind {
    PC_SECTION_DIRECTORY, PC_SECTION_DIRECTORY_MATCH, PC_SECTION_FILES, PC_SECTION_FILES_MATCH, PC_SECTION_LOCATION,
    PC_SECTION_LOCATION_MATCH,
};

/* Beyond enum pc_serve, between these files only: req->path changed, begin again; or: nothing stands in the way, go on. */
#define PC_SERVE_AGAIN ((enum pc_serve)16)
#define PC_SERVE_ON ((enum pc_serve)17)

/* ------------------------------------------------------------------ mime.c */

/* Header, offsets and lengths of a types table, once. Returns 0 or -PC_E_FORMAT. */
int pc_types_check(struct pc_slice table);

/* What the extensions of a file name say (mod_mime). Slices of the configuration or of the arena; base NULL = nothing. */
struct pc_media {
    struct pc_slice type, encoding;
};
void pc_media_find(const struct pc_req *req, struct pc_slice filename, struct pc_media *ret_media);
/* AddHandler: that of the last extension that has one (RemoveHandler: len 0); base NULL = none has. */
struct pc_slice pc_media_handler(const struct pc_req *req, struct pc_slice filename);

/* ------------------------------------------------------------------ map.c */

/* Where a request's file is: below the document root, or below an alias's. */
struct pc_place {
    struct pc_alias *alias; /* NULL = document root */
    struct pc_slice root;   /* the directory's path; not NUL-terminated */
    const char *relative;   /* below root, NUL-terminated, no leading slash; "" = root itself */
};

/* Alias, AliasMatch, DocumentRoot: fills req->filename. Returns 0, -PC_E_NOT_FOUND, -PC_E_FORBIDDEN (".." came out). */
int pc_map_place(struct pc_req *req, struct pc_place *ret_place);
/* The directory that an alias stays in: what is held open and looked at again. */
struct pc_slice pc_map_alias_root(const struct pc_alias *alias);
/* The first of the settings' redirections that fits. Returns its status and ret_url (base NULL: an error status), or 0. */
uint32_t pc_map_redirect(struct pc_req *req, const struct pc_settings *settings, struct pc_slice *ret_url);
/* "http://name[:port]" of this request. */
struct pc_slice pc_map_self(struct pc_req *req);
/* Percent-encoded copy of a path. */
struct pc_slice pc_map_escape(struct pc_req *req, struct pc_slice path);

/* ------------------------------------------------------------------ access.c */

struct pc_access_node {
    uint8_t kind; /* PC_ACC_* */
    bool negate;
    struct pc_slice payload;
};
/* Next node of ACCESS bytes. Returns bytes consumed, 0 at the end, -PC_E_FORMAT. */
int pc_access_next(struct pc_slice nodes, size_t *at, struct pc_access_node *ret_node);

/* pc_access_check without a line in the error log: for a listing. */
int pc_access_judge(struct pc_req *req);

/* ------------------------------------------------------------------ file.c */

#define PC_ETAG_INODE 1u /* bits of FILE_ETAG */
#define PC_ETAG_MTIME 2u
#define PC_ETAG_SIZE 4u
#define PC_FILE_METHODS "GET,POST,OPTIONS,HEAD"

enum pc_serve pc_file_serve_at(struct pc_req *req, const struct pc_place *place);
/* A regular file as text, whatever stands in sections; PC_SERVE_ON: there is none. */
enum pc_serve pc_file_serve_text(struct pc_req *req, const struct pc_place *place);
/* acme.c: whether a path is that of an ACME challenge, pure; and its answer, or PC_SERVE_ON: it is nothing special. */
bool pc_acme_is_challenge(struct pc_slice path);
enum pc_serve pc_acme_serve(struct pc_req *req);
/* The answer for an errno of opening: 404, 403, 503 or 500, with its line in the error log. */
enum pc_serve pc_file_refuse(struct pc_req *req, int error);

/* ------------------------------------------------------------------ fields.c */

/* Environment of the layers: SetEnv, UnsetEnv. */
void pc_env_apply(struct pc_req *req);
/* The head with RequestHeader's results, as far as conditions and ranges need them: req->head itself where nothing changed. */
const struct pc_head *pc_fields_head(struct pc_req *req);

/* ------------------------------------------------------------------ program.c: who makes the content */

enum pc_maker {
    PC_MAKER_FILE,
    PC_MAKER_PYTHON,
    PC_MAKER_CGI,
    PC_MAKER_BACK_END, /* "proxy:URL", "service:K" */
    PC_MAKER_PHP,      /* the host's PHP service */
    PC_MAKER_ACTION,   /* the request becomes one for a program that Action names */
    PC_MAKER_FCGID,
    PC_MAKER_PROGRAM, /* one that we cannot run: 503, for sending its text would publish passwords */
};

/* SetHandler, else AddHandler by the name of req->filename, else ScriptAlias; len 0 = nothing says it. */
struct pc_slice pc_program_handler(const struct pc_req *req);
/* What a handler or a media type of that name does. False: there is no such handler; *ret_maker is untouched. */
bool pc_program_find(struct pc_slice name, enum pc_maker *ret_maker);
/* The Action of a handler or media type, but not for its own program; NULL = none. */
const struct pc_action *pc_program_action(const struct pc_req *req, struct pc_slice name);
/* Who makes what is in req->filename: its handler, else its media type. */
enum pc_maker pc_program_maker(struct pc_req *req, struct pc_slice media_type);
/* The file is there, and `maker` is no PC_MAKER_FILE: PC_SERVE_GATE, or the error why not. */
enum pc_serve pc_program_serve(struct pc_req *req, enum pc_maker maker);
/* A directory, or nothing, is where a program should be. PC_SERVE_ON: there should be none. */
enum pc_serve pc_program_refuse_directory(struct pc_req *req);
enum pc_serve pc_program_refuse_missing(struct pc_req *req);

/* ------------------------------------------------------------------ proxy.c */

/* The first pass that fits req->path: 1 (then pass, back_end and filename are set), 0 none, or "!", <0 a pattern gave up. */
int pc_proxy_find(struct pc_req *req);
/* Nothing stands in the way: the protocol of req->back_end's gate, or why there is none. */
enum pc_serve pc_proxy_serve(struct pc_req *req);
/* Whether it is a "proxy:" whose URL is http: then the back end has the request, whether there is a file or not. */
bool pc_proxy_is_http_handler(struct pc_slice handler);
enum pc_serve pc_proxy_serve_handler(struct pc_req *req); /* of req->handler */

/* ------------------------------------------------------------------ serve.c */

/* Layers, access, limits, environment, redirections of sections, policy, handler: all that stands between a place and its
 * file. PC_SERVE_ON = serve the file. */
enum pc_serve pc_serve_check(struct pc_req *req);
/* An error: ErrorDocument (then perhaps PC_SERVE_AGAIN) or our own page. */
enum pc_serve pc_serve_fail(struct pc_req *req, uint32_t status);
enum pc_serve pc_serve_refuse_method(struct pc_req *req); /* one that nobody knows */
/* A redirection to an absolute URL. */
enum pc_serve pc_serve_redirect(struct pc_req *req, uint32_t status, struct pc_slice url);
/* For gate.c, which makes a response of a program's answer: begin with none; end with what every response gets. */
void pc_serve_reset(struct pc_req *req);
void pc_serve_finish(struct pc_req *req);
/* The request becomes a GET for `target` (path and query); pc_serve does the rest. 0 or -PC_E_*. */
int pc_serve_go_to(struct pc_req *req, struct pc_slice target);
/* The request becomes one for `target` with its method and body: PC_SERVE_AGAIN, or an error. */
enum pc_serve pc_serve_go_along(struct pc_req *req, struct pc_slice target);
uint64_t pc_serve_body_limit(const struct pc_req *req); /* LimitRequestBody, 0 = none */
bool pc_serve_passes_auth(const struct pc_req *req);    /* CGIPassAuth */
/* The ServerSignature line as HTML, empty when off. */
struct pc_slice pc_serve_signature(struct pc_req *req);
/* Method as the file sees it: an ErrorDocument is always got. */
uint8_t pc_serve_method(const struct pc_req *req);

/* The slice member at `offset` of struct pc_settings, in the most specific layer that sets it; base NULL = none does. */
static inline struct pc_slice
pc_layers_slice(const struct pc_req *req, size_t offset)
{
    for (uint32_t i = req->layer_count; i-- > 0;) {
        const struct pc_slice *slice = (const struct pc_slice *)(const void *)((const char *)req->layers[i] + offset);
        if (slice->base != NULL)
            return *slice;
    }
    return (struct pc_slice){0};
}
#define PC_LAYERS_SLICE(req, member) pc_layers_slice(req, offsetof(struct pc_settings, member))

#endif
