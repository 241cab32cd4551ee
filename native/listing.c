/* listing.c - a directory as a page: httpd's fancy index, as HTML5.
 * Runs as:  child, as the identity that owns the host.   Sees: names, sizes and times of the host's files.
 * Trusts:   nothing.   Distrusts: the names (any bytes but '/' and NUL), the query.
 * Before:   file.c   After: respond.c
 *
 * Shown is what a request would get: hidden names, links that the policy does not follow, names that a section denies, and
 * what is neither file nor directory are left out. Reading a directory can take its time, so a thread that leads does not. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* qsort_r, O_PATH */
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "serve.h"

struct entry {
    struct pc_slice name; /* a directory's ends with '/' */
    int64_t modified_s;
    uint64_t size;
    bool is_directory;
};

struct order {
    char column; /* 'N', 'M', 'S' */
    bool descending;
};

struct listing {
    struct pc_req *req;
    int dir_fd;
    struct entry *entries;
    uint32_t count, cap;
    bool is_cut;
    struct order order;
    char *path, *filename; /* the directory's, each with room for a name behind it */
};

/* ------------------------------------------------------------------ which names */

/* IndexIgnore as httpd's shipped configuration has it; "." and ".." are caught by the first two. */
static bool
is_hidden(struct pc_slice name)
{
    static const struct pc_slice patterns[] = {
        {".", 1}, {"..", 2}, {".??*", 4}, {"*~", 2}, {"*#", 2}, {"RCS", 3}, {"CVS", 3}, {"*,v", 3}, {"*,t", 3},
    };
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (pc_wild_match(patterns[i], name, false, false))
            return true;
    return false;
}

/* A link is shown if it would be followed: its target is ours, or below this directory. */
static bool
may_follow(const struct listing *listing, const char *name, const struct stat *target)
{
    const uint32_t options = listing->req->options;
    if ((options & (PC_OPT_FOLLOWSYMLINKS | PC_OPT_SYMLINKSIFOWNERMATCH)) == 0)
        return false;
    if (target->st_uid == geteuid())
        return true;
    if ((options & PC_OPT_FOLLOWSYMLINKS) == 0)
        return false;
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, listing->dir_fd, name, &how, sizeof how);
    if (fd < 0)
        return false;
    (void)close((int)fd); /* O_PATH: nothing to lose */
    return true;
}

/* What the sections say of the name. The request is left as it was. */
static bool
is_allowed(struct listing *listing, struct pc_slice name, bool is_directory)
{
    struct pc_req *req = listing->req;
    const struct pc_settings *layers[PC_MAX_LAYERS];
    const struct pc_slice path = req->path, filename = req->filename;
    const uint32_t layer_count = req->layer_count, options = req->options;
    if (req->host->section_count == 0)
        return true;
    memcpy(layers, req->layers, layer_count * sizeof *layers);
    memcpy(listing->path + path.len, name.base, name.len); /* UNSAFE: read_entries made room for NAME_MAX and two more */
    memcpy(listing->filename + filename.len, name.base, name.len); /* UNSAFE: likewise */
    size_t len = name.len;
    if (is_directory)
        listing->path[path.len + len] = listing->filename[filename.len + len] = '/', len++;
    listing->path[path.len + len] = listing->filename[filename.len + len] = '\0';
    req->path = (struct pc_slice){listing->path, path.len + len};
    req->filename = (struct pc_slice){listing->filename, filename.len + len};
    pc_map_layers(req);
    bool allowed = req->layer_count > 0 && pc_access_judge(req) == 0;
    req->path = path;
    req->filename = filename;
    req->options = options;
    req->layer_count = layer_count;
    memcpy(req->layers, layers, layer_count * sizeof *layers);
    return allowed;
}

static void
add_entry(struct listing *listing, struct pc_slice name, const struct stat *st)
{
    struct pc_arena *arena = listing->req->arena;
    if (listing->count == listing->cap) {
        uint32_t cap = listing->cap > 0 ? 2 * listing->cap : 64;
        struct entry *larger = pc_arena_alloc(arena, cap * sizeof *larger);
        if (listing->count > 0)
            memcpy(larger, listing->entries, listing->count * sizeof *larger);
        listing->entries = larger;
        listing->cap = cap;
    }
    bool is_directory = S_ISDIR(st->st_mode);
    struct pc_slice copy = pc_arena_copy(arena, name);
    if (is_directory)
        copy = pc_arena_print(arena, "%.*s/", (int)name.len, name.base);
    listing->entries[listing->count++] = (struct entry){
        .name = copy, .modified_s = st->st_mtim.tv_sec, .size = is_directory ? 0 : (uint64_t)st->st_size,
        .is_directory = is_directory,
    };
}

