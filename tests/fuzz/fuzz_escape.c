/* Invariant: the output stays within its stated worst case and holds no byte it exists to keep out;
 * nothing is lost: log escapes and path escapes can be undone. */
/* sources: escape.c uri.c util.c */
/* seeds: uri */
#include "pc.h"

#include "fuzz.h"

static int
hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c - 'a' + 10;
}

/* Undo pc_escape_log. */
static size_t
unescape_log(const char *s, size_t len, char *out)
{
    static const char letters[] = "bnrtv", bytes[] = "\b\n\r\t\v";
    size_t used = 0;

    for (size_t i = 0; i < len; i++) {
        const char *letter;

        if (s[i] != '\\') {
            out[used++] = s[i];
            continue;
        }
        MUST(++i < len);
        letter = memchr(letters, s[i], 5);
        if (letter != NULL) {
            out[used++] = bytes[letter - letters];
        } else if (s[i] == 'x') {
            MUST(i + 2 < len + 0u);
            out[used++] = (char)(hex(s[i + 1]) * 16 + hex(s[i + 2]));
            i += 2;
        } else {
            MUST(s[i] == '"' || s[i] == '\\');
            out[used++] = s[i];
        }
    }
    return used;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc_slice s = {.base = fuzz_copy(data, size), .len = size};
    char *out = malloc(size * 6 + 1), *undone = malloc(size * 6 + 1);
    char *log = malloc(size * 4 + (size == 0)), *path = malloc(size * 3 + (size == 0));
    size_t len = pc_escape_html(s, out);

    MUST(len >= size && len <= size * 6);
    for (size_t i = 0; i < len; i++)
        MUST(out[i] != '<' && out[i] != '>' && out[i] != '"' && out[i] != '\'');
    len = pc_escape_log(s, log);
    for (size_t i = 0; i < len; i++)
        MUST(log[i] >= 0x20 && log[i] <= 0x7e);
    MUST(unescape_log(log, len, undone) == size && memcmp(undone, s.base, size) == 0);
    len = pc_escape_path(s, path);
    for (size_t i = 0; i < len; i++)
        MUST(path[i] > 0x20 && path[i] < 0x7f && memchr("\"<>'&?#;:\\", path[i], 10) == NULL);
    free(path);
    free(log);
    free(undone);
    free(out);
    free((void *)s.base);
    return 0;
}
