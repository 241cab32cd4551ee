/* Invariant: names are unique and [A-Za-z_][A-Za-z0-9_]*, values hold no NUL; HTTP_PROXY is never there, HTTP_AUTHORIZATION only
 * when it may be; what SetEnv and the client say never is one of the server's own variables; a block holds exactly what was
 * given, or nothing is written behind its end. */
/* sources: cgienv.c fields.c regex.c arena.c date.c errlog.c escape.c format.c h1.c host.c uri.c util.c wild.c */
/* libs: -lpcre2-8 */
/* flags: -D_GNU_SOURCE */
/* max_len: 900 */
/* seeds: cgienv */
/* Input: u8 flags (1 FastCGI, 2 auth, 4 TLS, 8 edits), u8 length of "name value\n"... for SetEnv and RequestHeader, those, head. */
#include "gateway.h"

#include "fuzz.h"

#define MOST 600

struct seen {
    uint32_t count;
    struct pc_pair list[MOST];
};

static int
keep(void *to, struct pc_slice name, struct pc_slice value)
{
    struct seen *seen = to;

    MUST(seen->count < MOST && name.len > 0 && value.base != NULL);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.base[i];

        MUST((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (i > 0 && c >= '0' && c <= '9'));
    }
    MUST(memchr(value.base, '\0', value.len) == NULL);
    MUST(!pc_slice_eq(name, PC_S("HTTP_PROXY")));
    for (uint32_t i = 0; i < seen->count; i++)
        MUST(!pc_slice_eq(seen->list[i].name, name));
    seen->list[seen->count++] = (struct pc_pair){name, value};
    return 0;
}

static struct pc_slice
value_of(const struct seen *seen, struct pc_slice name)
{
    for (uint32_t i = 0; i < seen->count; i++)
        if (pc_slice_eq(seen->list[i].name, name))
            return seen->list[i].value;
    return (struct pc_slice){0};
}

/* "name value\n": SetEnv of each, and RequestHeader set when `edits`. */
static void
take_pairs(struct pc_req *req, struct pc_slice text, bool edits)
{
    req->in_edits = pc_arena_alloc(req->arena, (text.len + 1) * sizeof *req->in_edits);
    while (text.len > 0) {
        const char *end = memchr(text.base, '\n', text.len), *blank;
        size_t len = end != NULL ? (size_t)(end - text.base) : text.len;
        struct pc_slice name = {text.base, len}, value = PC_S("");

        blank = memchr(text.base, ' ', len);
        if (blank != NULL) {
            name.len = (size_t)(blank - text.base);
            value = (struct pc_slice){blank + 1, len - name.len - 1};
        }
        pc_env_set(req, name, value);
        if (edits)
            req->in_edits[req->in_edit_count++] = (struct pc_pair){.name = name, .value = blank != NULL ? value : (struct pc_slice){0}};
        len += end != NULL;
        text = (struct pc_slice){text.base + len, text.len - len};
    }
}

static void
check_block(const struct pc_req *req, const struct pc_cgienv_facts *facts, const struct seen *seen, size_t cap)
{
    struct pc_cgienv_block block = {.out = malloc(cap + 1), .cap = cap};
    size_t want = 0;
    int status;

    if (block.out == NULL)
        abort();
    block.out[cap] = 0x55;
    status = pc_cgienv_each(req, facts, pc_cgienv_block_sink, &block);
    for (uint32_t i = 0; i < seen->count; i++)
        want += seen->list[i].name.len + seen->list[i].value.len + 2;
    MUST(block.out[cap] == 0x55 && block.len <= cap && status == (want <= cap ? 0 : -PC_E_HEAD_LARGE));
    MUST(status < 0 || (block.len == want && block.count == seen->count));
    free(block.out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pc_h1_limits limits = {.line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    static struct pc_head head;
    static struct pc_config config;
    static struct pc_host host;
    static struct seen seen;
    struct pc_arena arena = {0};
    struct pc_req *req = calloc(1, sizeof *req);
    struct pc_cgienv_facts facts = {.body_len = UINT64_MAX, .path_info = PC_S("/info"), .script_filename = PC_S("/f")};
    size_t text_len;
    char *copy;

    if (req == NULL)
        abort();
    if (size < 2 || 2 + (size_t)data[1] > size) {
        free(req);
        return 0;
    }
    text_len = data[1];
    copy = fuzz_copy(data, size);
    memset(&head, 0, sizeof head);
    seen.count = 0;
    host.name = PC_S("h.example");
    if (pc_h1_parse_head(&head, copy + 2 + text_len, size - 2 - text_len, &limits) > 0) {
        *req = (struct pc_req){.config = &config, .host = &host, .arena = &arena, .raw = copy + 2 + text_len, .head = &head,
                               .path = PC_S("/a/info"), .is_tls = (data[0] & 4) != 0};
        req->client.ss_family = AF_INET;
        take_pairs(req, (struct pc_slice){copy + 2, text_len}, (data[0] & 8) != 0);
        facts.kind = data[0] & 1;
        facts.pass_auth = (data[0] & 2) != 0;
        MUST(pc_cgienv_each(req, &facts, keep, &seen) == 0);
        MUST(pc_slice_eq(value_of(&seen, PC_S("REMOTE_ADDR")), PC_S("0.0.0.0")));
        MUST(pc_slice_eq(value_of(&seen, PC_S("SCRIPT_FILENAME")), PC_S("/f")));
        MUST(pc_slice_eq(value_of(&seen, PC_S("SCRIPT_NAME")), PC_S("/a")));
        MUST(value_of(&seen, PC_S("CONTENT_LENGTH")).base == NULL && value_of(&seen, PC_S("REMOTE_HOST")).base == NULL);
        MUST((data[0] & 3) != 0 || text_len > 0 || value_of(&seen, PC_S("HTTP_AUTHORIZATION")).base == NULL);
        check_block(req, &facts, &seen, (size_t)data[0] * 16);
    }
    pc_arena_free(&arena);
    free(copy);
    free(req);
    return 0;
}
