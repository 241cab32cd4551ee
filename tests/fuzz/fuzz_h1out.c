/* Invariant: a head that is written is one request that our own strict parser takes whole, with the framing that was asked for,
 * one Host, no field that ends here and X-Forwarded-For ending with the client; a room too small is never written behind.
 * A Location is turned around only into our own; a cookie changes only by its attributes' values. */
/* sources: h1out.c cgienv.c fields.c regex.c arena.c date.c errlog.c escape.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
/* flags: -D_GNU_SOURCE */
/* max_len: 900 */
/* seeds: h1out */
/* Input: u8 flags, u8 target length, target, head of the client's request. The target is the Location and cookie, too. */
#include "gateway.h"

#include "fuzz.h"

static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 200};

static void
check_fields(const struct pc_head *head, const char *out, const struct pc_h1out_facts *facts)
{
    static const struct pc_slice never[] = {{"Keep-Alive", 10}, {"TE", 2}, {"Proxy-Connection", 16}, {"Expect", 6}, {"Proxy", 5},
                                            {"X_Forwarded_For", 15}};
    struct pc_slice forwarded = pc_head_find(head, out, PC_S("X-Forwarded-For"));

    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        MUST(pc_head_find(head, out, never[i]).base == NULL);
    MUST(facts->is_upgrade || pc_head_find(head, out, PC_S("Upgrade")).base == NULL);
    MUST(head->has_length == (facts->framing == PC_H1OUT_LENGTH) && head->is_chunked == (facts->framing == PC_H1OUT_CHUNKED));
    MUST(!head->has_length || head->content_length == facts->length);
    MUST(head->wants_close == (!facts->keep && !facts->is_upgrade));
    if (!facts->no_forwarded)
        MUST(forwarded.len >= 7 && memcmp(forwarded.base + forwarded.len - 7, "0.0.0.0", 7) == 0);
}

static void
check_head(const struct pc_req *req, const struct pc_h1out_facts *facts)
{
    static struct pc_head head;
    static char out[40000];
    int len = pc_h1out_head(req, facts, out, sizeof out), again;
    char *exact;

    MUST(len > 0 || len == -PC_E_BAD);
    if (len < 0)
        return;
    memset(&head, 0, sizeof head);
    again = pc_h1_parse_head(&head, out, (size_t)len, &limits);
    MUST(again == len);
    MUST(pc_slice_eq(pc_slice_at(out, head.target), facts->target));
    check_fields(&head, out, facts);
    exact = fuzz_copy(out, (size_t)len);
    MUST(pc_h1out_head(req, facts, exact, (size_t)len) == len && memcmp(exact, out, (size_t)len) == 0);
    MUST(pc_h1out_head(req, facts, exact, (size_t)len / 2) == -PC_E_HEAD_LARGE);
    free(exact);
}

static void
check_rewriting(struct pc_arena *arena, struct pc_slice text)
{
    static const struct pc_pair reverse[] = {{{"/app", 4}, {"http://b:80/in/", 15}}, {{"/", 1}, {"/", 1}}};
    static const struct pc_pair paths[] = {{{"/in/", 4}, {"/", 1}}}, domains[] = {{{"b", 1}, {"me", 2}}};
    struct pc_slice got = pc_proxy_reverse(arena, text, PC_S("http://me"), reverse, 2);

    if (got.base != NULL)
        MUST(pc_slice_starts(got, PC_S("http://me/")) && got.len <= text.len + 13);
    got = pc_proxy_cookie(arena, text, paths, 1, domains, 1);
    MUST(got.len <= text.len + 1);
    for (size_t i = 0; i < got.len && text.base[i] != ';'; i++)
        MUST(got.base[i] == text.base[i]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pc_head head;
    static struct pc_config config;
    static struct pc_host host;
    struct pc_arena arena = {0};
    struct pc_req *req = calloc(1, sizeof *req);
    struct pc_h1out_facts facts = {.host = PC_S("b:80"), .length = 7};
    char *copy, *target;

    if (req == NULL)
        abort();
    if (size < 2 || 2 + (size_t)data[1] > size) {
        free(req);
        return 0;
    }
    target = fuzz_copy(data + 2, data[1]);
    copy = fuzz_copy(data + 2 + data[1], size - 2 - data[1]);
    facts.target = (struct pc_slice){target, data[1]};
    facts.preserve_host = (data[0] & 1) != 0;
    facts.no_forwarded = (data[0] & 2) != 0;
    facts.keep = (data[0] & 4) != 0;
    facts.framing = (uint8_t)(data[0] >> 3) % 3;
    memset(&head, 0, sizeof head);
    host.name = PC_S("h.example");
    check_rewriting(&arena, facts.target);
    if (pc_h1_parse_head(&head, copy, size - 2 - data[1], &limits) > 0) {
        *req = (struct pc_req){.config = &config, .host = &host, .arena = &arena, .raw = copy, .head = &head,
                               .is_tls = (data[0] & 64) != 0};
        req->client.ss_family = AF_INET;
        facts.is_upgrade = (data[0] & 128) != 0 && pc_h1out_wants_upgrade(req);
        if (data[1] == 0 || target[0] != '*')
            check_head(req, &facts);
    }
    pc_arena_free(&arena);
    free(target);
    free(copy);
    free(req);
    return 0;
}
