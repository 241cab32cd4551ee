/* test_map.c - claims about map.c and regex.c: redirections, places, sections.
 * Runs as:  the developer.   Sees: hosts made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: map.c regex.c mime.c access.c arena.c date.c errlog.c escape.c fields.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <sys/mman.h>

#include "serve_case.h"

static struct pc_regex *
compile(const char *pattern)
{
    struct pc_regex *regex = NULL;

    CHECK_EQ_FOR(pattern, pc_regex_compile((struct pc_slice){pattern, strlen(pattern)}, false, &regex), 0);
    return regex;
}

/* ------------------------------------------------------------------ patterns */

static void
test_regex_gives_groups_and_their_absence(void)
{
    struct pc_regex *regex = compile("(a)|(b)(c)?");
    struct pc_span groups[10];

    CHECK_EQ(pc_regex_match(regex, PC_S("xb"), groups), 3);
    CHECK(groups[0].at == 1 && groups[0].len == 1 && groups[1].len == 0 && groups[2].len == 1 && groups[3].len == 0);
    CHECK_EQ(pc_regex_match(regex, PC_S("x"), groups), 0);
    CHECK_EQ(pc_regex_match(regex, (struct pc_slice){0}, groups), 0);
    pc_regex_free(regex);
}

static void
test_regex_survives_more_groups_than_ten(void)
{
    struct pc_regex *regex = compile("(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)(k)(l)");
    struct pc_span groups[10];

    CHECK_EQ(pc_regex_match(regex, PC_S("abcdefghijkl"), groups), 10);
    CHECK(groups[9].at == 8 && groups[9].len == 1);
    pc_regex_free(regex);
}

static void
test_regex_ends_a_match_that_backtracks_without_end(void)
{
    struct pc_regex *regex = compile("^(a|aa|aaa)*[bc]$");
    struct pc_span groups[10];

    CHECK(pc_regex_match(regex, PC_S("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaad"), groups) < 0);
    pc_regex_free(regex);
}

static void
test_regex_takes_the_end_of_a_line_for_no_end(void)
{
    struct pc_regex *regex = compile("^a$");
    struct pc_span groups[10];

    CHECK_EQ(pc_regex_match(regex, PC_S("a\n"), groups), 0);
    CHECK_EQ(pc_regex_match(regex, PC_S("a"), groups), 1);
    pc_regex_free(regex);
}

static void
test_regex_refuses_patterns_that_are_malformed(void)
{
    struct pc_regex *regex = NULL;

    CHECK(pc_regex_compile(PC_S("("), false, &regex) < 0);
    CHECK(pc_regex_compile(PC_S("(*UTF)a"), false, &regex) < 0);
    CHECK(regex == NULL);
}

static void
test_expand_puts_groups_in_and_escapes_them_alone(void)
{
    struct pc_arena arena = {0};
    const struct pc_span groups[10] = {{0, 4}, {1, 3}};

    CHECK(case_is(pc_regex_expand(&arena, PC_S("<$1>$0$2\\$1$"), PC_S("/a b"), groups, true), "<a%20b>/a%20b$1$"));
    CHECK(case_is(pc_regex_expand(&arena, PC_S("$1$1"), PC_S("/a b"), groups, false), "a ba b"));
    CHECK(case_is(pc_regex_expand(&arena, PC_S(""), PC_S("/a b"), groups, false), ""));
    pc_arena_free(&arena);
}

/* ------------------------------------------------------------------ redirections and places */

static void
test_redirect_takes_whole_components_the_first_that_fits(void)
{
    struct serve_case *one = case_new();
    struct pc_redirect list[] = {
        {.status = 301, .from = PC_S("/a"), .to = PC_S("http://x/1")}, {.status = 302, .from = PC_S("/ab/"), .to = PC_S("/2/")},
        {.status = 410, .from = PC_S("/gone")},
    };
    struct pc_slice url = {0};
    struct pc_req *req = case_ask(one, "/a/b c", "");

    one->host.base.redirects = list;
    one->host.base.redirect_count = COUNT_OF(list);
    CHECK_EQ(pc_map_redirect(req, &one->host.base, &url), 301);
    CHECK(case_is(url, "http://x/1/b%20c"));
    req = case_ask(one, "/ab/x", "");
    req->query = PC_S("q");
    req->is_tls = true;
    req->port_out = 8443;
    CHECK_EQ(pc_map_redirect(req, &one->host.base, &url), 302);
    CHECK(case_is(url, "https://www.example.org:8443/2/x?q"));
    req = case_ask(one, "/gone", "");
    CHECK_EQ(pc_map_redirect(req, &one->host.base, &url), 410);
    CHECK(url.base == NULL);
    req = case_ask(one, "/ab", "");
    CHECK_EQ(pc_map_redirect(req, &one->host.base, &url), 0);
    case_free(one);
}

