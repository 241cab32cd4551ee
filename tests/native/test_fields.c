/* test_fields.c - claims about fields.c: the list of response fields, Header, RequestHeader, the environment, phrases.
 * Runs as:  the developer.   Sees: operations made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: fields.c regex.c arena.c date.c errlog.c escape.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <sys/mman.h>

#include "serve_case.h"

struct value_ops {
    char bytes[64];
};

static struct pc_header_op
op_of(struct value_ops *ops, uint32_t action, const char *name, const char *value)
{
    const size_t len = strlen(value);

    memset(ops->bytes, 0, 4);
    ops->bytes[2] = (char)len;
    memcpy(ops->bytes + 4, value, len);
    return (struct pc_header_op){
        .action = action, .name = {name, strlen(name)}, .value = {ops->bytes, len > 0 ? 4 + len : 0},
    };
}

static void
test_set_replaces_all_of_a_name_and_keeps_its_place(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "");

    pc_resp_add(req, PC_S("A"), PC_S("1"));
    pc_resp_add(req, PC_S("B"), PC_S("2"));
    pc_resp_add(req, PC_S("a"), PC_S("3"));
    pc_resp_set(req, PC_S("A"), PC_S("4"));
    CHECK_EQ(req->resp.field_count, 2);
    CHECK(case_is(req->resp.fields[0].value, "4") && case_is(pc_resp_get(req, PC_S("b")), "2"));
    pc_resp_unset(req, PC_S("a"));
    CHECK(req->resp.field_count == 1 && pc_resp_get(req, PC_S("A")).base == NULL);
    case_free(one);
}

static void
test_add_stops_at_the_end_of_the_table(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "");

    for (int i = 0; i < PC_MAX_OUT_FIELDS; i++)
        pc_resp_add(req, PC_S("A"), PC_S("1"));
    CHECK(!case_logged(one, "more than"));
    pc_resp_add(req, PC_S("B"), PC_S("2"));
    CHECK_EQ(req->resp.field_count, PC_MAX_OUT_FIELDS);
    CHECK(case_logged(one, "response has more than 96 fields; B is left out"));
    case_free(one);
}

static void
test_header_applies_on_errors_only_if_always(void)
{
    static const struct { uint32_t status; bool plain; } cases[] = {
        {200, true}, {206, true}, {304, true}, {301, false}, {404, false}, {500, false},
    };
    struct value_ops one_ops, two_ops;
    struct pc_header_op ops[] = {op_of(&one_ops, PC_HDR_SET, "A", "1"), op_of(&two_ops, PC_HDR_SET, "B", "1")};

    ops[1].always = true;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct serve_case *one = case_new();
        struct pc_req *req = case_ask(one, "/", "");

        one->host.base.headers = ops;
        one->host.base.header_count = COUNT_OF(ops);
        req->resp.status = cases[i].status;
        pc_fields_apply(req);
        CHECK_EQ(pc_resp_get(req, PC_S("A")).base != NULL, cases[i].plain);
        CHECK(pc_resp_get(req, PC_S("B")).base != NULL);
        case_free(one);
    }
}

static void
test_header_edits_without_end_only_as_far_as_the_value(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "");
    struct value_ops ops;
    struct pc_header_op op = op_of(&ops, PC_HDR_EDIT, "A", "-");

    CHECK_EQ(pc_regex_compile(PC_S("x*"), false, &op.pattern), 0);
    op.edit_all = true;
    one->host.base.headers = &op;
    one->host.base.header_count = 1;
    req->resp.status = 200;
    pc_resp_add(req, PC_S("A"), PC_S("axxb"));
    pc_resp_add(req, PC_S("A"), PC_S(""));
    pc_fields_apply(req);
    CHECK(case_is(req->resp.fields[0].value, "-a--b"));
    CHECK(case_is(req->resp.fields[1].value, "-"));
    pc_regex_free(op.pattern);
    case_free(one);
}

static void
test_header_leaves_framing_alone(void)
{
    static const char *const names[] = {"Content-Length", "transfer-encoding", "Connection", "Date", "Server", "Keep-Alive"};

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct serve_case *one = case_new();
        struct pc_req *req = case_ask(one, "/", "");
        struct value_ops ops;
        struct pc_header_op op = op_of(&ops, PC_HDR_SET, names[i], "x");

        one->host.base.headers = &op;
        one->host.base.header_count = 1;
        req->resp.status = 200;
        pc_fields_apply(req);
        CHECK_EQ_FOR(names[i], req->resp.field_count, 0);
        case_free(one);
    }
}

static void
test_request_fields_are_those_that_were_left(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "A: 1\r\nRange: bytes=0-0\r\nB: old\r\n");
    struct value_ops ops[3];
    struct pc_header_op list[] = {
        op_of(&ops[0], PC_HDR_APPEND, "a", "2"), op_of(&ops[1], PC_HDR_UNSET, "range", ""), op_of(&ops[2], PC_HDR_SET, "C", "3"),
    };

    CHECK(pc_fields_head(req) == req->head);
    one->host.base.request_headers = list;
    one->host.base.request_header_count = COUNT_OF(list);
    pc_fields_apply_request(req);
    pc_fields_apply_request(req); /* served twice, it is the same */
    CHECK(case_is(pc_fields_in(req, PC_S("A")), "1, 2") && case_is(pc_fields_in(req, PC_S("c")), "3"));
    CHECK(case_is(pc_fields_in(req, PC_S("B")), "old") && pc_fields_in(req, PC_S("Range")).base == NULL);
    CHECK(pc_fields_head(req) != req->head && pc_fields_head(req)->known[PC_F_RANGE] == 0);
    CHECK(pc_fields_head(req)->known[PC_F_HOST] != 0 && req->head->known[PC_F_RANGE] != 0);
    case_free(one);
}