static void
consider(struct listing *listing, const char *raw_name)
{
    struct pc_slice name = {raw_name, strlen(raw_name)};
    struct stat st;
    if (is_hidden(name) || fstatat(listing->dir_fd, raw_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (S_ISLNK(st.st_mode)
        && (fstatat(listing->dir_fd, raw_name, &st, 0) != 0 || !may_follow(listing, raw_name, &st)))
        return;
    if ((!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) || !is_allowed(listing, name, S_ISDIR(st.st_mode)))
        return;
    if (listing->count == PC_MAX_LISTING_ENTRIES)
        listing->is_cut = true;
    else
        add_entry(listing, name, &st);
}

/* Returns 0 or an errno. */
static int
read_entries(struct listing *listing, DIR *dir)
{
    struct pc_req *req = listing->req;
    listing->path = pc_arena_alloc(req->arena, req->path.len + NAME_MAX + 2);
    listing->filename = pc_arena_alloc(req->arena, req->filename.len + NAME_MAX + 2);
    memcpy(listing->path, req->path.base, req->path.len);
    memcpy(listing->filename, req->filename.base, req->filename.len);
    while (!listing->is_cut) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL)
            return errno;
        if (strlen(entry->d_name) <= NAME_MAX)
            consider(listing, entry->d_name);
    }
    return 0;
}

/* ------------------------------------------------------------------ order */

/* "C=N;O=D", as the column heads link to. What is not understood is as if it were absent. */
static struct order
read_order(struct pc_slice query)
{
    struct order order = {.column = 'N'};
    for (size_t i = 0; i + 2 < query.len; i++) {
        bool starts = i == 0 || query.base[i - 1] == ';' || query.base[i - 1] == '&';
        bool ends = i + 3 == query.len || query.base[i + 3] == ';' || query.base[i + 3] == '&';
        char value = query.base[i + 2];
        if (!starts || !ends || query.base[i + 1] != '=')
            continue;
        if (query.base[i] == 'C' && (value == 'N' || value == 'M' || value == 'S'))
            order.column = value;
        if (query.base[i] == 'O')
            order.descending = value == 'D';
    }
    return order;
}

static int
compare_names(struct pc_slice a, struct pc_slice b)
{
    int result = memcmp(a.base, b.base, a.len < b.len ? a.len : b.len);
    if (result != 0)
        return result;
    return a.len < b.len ? -1 : a.len > b.len;
}

static int
compare(const void *left, const void *right, void *with)
{
    const struct entry *a = left, *b = right;
    const struct order *order = with;
    int result = 0;
    if (order->column == 'M')
        result = (a->modified_s > b->modified_s) - (a->modified_s < b->modified_s);
    else if (order->column == 'S')
        result = (a->size > b->size) - (a->size < b->size);
    if (result == 0)
        result = compare_names(a->name, b->name);
    return order->descending ? -result : result;
}

/* ------------------------------------------------------------------ text */

struct text {
    struct pc_arena *arena;
    char *base;
    size_t len, cap;
};

static char *
room(struct text *text, size_t len)
{
    if (text->cap - text->len < len) {
        size_t cap = 2 * text->cap + len + 4096;
        char *larger = pc_arena_alloc(text->arena, cap);
        if (text->len > 0)
            memcpy(larger, text->base, text->len);
        text->base = larger;
        text->cap = cap;
    }
    return text->base + text->len;
}

static void
put(struct text *text, struct pc_slice s)
{
    char *out = room(text, s.len);
    if (s.len > 0)
        memcpy(out, s.base, s.len); /* UNSAFE: room made it */
    text->len += s.len;
}

/* Control bytes have no place in HTML, escaped or not. */
static void
put_html(struct text *text, struct pc_slice s)
{
    char *out = room(text, 6 * s.len);
    size_t len = pc_escape_html(s, out);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
            out[i] = '?';
    text->len += len;
}

static void
put_href(struct text *text, struct pc_slice name)
{
    char *escaped = pc_arena_alloc(text->arena, 3 * name.len);
    put_html(text, (struct pc_slice){escaped, pc_escape_path(name, escaped)});
}

/* As apr_strfsize: at most three digits and a unit. */
static void
put_size(struct text *text, uint64_t size)
{
    const char *unit = "KMGTPE";
    char out[32];
    size_t len = 0;
    if (size < 973) {
        put(text, (struct pc_slice){out, pc_number(out, size)});
        return;
    }
    uint64_t rest;
    for (;; unit++) {
        rest = size & 1023;
        size >>= 10;
        if (size < 973)
            break;
    }
    if (size < 9 || (size == 9 && rest < 973)) {
        rest = (rest * 5 + 256) / 512;
        size += rest >= 10;
        rest = rest >= 10 ? 0 : rest;
        len = pc_number(out, size);
        out[len++] = '.';
        len += pc_number(out + len, rest);
    } else {
        len = pc_number(out, size + (rest >= 512));
    }
    out[len++] = *unit;
    put(text, (struct pc_slice){out, len});
}