static void
check_place(struct serve_case *one, const char *path, int want, const char *filename, const char *relative)
{
    struct pc_place place = {0};
    struct pc_req *req = case_ask(one, path, "");

    CHECK_EQ_FOR(path, pc_map_place(req, &place), want);
    if (want != 0)
        return;
    CHECK_FOR(path, case_is(req->filename, filename));
    CHECK_FOR(path, strcmp(req->filename.base, filename) == 0);
    CHECK_FOR(path, strcmp(place.relative, relative) == 0);
}

static void
test_place_is_below_the_document_root_or_the_aliass(void)
{
    struct serve_case *one = case_new();
    struct pc_alias list[] = {
        {.from = PC_S("/a"), .to = PC_S("/x/"), .root_fd = -1}, {.from = PC_S("/b/"), .to = PC_S("/y"), .root_fd = -1},
        {.kind = 1, .from = PC_S(""), .to = PC_S("/home/$1/web/$2"), .regex = compile("^/~([^/]*)/(.*)"), .root_fd = -1},
    };

    check_place(one, "/f", -PC_E_NOT_FOUND, "", "");
    one->host.document_root = PC_S("/srv");
    check_place(one, "/", 0, "/srv/", "");
    check_place(one, "/f/g", 0, "/srv/f/g", "f/g");
    one->host.document_root = PC_S("/");
    check_place(one, "/f/", 0, "/f/", "f/");
    one->host.aliases = list;
    one->host.alias_count = COUNT_OF(list);
    check_place(one, "/a", 0, "/x", "");
    check_place(one, "/a/", 0, "/x/", "");
    check_place(one, "/a/f", 0, "/x/f", "f");
    check_place(one, "/b/f", 0, "/y/f", "f"); /* httpd would make /yf of it */
    check_place(one, "/b", 0, "/b", "b");
    check_place(one, "/~al/f", 0, "/home/al/web/f", "al/web/f");
    check_place(one, "/~../f", -PC_E_FORBIDDEN, "", "");
    check_place(one, "/~a/..", -PC_E_FORBIDDEN, "", "");
    pc_regex_free(list[2].regex);
    case_free(one);
}

/* ------------------------------------------------------------------ sections */

struct layer_case {
    uint32_t kind;
    const char *pattern, *filename, *path;
    bool fits;
};

static void
test_layers_take_what_a_section_names(void)
{
    static const struct layer_case cases[] = {
        {PC_SECTION_DIRECTORY, "/", "/srv/f", "/f", true}, {PC_SECTION_DIRECTORY, "/srv", "/srv/f", "/f", true},
        {PC_SECTION_DIRECTORY, "/srv", "/srvx/f", "/f", false}, {PC_SECTION_DIRECTORY, "/srv", "/srv", "/", true},
        {PC_SECTION_DIRECTORY, "/srv/f/g", "/srv/f", "/f", false}, {PC_SECTION_DIRECTORY, "/home/*/web", "/home/a/web/f", "/f", true},
        {PC_SECTION_DIRECTORY, "/home/*/web", "/home/a/b/web/f", "/f", false}, {PC_SECTION_DIRECTORY, "/home/*", "/home/", "/", false},
        {PC_SECTION_DIRECTORY, "/home/*", "/home/a", "/", true}, {PC_SECTION_DIRECTORY, "/h?me", "/home/a/b", "/", true},
        {PC_SECTION_DIRECTORY_MATCH, "/\\.git/", "/srv/.git/config", "/", true},
        {PC_SECTION_FILES, "f", "/srv/f", "/f", true}, {PC_SECTION_FILES, "F", "/srv/f", "/f", false},
        {PC_SECTION_FILES, "*", "/srv/", "/", false}, {PC_SECTION_FILES, "*.x", "/srv/a.x", "/a.x", true},
        {PC_SECTION_FILES_MATCH, "^\\.ht", "/srv/.htaccess", "/.htaccess", true},
        {PC_SECTION_FILES_MATCH, "srv", "/srv/f", "/f", false}, {PC_SECTION_LOCATION, "/", "/srv/f", "/f", true},
        {PC_SECTION_LOCATION, "/f", "/srv/f", "/f", true}, {PC_SECTION_LOCATION, "/f", "/srv/fg", "/fg", false},
        {PC_SECTION_LOCATION, "/f/", "/srv/f", "/f", false}, {PC_SECTION_LOCATION, "/*/g", "/srv/f/g", "/f/g", true},
        {PC_SECTION_LOCATION, "/*", "/srv/f/g", "/f/g", false}, {PC_SECTION_LOCATION_MATCH, "g$", "/srv/f/g", "/f/g", true},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct serve_case *one = case_new();
        struct pc_section section = {.kind = cases[i].kind, .pattern = {cases[i].pattern, strlen(cases[i].pattern)}};
        struct pc_req *req = case_ask(one, cases[i].path, "");

        if (section.kind % 2 == 1)
            section.regex = compile(cases[i].pattern);
        else
            section.has_wild = pc_wild_has(section.pattern);
        one->host.sections = &section;
        one->host.section_count = 1;
        req->filename = (struct pc_slice){cases[i].filename, strlen(cases[i].filename)};
        pc_map_layers(req);
        CHECK_EQ_FOR(cases[i].pattern, req->layer_count, cases[i].fits ? 2 : 1);
        pc_regex_free(section.regex);
        case_free(one);
    }
}

