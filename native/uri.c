/* uri.c - a request's path, decoded once and normalised.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes.
 * Trusts:   nothing.   Distrusts: every byte.
 * Before:   request.c   After: map.c, file.c
 *
 * Decoding comes first and happens once, dots and slashes are judged on what it gave: "%2e%2e" is
 * "..", "%252e" is the file name "%2e" (CVE-2021-41773, CVE-2021-42013). A "/" that was written
 * "%2f" is never a separator: 404. */
#include <string.h>

#include "pc.h"

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One byte of the path, decoded. Returns bytes read, -PC_E_BAD or -PC_E_NOT_FOUND. */
static int
decode_byte(struct pc_slice path, size_t at, char *ret_byte)
{
    char c = path.base[at];
    int read_count = 1;

    if (c == '%') {
        int high = path.len - at > 2 ? hex_value(path.base[at + 1]) : -1;
        int low = high >= 0 ? hex_value(path.base[at + 2]) : -1;

        if (low < 0)
            return -PC_E_BAD;
        c = (char)(high * 16 + low);
        if (c == '/')
            return -PC_E_NOT_FOUND;
        read_count = 3;
    }
    if ((uint8_t)c < 0x20 || c == 0x7f)
        return -PC_E_BAD;
    *ret_byte = c;
    return read_count;
}

/* The segment out[from..to) is complete. Drops "." and, for "..", its parent. Returns the new end,
 * -PC_E_BAD above the root. out[from - 1] is the slash before it. */
static ssize_t
close_segment(const char *out, size_t from, size_t to)
{
    if (to - from == 1 && out[from] == '.')
        return (ssize_t)from;
    if (to - from != 2 || out[from] != '.' || out[from + 1] != '.')
        return (ssize_t)to;
    if (from == 1)
        return -PC_E_BAD;
    from--; /* the slash between parent and ".." */
    while (out[from - 1] != '/')
        from--;
    return (ssize_t)from;
}

int
pc_uri_decode_path(struct pc_slice raw, char *out, size_t cap)
{
    struct pc_slice path, query;
    size_t at = 1, end = 1, segment = 1; /* out[segment..end) is being written */
    ssize_t closed;

    pc_uri_split(raw, &path, &query);
    if (path.len == 0 || path.base[0] != '/')
        return -PC_E_BAD;
    if (path.len >= cap || path.len > INT32_MAX)
        return -PC_E_URI_LONG;
    out[0] = '/';
    while (at < path.len) {
        char c;
        int read_count;

        if (path.base[at] == '/') {
            closed = close_segment(out, segment, end);
            if (closed < 0)
                return (int)closed;
            end = (size_t)closed;
            if (out[end - 1] != '/')
                out[end++] = '/';
            segment = end;
            at++;
            continue;
        }
        read_count = decode_byte(path, at, &c);
        if (read_count < 0)
            return read_count;
        out[end++] = c; /* UNSAFE: end <= at + 1 < cap, for no byte read gives more than one */
        at += (size_t)read_count;
    }
    closed = close_segment(out, segment, end);
    if (closed < 0)
        return (int)closed;
    out[closed] = '\0';
    return (int)closed;
}

void
pc_uri_split(struct pc_slice target, struct pc_slice *ret_path, struct pc_slice *ret_query)
{
    const char *mark = target.len == 0 ? NULL : memchr(target.base, '?', target.len);

    *ret_path = target;
    *ret_query = (struct pc_slice){0};
    if (mark == NULL)
        return;
    ret_path->len = (size_t)(mark - target.base);
    *ret_query = (struct pc_slice){.base = mark + 1, .len = target.len - ret_path->len - 1};
}
