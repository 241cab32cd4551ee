/* file.c - open what a path names below a held directory, and make it the response.
 * Runs as:  child, as the identity that owns the host.   Sees: the host's files.
 * Trusts:   the configured roots.   Distrusts: everything below them (the tenant may swap names for links at any moment) and
 *           the path: containment is the kernel's (openat2), never a comparison of strings; an owner is that of the opened
 *           descriptor, never of a name.
 * Before:   map.c, access.c   After: respond.c
 *
 * A root is opened once and looked at again every PC_DOCROOT_RECHECK_MS. One that was replaced by rename is put under the same
 * descriptor number by dup3, at once for every thread, so that no thread ever holds a closed number. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_PATH, dup3 */
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "serve.h"

#define OPEN_TRIES 16 /* openat2 says EAGAIN while somebody renames; a tenant who never stops gets 503 */
#define MAX_PATH_INFO_TRIES 64

/* ------------------------------------------------------------------ the held root */

static int
open_directory(struct pc_slice path)
{
    char name[PC_MAX_PATH_BYTES + 1];
    if (path.len > PC_MAX_PATH_BYTES) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, path.base, path.len);
    name[path.len] = '\0';
    return open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Look at one root again. What has gone or cannot be reached any more becomes something that is no directory: every lookup
 * says ENOTDIR until it is back. */
static void
recheck_root(struct pc_slice path, int held_fd)
{
    struct stat now, held;
    int fd = open_directory(path);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return; /* nothing learned; the next look is soon */
    if (fd < 0)
        fd = open("/dev/null", O_PATH | O_CLOEXEC);
    if (fd < 0)
        return;
    bool same = fstat(fd, &now) == 0 && fstat(held_fd, &held) == 0 && now.st_dev == held.st_dev && now.st_ino == held.st_ino;
    if (!same)
        (void)dup3(fd, held_fd, O_CLOEXEC); /* can only fail for lack of memory: the old root serves on */
    (void)close(fd); /* O_PATH: nothing to lose */
}

static void
recheck_roots(struct pc_host *host, uint64_t now_ns)
{
    if (pthread_mutex_trylock(&host->root_lock) != 0)
        return; /* another thread is at it */
    __atomic_store_n(&host->root_checked_ns, now_ns, __ATOMIC_RELAXED);
    if (host->root_fd >= 0)
        recheck_root(host->document_root, host->root_fd);
    for (uint32_t i = 0; i < host->alias_count; i++)
        if (host->aliases[i].root_fd >= 0)
            recheck_root(pc_map_alias_root(&host->aliases[i]), host->aliases[i].root_fd);
    (void)pthread_mutex_unlock(&host->root_lock);
}

/* The descriptor that paths of this place are opened below; -1 and errno. */
static int
hold_root(const struct pc_req *req, const struct pc_place *place)
{
    struct pc_host *host = req->host;
    int *held = place->alias != NULL ? &place->alias->root_fd : &host->root_fd;
    int fd = __atomic_load_n(held, __ATOMIC_ACQUIRE);
    if (fd >= 0) {
        uint64_t checked_ns = __atomic_load_n(&host->root_checked_ns, __ATOMIC_RELAXED);
        if (req->start_ns > checked_ns + PC_DOCROOT_RECHECK_MS * 1000000ull)
            recheck_roots(host, req->start_ns);
        return fd;
    }
    (void)pthread_mutex_lock(&host->root_lock); /* a plain mutex: cannot fail */
    fd = *held;
    if (fd < 0) {
        fd = open_directory(place->root);
        if (fd >= 0) {
            __atomic_store_n(held, fd, __ATOMIC_RELEASE);
            /* Of several roots the first sets the time; the others are looked at again a little early. */
            if (__atomic_load_n(&host->root_checked_ns, __ATOMIC_RELAXED) == 0)
                __atomic_store_n(&host->root_checked_ns, req->start_ns, __ATOMIC_RELAXED);
        }
    }
    int error = errno;
    (void)pthread_mutex_unlock(&host->root_lock);
    errno = error;
    return fd;
}

/* ------------------------------------------------------------------ opening */

