/* escape.c - make foreign bytes harmless in HTML, in URLs and in logs.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes, file names.
 * Trusts:   its caller's room.   Distrusts: the bytes.
 * Before:   listing.c, serve.c, format.c   After: respond.c, log.c */
#include <string.h>

#include "pc.h"

static const char hex_digits[] =
    "0123456789abcdef"; /* lower case, as httpd writes them in logs and URLs */

size_t
pc_escape_html(struct pc_slice s, char *out)
{
    size_t used = 0, i;

    for (i = 0; i < s.len; i++) {
        struct pc_slice text = {.base = s.base + i, .len = 1};

        switch (s.base[i]) {
        case '&':
            text = PC_S("&amp;");
            break;
        case '<':
            text = PC_S("&lt;");
            break;
        case '>':
            text = PC_S("&gt;");
            break;
        case '"':
            text = PC_S("&quot;");
            break;
        case '\'':
            text = PC_S("&#39;");
            break;
        default:
            break;
        }
        memcpy(out + used, text.base,
               text.len); /* UNSAFE: the caller has 6 bytes for each of ours */
        used += text.len;
    }
    return used;
}

/* Unreserved bytes, and of the others those that mean nothing inside a path. Not ':': "a:b" in a
 * listing would be a scheme. */
static bool
is_path_byte(char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return memchr("/-._~!$*(),@=+", c, 14) != NULL;
}

size_t
pc_escape_path(struct pc_slice s, char *out)
{
    size_t used = 0, i;

    for (i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.base[i];

        if (is_path_byte(s.base[i])) {
            out[used++] = s.base[i];
            continue;
        }
        out[used++] = '%';
        out[used++] = hex_digits[c >> 4];
        out[used++] = hex_digits[c & 15];
    }
    return used;
}

/* The letter behind a backslash that stands for the byte, 0 = none. The set of httpd's
 * ap_escape_logitem. */
static char
log_letter(char c)
{
    switch (c) {
    case '"':
    case '\\':
        return c;
    case '\b':
        return 'b';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\v':
        return 'v';
    default:
        return 0;
    }
}

size_t
pc_escape_log(struct pc_slice s, char *out)
{
    size_t used = 0, i;

    for (i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.base[i];
        char letter = log_letter(s.base[i]);

        if (letter == 0 && c >= 0x20 && c <= 0x7e) {
            out[used++] = s.base[i];
            continue;
        }
        out[used++] = '\\';
        if (letter != 0) {
            out[used++] = letter;
            continue;
        }
        out[used++] = 'x';
        out[used++] = hex_digits[c >> 4];
        out[used++] = hex_digits[c & 15];
    }
    return used;
}