static void
put_time(struct text *text, int64_t unix_s)
{
    time_t when = (time_t)unix_s;
    struct tm parts;
    char out[32];
    if (localtime_r(&when, &parts) != NULL)
        put(text, (struct pc_slice){out, strftime(out, sizeof out, "%Y-%m-%d %H:%M", &parts)});
}

/* ------------------------------------------------------------------ the page */

static const char style[] =
    "<style>body{font-family:sans-serif;margin:1em}table{border-collapse:collapse;font-family:monospace}"
    "th,td{text-align:left;padding:.15em 1.5em .15em 0;vertical-align:top}th{border-bottom:1px solid}"
    "td:first-child{overflow-wrap:anywhere}td:nth-child(n+2){white-space:nowrap}td:nth-child(3){text-align:right}"
    "@media(max-width:40em){td,th{padding-right:.7em}td:nth-child(2){font-size:80%}}</style>\n";

static void
put_head(const struct listing *listing, struct text *text)
{
    const struct pc_slice path = listing->req->path;
    put(text, PC_S("<!DOCTYPE html>\n<html lang=\"en\"><head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Index of "));
    put_html(text, path);
    put(text, PC_S("</title>\n"));
    put(text, PC_S(style));
    put(text, PC_S("</head><body>\n<h1>Index of "));
    put_html(text, path);
    put(text, PC_S("</h1>\n"));
}

/* The column that the page is sorted by offers the other direction, the others the ascending one. */
static void
put_columns(const struct listing *listing, struct text *text)
{
    static const struct { char letter; const char *title; } columns[] = {
        {'N', "Name"}, {'M', "Last modified"}, {'S', "Size"},
    };
    put(text, PC_S("<table>\n<thead><tr>"));
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        bool reverses = listing->order.column == columns[i].letter && !listing->order.descending;
        put(text, pc_arena_print(text->arena, "<th scope=\"col\"><a href=\"?C=%c;O=%c\">%s</a></th>", columns[i].letter,
                                 reverses ? 'D' : 'A', columns[i].title));
    }
    put(text, PC_S("</tr></thead>\n<tbody>\n"));
}

static void
put_entry(const struct entry *entry, struct text *text)
{
    put(text, PC_S("<tr><td><a href=\""));
    put_href(text, entry->name);
    put(text, PC_S("\">"));
    put_html(text, entry->name);
    put(text, PC_S("</a></td><td>"));
    put_time(text, entry->modified_s);
    put(text, PC_S("</td><td>"));
    if (entry->is_directory)
        put(text, PC_S("-"));
    else
        put_size(text, entry->size);
    put(text, PC_S("</td></tr>\n"));
}

static struct pc_slice
make_page(struct listing *listing)
{
    struct text text = {.arena = listing->req->arena};
    put_head(listing, &text);
    put_columns(listing, &text);
    if (listing->req->path.len > 1)
        put(&text, PC_S("<tr><td><a href=\"../\">Parent Directory</a></td><td></td><td>-</td></tr>\n"));
    for (uint32_t i = 0; i < listing->count; i++)
        put_entry(&listing->entries[i], &text);
    put(&text, PC_S("</tbody>\n</table>\n"));
    if (listing->is_cut)
        put(&text, pc_arena_print(text.arena, "<p>There are more than %d names; only that many are shown.</p>\n",
                                  PC_MAX_LISTING_ENTRIES));
    put(&text, pc_serve_signature(listing->req));
    put(&text, PC_S("</body></html>\n"));
    return (struct pc_slice){text.base, text.len};
}

/* Takes dir_fd over. */
enum pc_serve
pc_listing_serve(struct pc_req *req, int dir_fd)
{
    struct listing listing = {.req = req, .dir_fd = dir_fd, .order = read_order(req->query)};
    if (!req->may_block) {
        (void)close(dir_fd); /* only opened to look at */
        return PC_SERVE_BLOCKS;
    }
    DIR *dir = fdopendir(dir_fd);
    if (dir == NULL) {
        int error = errno;
        (void)close(dir_fd); /* only opened to look at */
        return pc_file_refuse(req, error);
    }
    int error = read_entries(&listing, dir);
    (void)closedir(dir); /* closes dir_fd; only read from */
    if (error != 0)
        return pc_file_refuse(req, error);
    if (listing.count > 1)
        qsort_r(listing.entries, listing.count, sizeof *listing.entries, compare, &listing.order);
    struct pc_slice page = make_page(&listing);
    req->resp.status = req->error_status != 0 ? req->error_status : 200;
    req->resp.body = PC_BODY_MEMORY;
    req->resp.has_length = true;
    req->resp.memory = page;
    req->resp.length = page.len;
    req->resp.content_type = PC_S("text/html; charset=utf-8");
    pc_resp_add(req, PC_S("Content-Type"), req->resp.content_type);
    return PC_SERVED;
}