static int
open_below(int root_fd, const char *relative, uint64_t resolve)
{
    struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, .resolve = resolve};
    const char *name = *relative != '\0' ? relative : ".";
    long fd = -1;
    for (int tries = 0; tries < OPEN_TRIES; tries++) {
        fd = syscall(SYS_openat2, root_fd, name, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return (int)fd;
}

/* Of a file that was reached over a link that needs the owner's consent: is it ours? By the open descriptor, so that nothing
 * can be swapped between looking and reading (the race behind httpd's SymLinksIfOwnerMatch). */
static int
only_own(int fd)
{
    struct stat st;
    if (fd < 0) {
        errno = errno == EXDEV ? ELOOP : errno;
        return -1;
    }
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid())
        return fd;
    (void)close(fd); /* only opened to look at */
    errno = ELOOP;
    return -1;
}

static int
open_by_policy(uint32_t options, int root_fd, const char *relative)
{
    const uint64_t beneath = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    int fd;
    if ((options & PC_OPT_FOLLOWSYMLINKS) != 0) {
        fd = open_below(root_fd, relative, beneath);
        if (fd < 0 && errno == EXDEV) /* a link leads out of the root */
            fd = only_own(open_below(root_fd, relative, RESOLVE_NO_MAGICLINKS));
        return fd;
    }
    fd = open_below(root_fd, relative, beneath | RESOLVE_NO_SYMLINKS);
    if (fd < 0 && errno == ELOOP && (options & PC_OPT_SYMLINKSIFOWNERMATCH) != 0)
        fd = only_own(open_below(root_fd, relative, beneath));
    return fd;
}

int
pc_file_open(struct pc_req *req, int root_fd, const char *relative, int *ret_fd, int *ret_errno)
{
    int fd = open_by_policy(req->options, root_fd, relative);
    if (fd < 0) {
        *ret_errno = errno;
        return -PC_E_SYS;
    }
    *ret_fd = fd;
    return 0;
}

struct refusal {
    int error;
    uint32_t status;
    enum pc_level level;
    const char *text;
};

static const struct refusal refusals[] = {
    {ENOENT, 404, PC_INFO, "AH00128: File does not exist"},
    {ENOTDIR, 404, PC_INFO, "AH00128: File does not exist"},
    {ENAMETOOLONG, 404, PC_INFO, "AH00036: File name too long"},
    {EACCES, 403, PC_ERROR, "AH00132: file permissions deny server access"},
    {EPERM, 403, PC_ERROR, "AH00132: file permissions deny server access"},
    {ELOOP, 403, PC_ERROR, "AH00037: Symbolic link not allowed or link target not accessible"},
    {EXDEV, 403, PC_ERROR, "AH00037: Symbolic link not allowed or link target not accessible"},
    {ENXIO, 403, PC_ERROR, "AH00030: neither a file nor a directory"}, /* a socket, a FIFO, a device */
    {EAGAIN, 503, PC_WARN, "AH00039: file is being renamed without end"},
    {EMFILE, 503, PC_ERROR, "AH00039: no descriptor is left to open a file"},
    {ENFILE, 503, PC_ERROR, "AH00039: no descriptor is left to open a file"},
    {ENOMEM, 503, PC_ERROR, "AH00039: no memory is left to open a file"},
    {0, 500, PC_ERROR, "AH00132: file cannot be opened"},
};

enum pc_serve
pc_file_refuse(struct pc_req *req, int error)
{
    const struct refusal *row = refusals;
    while (row->error != 0 && row->error != error)
        row++;
    enum pc_serve refused = row->status == 404 ? pc_program_refuse_missing(req) : PC_SERVE_ON;
    if (refused != PC_SERVE_ON)
        return refused;
    errno = error;
    pc_errlog_req(req, row->level, "core", "%s: %.*s", row->text, (int)req->filename.len, req->filename.base);
    return pc_serve_fail(req, row->status);
}

/* ------------------------------------------------------------------ validators */

static size_t
put_hex(char *out, uint64_t number)
{
    size_t len = 1;
    while (len < 16 && number >> (4 * len) != 0)
        len++;
    for (size_t i = len; i-- > 0; number >>= 4)
        out[i] = "0123456789abcdef"[number & 15];
    return len;
}

