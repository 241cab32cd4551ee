/* test_file.c - claims about file.c and serve.c: what is opened, by which rule, and that no descriptor is left behind.
 * Runs as:  the developer.   Sees: a directory of its own.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: file.c serve.c program.c proxy.c target.c listing.c map.c regex.c mime.c access.c acme.c arena.c cond.c date.c errlog.c escape.c fields.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create, O_PATH */
#endif
#include <sys/mman.h>

#include "serve_case.h"

/* A host with a file, a link to it, a link out, a directory and a FIFO. */
static struct serve_case *
case_with_files(void)
{
    struct serve_case *one = case_new();
    char path[128];

    (void)case_directory(one);
    case_file(one, "f.txt", "text");
    (void)snprintf(path, sizeof path, "%s/d", one->directory);
    CHECK(mkdir(path, 0755) == 0);
    (void)snprintf(path, sizeof path, "%s/in", one->directory);
    CHECK(symlink("f.txt", path) == 0);
    (void)snprintf(path, sizeof path, "%s/out", one->directory);
    CHECK(symlink("/proc/version", path) == 0);
    (void)snprintf(path, sizeof path, "%s/loop", one->directory);
    CHECK(symlink("loop", path) == 0);
    (void)snprintf(path, sizeof path, "%s/fifo", one->directory);
    CHECK(mkfifo(path, 0644) == 0);
    return one;
}

/* errno of opening `name`, 0 = open (and closed again). */
static int
try_open(struct serve_case *one, uint32_t options, const char *name)
{
    struct pc_req *req = case_ask(one, "/", "");
    int root = open(one->directory, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1, error = 0;

    req->options = options;
    if (pc_file_open(req, root, name, &fd, &error) == 0) {
        CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
        CHECK(close(fd) == 0);
    }
    CHECK(close(root) == 0);
    return error;
}

static void
test_open_follows_links_as_options_say(void)
{
    struct serve_case *one = case_with_files();

    CHECK_EQ(try_open(one, 0, "f.txt"), 0);
    CHECK_EQ(try_open(one, 0, ""), 0);
    CHECK_EQ(try_open(one, 0, "in"), ELOOP);
    CHECK_EQ(try_open(one, PC_OPT_FOLLOWSYMLINKS, "in"), 0);
    CHECK_EQ(try_open(one, PC_OPT_SYMLINKSIFOWNERMATCH, "in"), 0);
    CHECK_EQ(try_open(one, PC_OPT_SYMLINKSIFOWNERMATCH, "out"), ELOOP);
    CHECK_EQ(try_open(one, PC_OPT_FOLLOWSYMLINKS, "loop"), ELOOP);
    CHECK_EQ(try_open(one, PC_OPT_FOLLOWSYMLINKS, "../../etc/passwd"), geteuid() == 0 ? 0 : ELOOP); /* own files only */
    CHECK_EQ(try_open(one, 0, "../../etc/passwd"), EXDEV);
    CHECK_EQ(try_open(one, PC_OPT_FOLLOWSYMLINKS, "none"), ENOENT);
    CHECK_EQ(try_open(one, PC_OPT_FOLLOWSYMLINKS, "f.txt/x"), ENOTDIR);
    case_free(one);
}

static struct pc_req *
serve(struct serve_case *one, const char *path, const char *fields)
{
    struct pc_req *req = case_ask(one, path, fields);

    CHECK_EQ_FOR(path, pc_serve(req), PC_SERVED);
    return req;
}

/* What the connection does at the end. */
static void
end(struct pc_req *req)
{
    if (req->resp.fd >= 0)
        CHECK(close(req->resp.fd) == 0);
    req->resp.fd = -1;
}

static void
test_serve_leaves_a_descriptor_only_with_a_body_from_a_file(void)
{
    static const struct { const char *path, *fields; uint32_t status; } cases[] = {
        {"/f.txt", "", 200}, {"/in", "", 200}, {"/f.txt", "If-None-Match: *\r\n", 304}, {"/f.txt", "If-Match: \"x\"\r\n", 412},
        {"/f.txt", "Range: bytes=9-\r\n", 416}, {"/f.txt", "Range: bytes=0-0\r\n", 206}, {"/f.txt", "Range: bytes=0-0,2-2\r\n", 206},
        {"/none", "", 404}, {"/f.txt/x", "", 404}, {"/d", "", 301}, {"/d/", "", 403}, {"/fifo", "", 403}, {"/loop", "", 403}, {"/", "", 403},
    };
    struct serve_case *one = case_with_files();
    int before;

    end(serve(one, "/f.txt", "")); /* opens the root, which stays */
    before = case_open_count();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pc_req *req = serve(one, cases[i].path, cases[i].fields);

        CHECK_EQ_FOR(cases[i].path, req->resp.status, cases[i].status);
        CHECK_FOR(cases[i].path, (req->resp.fd >= 0) == (req->resp.body == PC_BODY_FILE || req->resp.body == PC_BODY_PARTS));
        end(req);
        CHECK_EQ_FOR(cases[i].path, case_open_count(), before);
    }
    case_free(one);
}

