/* test_listing.c - claims about listing.c: what is shown, how it is written, how much.
 * Runs as:  the developer.   Sees: a directory of its own.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: listing.c file.c serve.c program.c proxy.c target.c map.c regex.c mime.c access.c acme.c arena.c cond.c date.c errlog.c escape.c fields.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <sys/mman.h>

#include "serve_case.h"

/* The page for the case's directory, NUL-terminated, in the case's arena. */
static const char *
list(struct serve_case *one, const char *path, const char *query)
{
    struct pc_req *req = case_ask(one, path, "");
    int fd = open(one->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (query != NULL)
        req->query = (struct pc_slice){query, strlen(query)};
    req->filename = pc_arena_print(&one->arena, "%s/", one->directory);
    CHECK_EQ(pc_listing_serve(req, fd), PC_SERVED);
    CHECK(req->resp.status == 200 && req->resp.length == req->resp.memory.len);
    return pc_arena_copy(&one->arena, req->resp.memory).base;
}

static void
test_listing_escapes_names_for_links_and_for_text(void)
{
    struct serve_case *one = case_new();
    const char *page;

    (void)case_directory(one);
    case_file(one, "\"><img src=x>", "");
    case_file(one, "\001\377 &", "");
    page = list(one, "/<p>/", NULL);
    CHECK(strstr(page, "<td><a href=\"%22%3e%3cimg%20src=x%3e\">&quot;&gt;&lt;img src=x&gt;</a></td>") != NULL);
    CHECK(strstr(page, "<td><a href=\"%01%ff%20%26\">?\377 &amp;</a></td>") != NULL);
    CHECK(strstr(page, "<h1>Index of /&lt;p&gt;/</h1>") != NULL && strstr(page, "<p>") == NULL);
    case_free(one);
}

static void
test_listing_shows_the_parent_but_not_above_the_root(void)
{
    struct serve_case *one = case_new();

    (void)case_directory(one);
    CHECK(strstr(list(one, "/a/", NULL), "<a href=\"../\">Parent Directory</a>") != NULL);
    CHECK(strstr(list(one, "/", NULL), "Parent Directory") == NULL);
    case_free(one);
}

static void
test_listing_hides_what_httpd_hides(void)
{
    static const char *const hidden[] = {".htaccess", ".git", "a~", "a#", "RCS", "CVS", "a,v", "a,t"};
    struct serve_case *one = case_new();
    const char *page;

    (void)case_directory(one);
    for (size_t i = 0; i < COUNT_OF(hidden); i++)
        case_file(one, hidden[i], "");
    case_file(one, "shown", "");
    page = list(one, "/", NULL);
    CHECK(strstr(page, "shown") != NULL);
    for (size_t i = 0; i < COUNT_OF(hidden); i++) {
        char link[64];

        (void)snprintf(link, sizeof link, ">%s<", hidden[i]);
        CHECK_FOR(hidden[i], strstr(page, link) == NULL);
    }
    case_free(one);
}

static void
test_listing_writes_sizes_as_httpd_does(void)
{
    static const struct { off_t size; const char *text; } cases[] = {
        {0, "<td>0</td>"}, {972, "<td>972</td>"}, {973, "<td>1.0K</td>"}, {1536, "<td>1.5K</td>"}, {10 * 1024, "<td>10K</td>"},
        {996351, "<td>973K</td>"}, {996352, "<td>1.0M</td>"}, {5ll << 30, "<td>5.0G</td>"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct serve_case *one = case_new();
        char path[128];

        (void)case_directory(one);
        case_file(one, "f", "");
        (void)snprintf(path, sizeof path, "%s/f", one->directory);
        CHECK(truncate(path, cases[i].size) == 0);
        CHECK_FOR(cases[i].text, strstr(list(one, "/", NULL), cases[i].text) != NULL);
        case_free(one);
    }
}

static void
test_listing_offers_the_other_direction_of_its_column(void)
{
    struct serve_case *one = case_new();

    (void)case_directory(one);
    CHECK(strstr(list(one, "/", NULL), "?C=N;O=D\">Name") != NULL);
    CHECK(strstr(list(one, "/", "C=N;O=D"), "?C=N;O=A\">Name") != NULL);
    CHECK(strstr(list(one, "/", "C=S;O=A"), "?C=S;O=D\">Size") != NULL);
    CHECK(strstr(list(one, "/", "C=M"), "?C=N;O=A\">Name") != NULL);
    CHECK(strstr(list(one, "/", "C=MM;O=D;"), "?C=N;O=A\">Name") != NULL);
    case_free(one);
}

static void
test_listing_stops_at_its_bound_and_says_so(void)
{
    struct serve_case *one = case_new();
    const char *page;
    int rows = 0;

    (void)case_directory(one);
    for (int i = 0; i <= PC_MAX_LISTING_ENTRIES; i++) {
        char name[32];

        (void)snprintf(name, sizeof name, "f%05d", i);
        case_file(one, name, "");
    }
    page = list(one, "/", NULL);
    for (const char *at = page; (at = strstr(at, "<tr><td>")) != NULL; at++)
        rows++;
    CHECK_EQ(rows, PC_MAX_LISTING_ENTRIES);
    CHECK(strstr(page, "There are more than 10000 names") != NULL);
    case_free(one);
}

static void
test_listing_leaves_the_request_and_its_layers_as_they_were(void)
{
    struct serve_case *one = case_new();
    const uint8_t denied[] = {PC_ACC_ANY, 0, 4, 0, PC_ACC_DENIED, 0, 0, 0};
    struct pc_section section = {
        .kind = PC_SECTION_FILES, .pattern = PC_S("secret"),
        .settings = {.require = {(const char *)denied, sizeof denied}, .accept_path_info = -1, .signature = -1, .ask = -1},
    };
    const char *page;

    (void)case_directory(one);
    case_file(one, "secret", "");
    case_file(one, "shown", "");
    one->host.sections = &section;
    one->host.section_count = 1;
    page = list(one, "/", NULL);
    CHECK(strstr(page, "shown") != NULL && strstr(page, "secret") == NULL);
    CHECK(one->req.layer_count == 1 && one->req.layers[0] == &one->host.base && case_is(one->req.path, "/"));
    CHECK(!case_logged(one, "denied"));
    case_free(one);
}

static void
test_listing_closes_what_it_was_given_even_if_it_does_not_list(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "");
    int before = case_open_count();

    (void)case_directory(one);
    req->may_block = false;
    CHECK_EQ(pc_listing_serve(req, open(one->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)), PC_SERVE_BLOCKS);
    CHECK_EQ(case_open_count(), before);
    (void)list(one, "/", NULL);
    CHECK_EQ(case_open_count(), before);
    case_free(one);
}

int
main(void)
{
    RUN(test_listing_escapes_names_for_links_and_for_text);
    RUN(test_listing_shows_the_parent_but_not_above_the_root);
    RUN(test_listing_hides_what_httpd_hides);
    RUN(test_listing_writes_sizes_as_httpd_does);
    RUN(test_listing_offers_the_other_direction_of_its_column);
    RUN(test_listing_stops_at_its_bound_and_says_so);
    RUN(test_listing_leaves_the_request_and_its_layers_as_they_were);
    RUN(test_listing_closes_what_it_was_given_even_if_it_does_not_list);
    return check_end();
}