static uint32_t
etag_bits(const struct pc_req *req)
{
    uint32_t bits = PC_ETAG_MTIME | PC_ETAG_SIZE;
    for (uint32_t i = 0; i < req->layer_count; i++) {
        const struct pc_settings *layer = req->layers[i];
        if (layer->has_etag)
            bits = layer->etag_absolute ? layer->etag_add : (bits | layer->etag_add) & ~layer->etag_remove;
    }
    return bits;
}

/* httpd's shape: inode-size-mtime in hex, of those that FileETag names; weak while the file may still change within the
 * resolution of its time. */
static struct pc_slice
make_etag(const struct pc_req *req, const struct stat *st)
{
    const uint64_t mtime_us = (uint64_t)st->st_mtim.tv_sec * 1000000 + (uint64_t)st->st_mtim.tv_nsec / 1000;
    const uint64_t parts[] = {st->st_ino, (uint64_t)st->st_size, mtime_us};
    static const uint32_t wanted[] = {PC_ETAG_INODE, PC_ETAG_SIZE, PC_ETAG_MTIME};
    uint32_t bits = etag_bits(req);
    if (bits == 0)
        return (struct pc_slice){0};
    char *out = pc_arena_alloc(req->arena, 2 + 1 + 3 * 17 + 1);
    size_t len = 0;
    if (req->start_wall_us - (int64_t)mtime_us <= 1000000) {
        out[len++] = 'W';
        out[len++] = '/';
    }
    out[len++] = '"';
    bool is_first = true;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if ((bits & wanted[i]) == 0)
            continue;
        if (!is_first)
            out[len++] = '-';
        is_first = false;
        len += put_hex(out + len, parts[i]);
    }
    out[len++] = '"';
    return (struct pc_slice){out, len};
}

static struct pc_validators
make_validators(const struct pc_req *req, const struct stat *st)
{
    int64_t now_s = req->start_wall_us / 1000000;
    struct pc_validators validators = {.etag = make_etag(req, st), .modified_s = st->st_mtim.tv_sec};
    if (validators.modified_s > now_s) /* RFC 9110 8.8.2.1 */
        validators.modified_s = now_s;
    return validators;
}

/* ------------------------------------------------------------------ ranges */

/* "bytes first-last/size" */
static struct pc_slice
content_range(struct pc_req *req, const struct pc_range *range, uint64_t size)
{
    char *out = pc_arena_alloc(req->arena, 6 + 3 * 20 + 2);
    size_t len = 6;
    memcpy(out, "bytes ", 6);
    len += pc_number(out + len, range->first);
    out[len++] = '-';
    len += pc_number(out + len, range->first + range->length - 1);
    out[len++] = '/';
    len += pc_number(out + len, size);
    return (struct pc_slice){out, len};
}

static void
answer_parts(struct pc_req *req, const struct pc_range *ranges, uint32_t count, uint64_t size)
{
    struct pc_resp *resp = &req->resp;
    struct pc_slice type = resp->content_type;
    char boundary[40];
    size_t boundary_len = put_hex(boundary, pc_now_ns());
    boundary_len += put_hex(boundary + boundary_len, req->id);
    resp->parts = pc_arena_alloc(req->arena, (count + 1) * sizeof *resp->parts);
    resp->part_count = count + 1;
    resp->body = PC_BODY_PARTS;
    resp->length = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct pc_slice range = content_range(req, &ranges[i], size);
        struct pc_slice text = pc_arena_print(
            req->arena, "\r\n--%.*s\r\n%s%.*s%sContent-Range: %.*s\r\n\r\n", (int)boundary_len, boundary,
            type.len > 0 ? "Content-Type: " : "", (int)type.len, type.len > 0 ? type.base : "", type.len > 0 ? "\r\n" : "",
            (int)range.len, range.base);
        resp->parts[i] = (struct pc_part){.text = text, .offset = ranges[i].first, .length = ranges[i].length};
        resp->length += text.len + ranges[i].length;
    }
    struct pc_slice end = pc_arena_print(req->arena, "\r\n--%.*s--\r\n", (int)boundary_len, boundary);
    resp->parts[count] = (struct pc_part){.text = end};
    resp->length += end.len;
    resp->content_type = pc_arena_print(req->arena, "multipart/byteranges; boundary=%.*s", (int)boundary_len, boundary);
}