static void
test_serve_holds_one_root_and_swaps_it_in_place(void)
{
    struct serve_case *one = case_with_files();
    char other[128];
    int root;
    struct pc_req *req;

    end(serve(one, "/f.txt", ""));
    root = one->host.root_fd;
    CHECK(root >= 0);
    (void)snprintf(other, sizeof other, "%s.gone", one->directory);
    CHECK(rename(one->directory, other) == 0);
    end(serve(one, "/f.txt", ""));
    CHECK_EQ(one->req.resp.status, 200); /* not looked at again yet */
    one->host.root_checked_ns = 1;
    req = serve(one, "/f.txt", "");
    CHECK_EQ(req->resp.status, 404);
    CHECK(mkdir(one->directory, 0755) == 0);
    case_file(one, "f.txt", "new text");
    one->host.root_checked_ns = 1;
    req = serve(one, "/f.txt", "");
    CHECK_EQ(req->resp.length, 8);
    CHECK_EQ(one->host.root_fd, root); /* the same number, so no thread holds a closed one */
    end(req);
    child_remove_directory(other);
    case_free(one);
}

static void
test_serve_counts_the_bytes_of_parts(void)
{
    struct serve_case *one = case_with_files();
    struct pc_req *req = serve(one, "/f.txt", "Range: bytes=0-0,2-3\r\n");
    uint64_t sum = 0;

    CHECK_EQ(req->resp.part_count, 3);
    for (uint32_t i = 0; i < req->resp.part_count; i++)
        sum += req->resp.parts[i].text.len + req->resp.parts[i].length;
    CHECK_EQ(sum, req->resp.length);
    CHECK(req->resp.parts[2].length == 0 && req->resp.parts[1].offset == 2 && req->resp.parts[1].length == 2);
    end(req);
    case_free(one);
}

static void
test_serve_error_closes_the_file_of_the_response_before(void)
{
    struct serve_case *one = case_with_files();
    struct pc_req *req = serve(one, "/f.txt", "");
    int before = case_open_count();

    CHECK(req->resp.fd >= 0);
    pc_serve_error(req, 500);
    CHECK_EQ(case_open_count(), before - 1);
    CHECK(req->resp.status == 500 && req->resp.fd == -1 && req->resp.body == PC_BODY_MEMORY);
    case_free(one);
}

static void
test_serve_can_be_asked_again_with_the_same_result(void)
{
    struct serve_case *one = case_with_files();
    struct pc_settings *base = &one->host.base;
    struct pc_req *req;

    base->ask = 1;
    req = case_ask(one, "/f.txt", "");
    CHECK_EQ(pc_serve(req), PC_SERVE_ASK);
    CHECK_EQ(req->ask, PC_ASK_POLICY);
    req->has_answer = true;
    CHECK_EQ(pc_serve(req), PC_SERVED);
    CHECK_EQ(req->resp.status, 200);
    end(req);
    case_free(one);
}

static void
test_signature_and_pages_escape_what_the_configuration_says(void)
{
    struct serve_case *one = case_with_files();
    struct pc_req *req;
    char page[2048] = "";

    one->host.base.signature = 2;
    one->host.admin = PC_S("\"><script>");
    req = serve(one, "/none", "");
    CHECK(req->resp.memory.len < sizeof page);
    memcpy(page, req->resp.memory.base, req->resp.memory.len);
    CHECK(strstr(page, "<script>") == NULL && strstr(page, "mailto:&quot;&gt;&lt;script&gt;") != NULL);
    case_free(one);
}

int
main(void)
{
    RUN(test_open_follows_links_as_options_say);
    RUN(test_serve_leaves_a_descriptor_only_with_a_body_from_a_file);
    RUN(test_serve_holds_one_root_and_swaps_it_in_place);
    RUN(test_serve_counts_the_bytes_of_parts);
    RUN(test_serve_error_closes_the_file_of_the_response_before);
    RUN(test_serve_can_be_asked_again_with_the_same_result);
    RUN(test_signature_and_pages_escape_what_the_configuration_says);
    return check_end();
}
