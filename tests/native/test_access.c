/* test_access.c - claims about access.c: what a Require tree and Order, Allow, Deny say.
 * Runs as:  the developer.   Sees: trees made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: access.c regex.c arena.c date.c errlog.c escape.c fields.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <sys/mman.h>

#include "serve_case.h"

#define YES 0
#define NO (-PC_E_FORBIDDEN)

/* Trees as text: + granted, - denied, 0 neutral (a negated denial), ? a client's name, ! negates the next, (all [any {none. */
static struct child_bytes
tree(const char **text)
{
    struct child_bytes nodes = {0};
    bool is_negated = false;

    for (; **text != '\0' && strchr(")]}", **text) == NULL; (*text)++) {
        const char c = **text;
        struct child_bytes inner = {0};

        if (c == '!') {
            is_negated = true;
            continue;
        }
        if (strchr("([{", c) != NULL) {
            (*text)++;
            inner = tree(text);
            case_node(&nodes, c == '(' ? PC_ACC_ALL : c == '[' ? PC_ACC_ANY : PC_ACC_NONE, is_negated, inner.base, inner.len);
        } else if (c == '?') {
            case_node(&nodes, PC_ACC_HOST, is_negated, "example.org", 11);
        } else {
            case_node(&nodes, c == '+' ? PC_ACC_GRANTED : PC_ACC_DENIED, is_negated || c == '0', NULL, 0);
        }
        is_negated = false;
    }
    return nodes;
}

static int
judge(struct serve_case *one, struct pc_slice require)
{
    struct pc_req *req = case_ask(one, "/", "");

    case_address(&req->client, "192.0.2.7");
    case_address(&req->server, "192.0.2.1");
    one->host.base.require = require;
    return pc_access_judge(req);
}

static void
test_require_combines_rules_as_httpd_does(void)
{
    static const struct { const char *text; int want; } cases[] = {
        {"[+]", YES}, {"[-]", NO}, {"[]", NO}, {"()", NO}, {"{}", NO}, {"(+)", YES}, {"(+-)", NO}, {"[-+]", YES}, {"[--]", NO},
        {"(+0)", YES}, {"(0)", NO}, {"[0]", NO}, {"(+!+)", NO}, {"(+!-)", YES}, {"[!-]", NO}, {"({-})", NO}, {"(+{-})", YES},
        {"(+{+})", NO}, {"(+{--})", YES}, {"(+{-+})", NO}, {"[(+-)[-+]]", YES}, {"(![+])", NO}, {"(+![-])", YES}, {"(+[])", YES},
        {"[?]", 1}, {"[?+]", YES}, {"[?-]", 1}, {"(?-)", NO}, {"(-?)", NO}, {"(?+)", 1}, {"(+{?})", 1}, {"(+!?)", 1}, {"[(+?)+]", YES},
    };
    struct serve_case *one = case_new();

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *text = cases[i].text;
        struct child_bytes nodes = tree(&text);

        CHECK_EQ_FOR(cases[i].text, judge(one, case_slice(&nodes)), cases[i].want);
    }
    CHECK_EQ(judge(one, (struct pc_slice){0}), YES);
    case_free(one);
}

static void
test_require_denies_by_a_tree_that_is_cut_off(void)
{
    struct serve_case *one = case_new();
    const char *text = "[+]";
    struct child_bytes nodes = tree(&text);

    for (size_t len = 0; len < nodes.len; len++)
        CHECK_EQ(judge(one, (struct pc_slice){nodes.base, len}), NO);
    case_free(one);
}

static bool
network_has(const char *client, const uint8_t *rule, size_t len)
{
    struct serve_case *one = case_new();
    struct child_bytes leaf = {0}, nodes = {0};
    struct pc_req *req = case_ask(one, "/", "");
    bool is_in;

    case_node(&leaf, PC_ACC_IP, false, rule, len);
    case_node(&nodes, PC_ACC_ANY, false, leaf.base, leaf.len);
    one->host.base.require = case_slice(&nodes);
    case_address(&req->client, client);
    is_in = pc_access_judge(req) == 0;
    case_free(one);
    return is_in;
}

static void
test_require_ip_compares_the_prefix_to_the_bit(void)
{
    static const uint8_t nine[] = {4, 9, 10, 128, 0, 0}, none[] = {4, 0, 0, 0, 0, 0}, one[] = {4, 32, 10, 0, 0, 1};
    static const uint8_t v6[18] = {6, 33, 0x20, 1, 0x0d, 0xb8, 0x80}, any6[18] = {6, 0};

    CHECK(network_has("10.128.0.1", nine, 6) && network_has("10.255.0.1", nine, 6));
    CHECK(!network_has("10.127.0.1", nine, 6) && !network_has("11.128.0.1", nine, 6));
    CHECK(network_has("1.2.3.4", none, 6) && !network_has("2001:db8::1", none, 6));
    CHECK(network_has("10.0.0.1", one, 6) && !network_has("10.0.0.2", one, 6));
    CHECK(network_has("::ffff:10.0.0.1", one, 6)); /* on a listener for both families */
    CHECK(network_has("2001:db8:8000::1", v6, 18) && !network_has("2001:db8:7fff::1", v6, 18));
    CHECK(network_has("2001:db8::1", any6, 18) && !network_has("10.0.0.1", any6, 18) && !network_has("::ffff:10.0.0.1", any6, 18));
    CHECK(!network_has("10.128.0.1", nine, 5));
}