/* Narrow the whole file to what Range asks for. False: nothing that it asks for exists. */
static bool
apply_ranges(struct pc_req *req, const struct pc_head *head, uint64_t size)
{
    struct pc_range ranges[PC_MAX_RANGES];
    struct pc_resp *resp = &req->resp;
    struct pc_slice value = pc_head_field(head, req->raw, PC_F_RANGE);
    int count = value.base != NULL ? pc_range_parse(value, size, ranges) : 0;
    if (count == 0)
        return true;
    if (count < 0)
        return false;
    resp->status = 206;
    if (count > 1) {
        answer_parts(req, ranges, (uint32_t)count, size);
        return true;
    }
    resp->offset = ranges[0].first;
    resp->length = ranges[0].length;
    pc_resp_add(req, PC_S("Content-Range"), content_range(req, &ranges[0], size));
    return true;
}

/* ------------------------------------------------------------------ methods */

static bool
is_file_method(const struct pc_req *req)
{
    uint8_t method = pc_serve_method(req);
    return method == PC_GET || method == PC_HEAD || method == PC_POST;
}

/* What a file says to any other method. */
static enum pc_serve
answer_method(struct pc_req *req)
{
    uint8_t method = pc_serve_method(req);
    if (method == PC_METHOD_OTHER)
        return pc_serve_refuse_method(req);
    if (method != PC_OPTIONS) {
        enum pc_serve served = pc_serve_fail(req, 405);
        pc_resp_set(req, PC_S("Allow"), PC_S(PC_FILE_METHODS));
        return served;
    }
    req->resp.status = 200;
    req->resp.body = PC_BODY_NONE;
    req->resp.has_length = true;
    req->resp.length = 0;
    pc_resp_add(req, PC_S("Allow"), PC_S(PC_FILE_METHODS));
    return PC_SERVED;
}

/* ------------------------------------------------------------------ a regular file */

static void
close_file(struct pc_req *req)
{
    (void)close(req->resp.fd); /* only read from */
    req->resp.fd = -1;
    req->resp.body = PC_BODY_NONE;
    req->resp.length = 0;
}

static void
add_validators(struct pc_req *req, const struct pc_validators *validators)
{
    char *date = pc_arena_alloc(req->arena, 29);
    pc_date_format(validators->modified_s, date);
    pc_resp_add(req, PC_S("Last-Modified"), (struct pc_slice){date, 29});
    if (validators->etag.len > 0)
        pc_resp_add(req, PC_S("ETag"), validators->etag);
}

static void
add_media(struct pc_req *req, const struct pc_media *media)
{
    if (media->encoding.len > 0)
        pc_resp_add(req, PC_S("Content-Encoding"), media->encoding);
    if (req->resp.content_type.len > 0)
        pc_resp_add(req, PC_S("Content-Type"), req->resp.content_type);
    else /* without a type browsers guess; a text that holds a script would become a page */
        pc_resp_add(req, PC_S("X-Content-Type-Options"), PC_S("nosniff"));
}

static enum pc_serve
refuse_range(struct pc_req *req, uint64_t size)
{
    close_file(req);
    enum pc_serve served = pc_serve_fail(req, 416);
    pc_resp_set(req, PC_S("Content-Range"), pc_arena_print(req->arena, "bytes */%llu", (unsigned long long)size));
    return served;
}

/* Takes fd over. */
static enum pc_serve
serve_regular(struct pc_req *req, int fd, const struct stat *st)
{
    struct pc_resp *resp = &req->resp;
    struct pc_media media;
    uint64_t size = (uint64_t)st->st_size;
    bool may_range = false;
    resp->fd = fd;
    pc_media_find(req, req->filename, &media);
    enum pc_maker maker = pc_program_maker(req, media.type);
    if (maker != PC_MAKER_FILE || !is_file_method(req)) {
        close_file(req);
        return maker != PC_MAKER_FILE ? pc_program_serve(req, maker) : answer_method(req);
    }
    resp->body = PC_BODY_FILE;
    resp->has_length = true;
    resp->offset = 0;
    resp->length = size;
    resp->content_type = media.type;
    resp->status = req->error_status != 0 ? req->error_status : 200;
    if (req->error_status == 0) {
        struct pc_validators validators = make_validators(req, st);
        const struct pc_head *head = pc_fields_head(req);
        int status = pc_cond_check(head, req->raw, &validators, &may_range);
        if (status == 412) {
            close_file(req);
            return pc_serve_fail(req, 412);
        }
        add_validators(req, &validators);
        if (status == 304) {
            close_file(req);
            resp->status = 304;
            return PC_SERVED;
        }
        pc_resp_add(req, PC_S("Accept-Ranges"), PC_S("bytes"));
        if (may_range && !apply_ranges(req, head, size))
            return refuse_range(req, size);
    }
    add_media(req, &media);
    return PC_SERVED;
}

