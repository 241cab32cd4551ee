/* test_escape.c - claims about native/escape.c. */
/* sources: escape.c util.c */
#include "pc.h"

#include "check.h"

typedef size_t escape_fn(struct pc_slice s, char *out);

static void
check_escape(escape_fn *escape, size_t worst, struct pc_slice raw, const char *want)
{
    struct pc_slice copy = {.base = check_copy(raw.base, raw.len), .len = raw.len};
    char *out = malloc(raw.len * worst + 1);
    size_t used = escape(copy, out);

    CHECK_EQ_FOR(want, used, strlen(want));
    CHECK_FOR(want, memcmp(out, want, used) == 0);
    free(out);
    free((void *)copy.base);
}

/* The five bytes that mean something in HTML, and no others, in text and in attributes. */
static void
test_escape_html_escapes_five_bytes(void)
{
    check_escape(pc_escape_html, 6, PC_S("<a href=\"x\">'&'\xc3\xbc"),
                 "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;\xc3\xbc");
    check_escape(pc_escape_html, 6, PC_S("\"\"\"\""), "&quot;&quot;&quot;&quot;");
    check_escape(pc_escape_html, 6, PC_S(""), "");
}

/* A path keeps its slashes; a colon, a quote, a percent sign and every byte outside ASCII are
 * encoded. */
static void
test_escape_path_leaves_nothing_that_ends_a_path(void)
{
    check_escape(pc_escape_path, 3, PC_S("/a b?c#d%e"), "/a%20b%3fc%23d%25e");
    check_escape(pc_escape_path, 3, PC_S("javascript:x"), "javascript%3ax");
    check_escape(pc_escape_path, 3, PC_S("~a-b_c.d!$*(),@=+"), "~a-b_c.d!$*(),@=+");
    check_escape(pc_escape_path, 3, PC_S("\xc3\xbc\x7f\n\"<>'&;\\"),
                 "%c3%bc%7f%0a%22%3c%3e%27%26%3b%5c");
    check_escape(pc_escape_path, 3, PC_S("\0"), "%00");
}

/* One line stays one line, and no terminal sees an escape sequence; as httpd writes it. */
static void
test_escape_log_keeps_one_line(void)
{
    check_escape(pc_escape_log, 4, PC_S("a\"b\\c\r\nd\te\bf\vg"), "a\\\"b\\\\c\\r\\nd\\te\\bf\\vg");
    check_escape(pc_escape_log, 4, PC_S("\x1b[2J\x7f\x9b\xff~ "), "\\x1b[2J\\x7f\\x9b\\xff~ ");
    check_escape(pc_escape_log, 4, PC_S("\0"), "\\x00");
    check_escape(pc_escape_log, 4, PC_S("%s%n"), "%s%n");
}

int
main(void)
{
    RUN(test_escape_html_escapes_five_bytes);
    RUN(test_escape_path_leaves_nothing_that_ends_a_path);
    RUN(test_escape_log_keeps_one_line);
    return check_end();
}