static void
test_layers_add_options_and_replace_them(void)
{
    struct serve_case *one = case_new();
    struct pc_section sections[] = {
        {.kind = PC_SECTION_DIRECTORY, .pattern = PC_S("/srv"),
         .settings = {.has_options = true, .options_add = PC_OPT_INDEXES, .options_remove = PC_OPT_FOLLOWSYMLINKS}},
        {.kind = PC_SECTION_LOCATION, .pattern = PC_S("/abs"),
         .settings = {.has_options = true, .options_absolute = true, .options_add = PC_OPT_EXECCGI | PC_OPT_FOLLOWSYMLINKS}},
    };
    struct pc_req *req = case_ask(one, "/f", "");

    req->filename = PC_S("/x/f");
    pc_map_layers(req);
    CHECK_EQ(req->options, PC_OPT_FOLLOWSYMLINKS);
    one->host.sections = sections;
    one->host.section_count = COUNT_OF(sections);
    req->filename = PC_S("/srv/f");
    pc_map_layers(req);
    CHECK_EQ(req->options, PC_OPT_INDEXES);
    req->path = PC_S("/abs");
    pc_map_layers(req);
    CHECK_EQ(req->options, PC_OPT_EXECCGI);
    case_free(one);
}

static void
test_layers_are_none_when_there_are_too_many(void)
{
    struct serve_case *one = case_new();
    struct pc_section sections[PC_MAX_LAYERS];
    struct pc_req *req = case_ask(one, "/f", "");

    for (size_t i = 0; i < COUNT_OF(sections); i++)
        sections[i] = (struct pc_section){.kind = PC_SECTION_LOCATION, .pattern = PC_S("/")};
    one->host.sections = sections;
    one->host.section_count = PC_MAX_LAYERS - 1;
    pc_map_layers(req);
    CHECK_EQ(req->layer_count, PC_MAX_LAYERS);
    one->host.section_count = PC_MAX_LAYERS;
    pc_map_layers(req);
    CHECK_EQ(req->layer_count, 0);
    case_free(one);
}

int
main(void)
{
    RUN(test_regex_gives_groups_and_their_absence);
    RUN(test_regex_survives_more_groups_than_ten);
    RUN(test_regex_ends_a_match_that_backtracks_without_end);
    RUN(test_regex_takes_the_end_of_a_line_for_no_end);
    RUN(test_regex_refuses_patterns_that_are_malformed);
    RUN(test_expand_puts_groups_in_and_escapes_them_alone);
    RUN(test_redirect_takes_whole_components_the_first_that_fits);
    RUN(test_place_is_below_the_document_root_or_the_aliass);
    RUN(test_layers_take_what_a_section_names);
    RUN(test_layers_add_options_and_replace_them);
    RUN(test_layers_are_none_when_there_are_too_many);
    return check_end();
}