/* ------------------------------------------------------------------ directories */

static enum pc_serve
redirect_to_slash(struct pc_req *req)
{
    if (!is_file_method(req))
        return answer_method(req);
    struct pc_slice self = pc_map_self(req), path = pc_map_escape(req, req->path);
    bool has_query = req->query.base != NULL;
    struct pc_slice url = pc_arena_print(req->arena, "%.*s%.*s/%s%.*s", (int)self.len, self.base, (int)path.len, path.base,
                                         has_query ? "?" : "", (int)req->query.len, has_query ? req->query.base : "");
    return pc_serve_redirect(req, 301, url);
}

static struct pc_slice
join(struct pc_req *req, struct pc_slice a, struct pc_slice b)
{
    char *out = pc_arena_alloc(req->arena, a.len + b.len + 1);
    memcpy(out, a.base, a.len);
    memcpy(out + a.len, b.base, b.len);
    out[a.len + b.len] = '\0';
    return (struct pc_slice){out, a.len + b.len};
}

/* The index file is there: the request becomes one for it, and what applies to it is looked up again unless it cannot differ.
 * Takes fd over. */
static enum pc_serve
serve_index(struct pc_req *req, int fd, const struct stat *st, struct pc_slice name)
{
    const struct pc_host *host = req->host;
    req->path = join(req, req->path, name);
    req->filename = join(req, req->filename, name);
    if (host->alias_count > 0 || host->base.redirect_count > 0) {
        (void)close(fd); /* only read from; it may turn out to be another file */
        return PC_SERVE_AGAIN;
    }
    enum pc_serve served = host->has_location_or_files ? pc_serve_check(req) : PC_SERVE_ON;
    if (served == PC_SERVE_ON)
        return serve_regular(req, fd, st);
    (void)close(fd); /* only read from */
    return served;
}

static enum pc_serve
serve_listing(struct pc_req *req, int root_fd, const char *relative)
{
    int fd = -1, error = 0;
    struct stat st;
    if (pc_file_open(req, root_fd, relative, &fd, &error) != 0)
        return pc_file_refuse(req, error);
    if (fstat(fd, &st) != 0 || !S_ISDIR(st.st_mode)) {
        (void)close(fd); /* only read from */
        return pc_file_refuse(req, ENOTDIR);
    }
    enum pc_serve refused = pc_program_refuse_directory(req);
    if (refused == PC_SERVE_ON && !is_file_method(req))
        refused = answer_method(req);
    if (refused == PC_SERVE_ON && pc_serve_method(req) == PC_POST) { /* a listing takes no data; what httpd answers */
        pc_errlog_req(req, PC_INFO, "core", "AH00129: Attempt to serve directory: %.*s", (int)req->filename.len, req->filename.base);
        refused = pc_serve_fail(req, 404);
    }
    if (refused == PC_SERVE_ON && (req->options & PC_OPT_INDEXES) != 0)
        return pc_listing_serve(req, fd);
    (void)close(fd); /* only read from */
    if (refused != PC_SERVE_ON)
        return refused;
    pc_errlog_req(req, PC_ERROR, "autoindex",
                  "AH01276: Cannot serve directory %.*s: No matching DirectoryIndex found, and server-generated directory "
                  "index forbidden by Options directive", (int)req->filename.len, req->filename.base);
    return pc_serve_fail(req, 403);
}

static const struct pc_slice default_index = {"index.html", 10};