static void
test_environment_grows_replaces_and_loses_names(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "");
    struct pc_pair set[] = {{PC_S("A"), PC_S("1")}, {PC_S("B"), PC_S("2")}};
    struct pc_slice unset[] = {PC_S("A"), PC_S("none")};
    struct pc_settings inner = {.unset_env = unset, .unset_env_count = 2, .env = &set[1], .env_count = 1};

    for (int i = 0; i < 40; i++)
        pc_env_set(req, pc_arena_print(&one->arena, "N%d", i), PC_S("x"));
    CHECK(req->env_count == 40 && case_is(pc_env_get(req, PC_S("N39")), "x"));
    one->host.base.env = set;
    one->host.base.env_count = 2;
    pc_env_apply(req);
    CHECK(req->env_count == 42 && case_is(pc_env_get(req, PC_S("A")), "1"));
    req->layers[req->layer_count++] = &inner;
    pc_env_apply(req);
    CHECK(req->env_count == 41 && pc_env_get(req, PC_S("A")).base == NULL && case_is(pc_env_get(req, PC_S("B")), "2"));
    CHECK(pc_env_get(req, PC_S("b")).base == NULL);
    case_free(one);
}

static void
test_every_status_has_a_phrase(void)
{
    CHECK(strcmp(pc_status_phrase(200), "OK") == 0 && strcmp(pc_status_phrase(404), "Not Found") == 0);
    for (uint32_t status = 0; status < 1000; status++)
        CHECK(pc_status_phrase(status) != NULL && *pc_status_phrase(status) != '\0');
}

int
main(void)
{
    RUN(test_set_replaces_all_of_a_name_and_keeps_its_place);
    RUN(test_add_stops_at_the_end_of_the_table);
    RUN(test_header_applies_on_errors_only_if_always);
    RUN(test_header_edits_without_end_only_as_far_as_the_value);
    RUN(test_header_leaves_framing_alone);
    RUN(test_request_fields_are_those_that_were_left);
    RUN(test_environment_grows_replaces_and_loses_names);
    RUN(test_every_status_has_a_phrase);
    return check_end();
}
