/* test_remoteip.c - claims about native/remoteip.c that need no server: see tests/system/test_remoteip.py for who is believed.
 * Runs as:  the developer.   Sees: requests made here.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: remoteip.c access.c cgienv.c fields.c regex.c date.c errlog.c escape.c format.c h1.c host.c uri.c util.c wild.c */
/* flags: -D_GNU_SOURCE */
/* libs: -lpcre2-8 */
#include "arena.c" /* for struct pc_block */

#include <sys/mman.h>

#include "serve_case.h"

#define NAME "X-Forwarded-For"

static struct pc_req *
ask(struct serve_case *one, const char *fields)
{
    struct pc_req *req = case_ask(one, "/", fields);
    one->host.remote_ip_header = PC_S(NAME);
    case_address(&req->client, "192.0.2.7");
    return req;
}

static bool
is_client(const struct pc_req *req, const char *address)
{
    char text[INET6_ADDRSTRLEN];
    return inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)&req->client)->sin_addr, text, sizeof text) != NULL
           && strcmp(text, address) == 0;
}

static size_t
used_bytes(const struct pc_arena *arena)
{
    size_t used = 0;
    for (const struct pc_block *block = arena->first; block != NULL; block = block->next)
        used += block->used;
    return used;
}

static void
test_fields_are_one_list(void)
{
    struct serve_case *one = case_new();
    struct pc_req *req = ask(one, NAME ": 198.51.100.1\r\n" NAME ":\r\nX-Other: 1\r\n" NAME ": 198.51.100.2, 198.51.100.3\r\n");
    pc_remoteip_apply(req);
    CHECK(is_client(req, "198.51.100.2")); /* before it stands an empty element */
    CHECK(pc_slice_eq(req->front_field.value, PC_S("198.51.100.1, ")));
    case_free(one);
}

static void
test_many_fields_take_memory_for_one_list(void)
{
    struct serve_case *one = case_new();
    char fields[4000] = "";
    size_t len = 0;
    for (int i = 0; i < 95; i++)
        len += (size_t)snprintf(fields + len, sizeof fields - len, NAME ": 203.0.113.7\r\n");
    struct pc_req *req = ask(one, fields);
    size_t before = used_bytes(req->arena);
    pc_remoteip_apply(req);
    CHECK(is_client(req, "203.0.113.7"));
    CHECK(used_bytes(req->arena) - before < sizeof fields);
    case_free(one);
}

int
main(void)
{
    RUN(test_fields_are_one_list);
    RUN(test_many_fields_take_memory_for_one_list);
    return check_end();
}