static const struct pc_slice *
index_names(const struct pc_req *req, uint32_t *ret_count)
{
    for (uint32_t i = req->layer_count; i-- > 0;) {
        if (req->layers[i]->has_index) {
            *ret_count = req->layers[i]->index_count;
            return req->layers[i]->index;
        }
    }
    *ret_count = 1;
    return &default_index;
}

/* A name with a slash before it is a URL path. */
static enum pc_serve
go_to_index(struct pc_req *req, struct pc_slice name)
{
    req->path = pc_arena_copy(req->arena, name);
    return PC_SERVE_AGAIN;
}

static enum pc_serve serve_path_info(struct pc_req *req, int root_fd, const char *relative);

/* A path that ends with a slash. The first index name is opened at once: of the usual request for a directory the directory
 * itself is never looked at. */
static enum pc_serve
serve_directory(struct pc_req *req, int root_fd, const char *relative)
{
    struct pc_slice at = {relative, strlen(relative)};
    uint32_t count;
    const struct pc_slice *names = index_names(req, &count);
    int kept_error = 0;
    for (uint32_t i = 0; i < count; i++) {
        int fd = -1, error = 0;
        struct stat st;
        if (names[i].len > 0 && names[i].base[0] == '/')
            return go_to_index(req, names[i]);
        int opened = pc_file_open(req, root_fd, join(req, at, names[i]).base, &fd, &error);
        if (opened == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            return serve_index(req, fd, &st, names[i]);
        if (opened == 0)
            (void)close(fd); /* only opened to look at */
        else if (error == ENOTDIR)
            return serve_path_info(req, root_fd, relative);
        else if (error != ENOENT && error != ENAMETOOLONG)
            kept_error = error;
    }
    if (kept_error != 0)
        return pc_file_refuse(req, kept_error);
    return serve_listing(req, root_fd, relative);
}

/* ------------------------------------------------------------------ what is behind a file's name */

/* AcceptPathInfo: 1, 0, or -1 by default: a program takes it, a file does not. */
static int32_t
accept_path_info(const struct pc_req *req)
{
    int32_t accept = -1;
    for (uint32_t i = req->layer_count; i-- > 0 && accept < 0;)
        accept = req->layers[i]->accept_path_info;
    return accept;
}

/* The file that was found in the middle of a path. Takes fd over. */
static enum pc_serve
serve_with_rest(struct pc_req *req, int fd, const struct stat *st, struct pc_slice whole)
{
    struct pc_media media;
    int32_t accept = accept_path_info(req);
    if (accept != 1) {
        pc_media_find(req, req->filename, &media);
        bool is_program = req->host->has_programs && pc_program_maker(req, media.type) != PC_MAKER_FILE;
        if (!is_program || accept == 0) {
            (void)close(fd); /* only opened to look at */
            if (is_program)
                pc_errlog_req(req, PC_ERROR, "cgi", "AH02813: AcceptPathInfo off disallows user's path: %.*s", (int)whole.len, whole.base);
            req->filename = whole;
            req->path_info = (struct pc_slice){0};
            return is_program ? pc_serve_fail(req, 404) : pc_file_refuse(req, ENOTDIR);
        }
    }
    return serve_regular(req, fd, st);
}

/* "a.html/b/c": some part of the path is a file. Find it, and ask again for what applies to it. */
static enum pc_serve
serve_path_info(struct pc_req *req, int root_fd, const char *relative)
{
    size_t len = strlen(relative), before = req->filename.len - len;
    struct pc_slice whole = req->filename;
    if ((accept_path_info(req) != 1 && !req->host->has_programs) || req->path_info.len > 0)
        return pc_file_refuse(req, ENOTDIR);
    for (int tries = 0; tries < MAX_PATH_INFO_TRIES; tries++) {
        int fd = -1, error = 0;
        struct stat st;
        do /* to the next slash */
            len = len > 0 ? len - 1 : 0;
        while (len > 0 && relative[len] != '/');
        if (len == 0)
            break;
        struct pc_slice name = pc_arena_copy(req->arena, (struct pc_slice){relative, len});
        if (pc_file_open(req, root_fd, name.base, &fd, &error) != 0) {
            if (error == ENOTDIR)
                continue;
            return pc_file_refuse(req, error);
        }
        bool is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
        req->path_info = (struct pc_slice){relative + len, strlen(relative + len)};
        req->filename = pc_arena_copy(req->arena, (struct pc_slice){req->filename.base, before + len});
        enum pc_serve served = is_file ? pc_serve_check(req) : PC_SERVE_ON;
        if (is_file && served == PC_SERVE_ON)
            return serve_with_rest(req, fd, &st, whole);
        (void)close(fd); /* only opened to look at */
        return is_file ? served : pc_file_refuse(req, ENOTDIR);
    }
    return pc_file_refuse(req, ENOTDIR);
}

/* ------------------------------------------------------------------ by method and kind */

static enum pc_serve
serve_below(struct pc_req *req, int root_fd, const char *relative)
{
    int fd = -1, error = 0;
    struct stat st;
    if (req->filename.base[req->filename.len - 1] == '/')
        return serve_directory(req, root_fd, relative);
    if (pc_file_open(req, root_fd, relative, &fd, &error) != 0)
        return error == ENOTDIR ? serve_path_info(req, root_fd, relative) : pc_file_refuse(req, error);
    if (fstat(fd, &st) != 0)
        error = errno;
    else if (S_ISREG(st.st_mode))
        return serve_regular(req, fd, &st);
    else if (!S_ISDIR(st.st_mode))
        error = ENXIO;
    (void)close(fd); /* only opened to look at */
    if (error != 0)
        return pc_file_refuse(req, error);
    if (req->path.base[req->path.len - 1] != '/')
        return redirect_to_slash(req);
    /* AliasMatch made a path without a slash of one that has it: sending the client there again would never end. */
    req->filename = join(req, req->filename, PC_S("/"));
    return serve_directory(req, root_fd, join(req, (struct pc_slice){relative, strlen(relative)}, PC_S("/")).base);
}

/* An alias for one file, and what may be behind its name: its directory is opened for this request. */
static enum pc_serve
serve_file_alias(struct pc_req *req, const struct pc_place *place)
{
    struct pc_slice root = place->root; /* filename begins with it */
    while (root.len > 1 && root.base[root.len - 1] != '/')
        root.len--;
    int root_fd = open_directory(root);
    if (root_fd < 0)
        return pc_file_refuse(req, errno);
    struct pc_slice rest = {req->filename.base + root.len, req->filename.len - root.len};
    enum pc_serve served = serve_below(req, root_fd, pc_arena_copy(req->arena, rest).base);
    (void)close(root_fd); /* O_PATH: nothing to lose */
    return served;
}

enum pc_serve
pc_file_serve_at(struct pc_req *req, const struct pc_place *place)
{
    if (!is_file_method(req) && !req->host->has_programs) /* else the file decides: it may be a program */
        return answer_method(req);
    int root_fd = hold_root(req, place);
    if (root_fd >= 0)
        return serve_below(req, root_fd, place->relative);
    if (errno == ENOTDIR && place->alias != NULL && place->root.len > 1)
        return serve_file_alias(req, place);
    return pc_file_refuse(req, errno);
}

enum pc_serve
pc_file_serve_text(struct pc_req *req, const struct pc_place *place)
{
    struct pc_resp *resp = &req->resp;
    int root_fd = hold_root(req, place), fd = -1, error = 0;
    struct stat st;
    if (root_fd < 0 || pc_file_open(req, root_fd, place->relative, &fd, &error) != 0)
        return PC_SERVE_ON;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd); /* only opened to look at */
        return PC_SERVE_ON;
    }
    resp->fd = fd;
    resp->body = PC_BODY_FILE;
    resp->has_length = true;
    resp->offset = 0;
    resp->length = (uint64_t)st.st_size;
    resp->status = 200;
    resp->content_type = PC_S("text/plain");
    pc_resp_add(req, PC_S("Content-Type"), resp->content_type);
    return PC_SERVED;
}

enum pc_serve
pc_file_serve(struct pc_req *req)
{
    struct pc_place place;
    int placed = pc_map_place(req, &place);
    if (placed != 0)
        return pc_serve_fail(req, placed == -PC_E_FORBIDDEN ? 403 : 404);
    return pc_file_serve_at(req, &place);
}
