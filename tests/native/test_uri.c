/* test_uri.c - claims about native/uri.c. */
/* sources: uri.c util.c */
#include "pc.h"

#include "check.h"

struct row {
    const char *raw, *path; /* path NULL = refused with status */
    int status;
};

static void
check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t cap = strlen(rows[i].raw) + 1;
        struct pc_slice raw = CHECK_SLICE(rows[i].raw);
        char *out = malloc(cap);
        int status = pc_uri_decode_path(raw, out, cap);

        if (rows[i].path == NULL) {
            CHECK_EQ_FOR(rows[i].raw, status, rows[i].status);
        } else {
            CHECK_EQ_FOR(rows[i].raw, status, strlen(rows[i].path));
            CHECK_FOR(rows[i].raw, status < 0 || strcmp(out, rows[i].path) == 0);
        }
        free(out);
        free((void *)raw.base);
    }
}

/* Dots, slashes and escapes, and a query that is left alone. */
static void
test_decode_path_normalises(void)
{
    static const struct row rows[] = {
        {"/", "/", 0},
        {"/a/b", "/a/b", 0},
        {"/a/", "/a/", 0},
        {"//a///b//", "/a/b/", 0},
        {"/./a/./b/.", "/a/b/", 0},
        {"/a/../b", "/b", 0},
        {"/a/..", "/", 0},
        {"/a/b/..", "/a/", 0},
        {"/a/b/../", "/a/", 0},
        {"/a/b/../../c", "/c", 0},
        {"/a//../b", "/b", 0},
        {"/...", "/...", 0},
        {"/.a/..b/c..", "/.a/..b/c..", 0},
        {"/%61%2E%62", "/a.b", 0},
        {"/a?b/../c", "/a", 0},
        {"/a%3Fb", "/a?b", 0},
        {"/?", "/", 0},
        {"/a;x=y/b", "/a;x=y/b", 0},
        {"/a%20", "/a ", 0},
        {"/a.", "/a.", 0},
        {"/\xc3\xbc%c3%bc", "/\xc3\xbc\xc3\xbc", 0},
        {"/a/%2e/b/%2E%2e/c", "/a/c", 0},
        {"/a/.%2e/b", "/b", 0},
        {"/..a", "/..a", 0},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* One decoding: what is escaped twice comes out escaped once (CVE-2021-42013). */
static void
test_decode_path_decodes_once(void)
{
    static const struct row rows[] = {
        {"/%252e%252e/a", "/%2e%2e/a", 0},
        {"/%%32%65", NULL, -PC_E_BAD},
        {"/%25", "/%", 0},
        {"/%252f", "/%2f", 0},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* No way above the root, in any spelling; a backslash and overlong UTF-8 are bytes of a file's
 * name. */
static void
test_decode_path_never_leaves_the_root(void)
{
    static const struct row rows[] = {
        {"/..", NULL, -PC_E_BAD},          {"/../", NULL, -PC_E_BAD},
        {"/../a", NULL, -PC_E_BAD},        {"/a/../..", NULL, -PC_E_BAD},
        {"/a/../../b", NULL, -PC_E_BAD},   {"/%2e%2e/a", NULL, -PC_E_BAD},
        {"/.%2E/a", NULL, -PC_E_BAD},      {"//../a", NULL, -PC_E_BAD},
        {"/./../a", NULL, -PC_E_BAD},      {"/..%2f", NULL, -PC_E_NOT_FOUND},
        {"/..%5c..%5ca", "/..\\..\\a", 0}, {"/%c0%ae%c0%ae/a", "/\xc0\xae\xc0\xae/a", 0},
    };
    check_rows(rows, COUNT_OF(rows));
}

/* Bad escapes, control bytes, NUL and an encoded slash. */
static void
test_decode_path_refuses_what_no_file_name_may_hold(void)
{
    static const struct row rows[] = {
        {"", NULL, -PC_E_BAD},
        {"a", NULL, -PC_E_BAD},
        {"?", NULL, -PC_E_BAD},
        {"*", NULL, -PC_E_BAD},
        {"/%", NULL, -PC_E_BAD},
        {"/%4", NULL, -PC_E_BAD},
        {"/%4g", NULL, -PC_E_BAD},
        {"/%g4", NULL, -PC_E_BAD},
        {"/%00", NULL, -PC_E_BAD},
        {"/%0d%0a", NULL, -PC_E_BAD},
        {"/%7f", NULL, -PC_E_BAD},
        {"/%1b", NULL, -PC_E_BAD},
        {"/\x01", NULL, -PC_E_BAD},
        {"/%u0041", NULL, -PC_E_BAD},
        {"/%4?1", NULL, -PC_E_BAD},
        {"/a%2fb", NULL, -PC_E_NOT_FOUND},
        {"/a%2Fb", NULL, -PC_E_NOT_FOUND},
    };
    char out[8];

    check_rows(rows, COUNT_OF(rows));
    CHECK_EQ(pc_uri_decode_path((struct pc_slice){.base = "/a\0b", .len = 4}, out, 8), -PC_E_BAD);
    CHECK_EQ(pc_uri_decode_path(PC_S("/abc"), out, 4), -PC_E_URI_LONG); /* no room for the NUL */
    CHECK_EQ(pc_uri_decode_path(PC_S("/abc"), out, 5), 4);
}

/* The first '?' parts path and query; none, an empty one and a second one are told apart. */
static void
test_split_tells_no_query_from_an_empty_one(void)
{
    struct pc_slice path, query;

    pc_uri_split(PC_S("/a"), &path, &query);
    CHECK(pc_slice_eq(path, PC_S("/a")) && query.base == NULL && query.len == 0);
    pc_uri_split(PC_S("/a?"), &path, &query);
    CHECK(pc_slice_eq(path, PC_S("/a")) && query.base != NULL && query.len == 0);
    pc_uri_split(PC_S("/a?b?c"), &path, &query);
    CHECK(pc_slice_eq(path, PC_S("/a")) && pc_slice_eq(query, PC_S("b?c")));
    pc_uri_split((struct pc_slice){0}, &path, &query);
    CHECK(path.len == 0 && query.base == NULL);
}

int
main(void)
{
    RUN(test_decode_path_normalises);
    RUN(test_decode_path_decodes_once);
    RUN(test_decode_path_never_leaves_the_root);
    RUN(test_decode_path_refuses_what_no_file_name_may_hold);
    RUN(test_split_tells_no_query_from_an_empty_one);
    return check_end();
}