static bool
leaf_grants(struct serve_case *one, struct pc_req *req, uint8_t kind, const char *payload)
{
    struct child_bytes leaf = {0}, nodes = {0};

    case_node(&leaf, kind, false, payload, strlen(payload));
    case_node(&nodes, PC_ACC_ANY, false, leaf.base, leaf.len);
    one->host.base.require = case_slice(&nodes);
    return pc_access_judge(req) == 0;
}

static void
test_require_host_matches_names_by_labels(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "");

    req->client_name = PC_S("a.Example.org");
    CHECK(leaf_grants(one, req, PC_ACC_HOST, "example.org") && leaf_grants(one, req, PC_ACC_HOST, ".example.org"));
    CHECK(leaf_grants(one, req, PC_ACC_HOST, "a.example.org") && !leaf_grants(one, req, PC_ACC_HOST, ".a.example.org"));
    CHECK(!leaf_grants(one, req, PC_ACC_HOST, "ample.org") && !leaf_grants(one, req, PC_ACC_HOST, ""));
    req->client_name = PC_S("");
    CHECK(!leaf_grants(one, req, PC_ACC_HOST, "example.org"));
    case_free(one);
}

static void
test_require_local_env_and_method_look_at_the_request(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = case_ask(one, "/", "");

    case_address(&req->client, "127.9.9.9");
    CHECK(leaf_grants(one, req, PC_ACC_LOCAL, ""));
    case_address(&req->client, "::1");
    CHECK(leaf_grants(one, req, PC_ACC_LOCAL, ""));
    case_address(&req->client, "192.0.2.1");
    CHECK(!leaf_grants(one, req, PC_ACC_LOCAL, ""));
    case_address(&req->server, "::ffff:192.0.2.1");
    CHECK(leaf_grants(one, req, PC_ACC_LOCAL, ""));
    CHECK(!leaf_grants(one, req, PC_ACC_ENV, "A"));
    pc_env_set(req, PC_S("A"), PC_S(""));
    CHECK(leaf_grants(one, req, PC_ACC_ENV, "A"));
    CHECK(leaf_grants(one, req, PC_ACC_METHOD, "POST GET") && !leaf_grants(one, req, PC_ACC_METHOD, "POST GETX"));
    case_free(one);
}

static void
test_order_decides_who_has_the_last_word(void)
{
    static const struct { uint32_t order; const char *allow, *deny; int want; } cases[] = {
        {0, "", "", YES}, {0, "-", "+", NO}, {0, "+", "+", YES}, {0, "", "-", YES}, {0, "?", "+", 1}, {0, "+", "?", YES}, {0, "", "?", 1},
        {1, "", "", NO}, {1, "+", "", YES}, {1, "+", "+", NO}, {1, "-", "", NO}, {1, "?", "", 1}, {1, "?", "+", NO}, {1, "+", "?", 1},
        {1, "!-", "", YES}, {1, "!+", "", NO}, {0, "", "!-", NO}, {0, "", "!+", YES}, /* env=!X */
    };
    struct serve_case *one = case_new();

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *allow_text = cases[i].allow, *deny_text = cases[i].deny;
        struct child_bytes allow = tree(&allow_text), deny = tree(&deny_text);
        struct pc_order order = {.order = cases[i].order, .allow = case_slice(&allow), .deny = case_slice(&deny)};
        char number[8];

        (void)snprintf(number, sizeof number, "%zu", i);
        one->host.base.order = &order;
        CHECK_EQ_FOR(number, judge(one, (struct pc_slice){0}), cases[i].want);
    }
    case_free(one);
}

static void
test_both_kinds_of_rules_must_agree(void)
{
    struct serve_case *one = case_new();
    struct pc_order order = {.order = 0};
    const char *text = "[-]";
    struct child_bytes denied = tree(&text);

    one->host.base.order = &order;
    CHECK_EQ(judge(one, case_slice(&denied)), NO);
    order.order = 1;
    CHECK_EQ(judge(one, (struct pc_slice){0}), NO);
    case_free(one);
}

static void
test_check_logs_what_fail2ban_looks_for(void)
{
    struct serve_case *one = case_new();
    const char *text = "[-]";
    struct child_bytes denied = tree(&text);
    struct pc_order order = {.order = 1};
    struct pc_req *req = case_ask(one, "/f", "");

    one->host.base.require = case_slice(&denied);
    req->filename = PC_S("/srv/f");
    case_address(&req->client, "192.0.2.7");
    CHECK_EQ(pc_access_check(req), NO);
    CHECK(case_logged(one, "[authz_core:error]") && case_logged(one, "[client 192.0.2.7:0] AH01630: client denied by server "
                                                                     "configuration: /srv/f\n"));
    one->host.base.order = &order;
    CHECK_EQ(pc_access_check(req), NO);
    CHECK(case_logged(one, "[access_compat:error]") && case_logged(one, "AH01797: client denied by server configuration: /srv/f\n"));
    case_free(one);
}

int
main(void)
{
    RUN(test_require_combines_rules_as_httpd_does);
    RUN(test_require_denies_by_a_tree_that_is_cut_off);
    RUN(test_require_ip_compares_the_prefix_to_the_bit);
    RUN(test_require_host_matches_names_by_labels);
    RUN(test_require_local_env_and_method_look_at_the_request);
    RUN(test_order_decides_who_has_the_last_word);
    RUN(test_both_kinds_of_rules_must_agree);
    RUN(test_check_logs_what_fail2ban_looks_for);
    return check_end();
}
