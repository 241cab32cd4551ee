/* Invariant: in whatever pieces a chunked body comes, its trailer section is gathered as it was sent; of it goes on what is a field, may pass,
 * and is in the section in that order; written anew, as a client gets it, it is a section once more, with the same fields. What is left of a
 * Trailer field names only such fields, and nothing is left of that when it is looked at again. */
/* sources: trailer.c chunked.c reply.c arena.c util.c */
/* max_len: 2000 */
/* seeds: trailer chunked */
#include "gateway.h"

#include "fuzz.h"

static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop, a\r\n\r\n";
static struct pc_reply reply;
static struct pc_arena arena;

struct section {
    char *bytes;
    size_t len;
    bool is_whole;
    uint32_t fields;
};

static struct section
gather(const void *bytes, size_t size, struct fuzz_split split)
{
    struct pc_chunked chunked = {0};
    struct section section = {.bytes = fuzz_copy(bytes, size)};
    size_t at = 0, have = 0;
    while (!chunked.is_done && have < size) {
        have += fuzz_piece(&split, size - have);
        while (at < have && !chunked.is_done) {
            struct pc_slice data = {0};
            int used = pc_chunked_decode(&chunked, (const char *)bytes + at, have - at, &data);
            MUST(used <= (int)(have - at) && (used < 0 || (used > 0 && (size_t)chunked.fresh_bytes <= (size_t)used - data.len)));
            if (used < 0)
                return section;
            at += (size_t)used;
            memcpy(section.bytes + section.len, (const char *)bytes + at - chunked.fresh_bytes, chunked.fresh_bytes);
            section.len += chunked.fresh_bytes;
        }
    }
    MUST(chunked.trailer_fields <= PC_MAX_TRAILER_FIELDS && section.len <= PC_MAX_TRAILER_BYTES + 1);
    section.is_whole = chunked.is_done;
    section.fields = chunked.trailer_fields;
    return section;
}

static void
check_split(const struct section *whole, const void *bytes, size_t size, struct fuzz_split split)
{
    struct section other = gather(bytes, size, split);
    MUST(other.is_whole == whole->is_whole);
    MUST(!whole->is_whole || (other.len == whole->len && memcmp(other.bytes, whole->bytes, whole->len) == 0));
    free(other.bytes);
}

static void
check_field(const struct pc_pair *field)
{
    MUST(field->name.len > 0 && pc_trailer_may_pass(&reply, head, field->name) && !pc_slice_ieq(field->name, PC_S("x-hop")));
    for (size_t i = 0; i < field->name.len; i++)
        MUST(pc_byte_is_token((uint8_t)field->name.base[i]));
    for (size_t i = 0; i < field->value.len; i++)
        MUST(pc_byte_is_text((uint8_t)field->value.base[i]));
}

/* As respond.c writes them. */
static void
check_again(const struct pc_pair *fields, uint32_t count)
{
    char *text = malloc(2 * PC_MAX_TRAILER_BYTES);
    if (text == NULL)
        abort();
    size_t len = (size_t)snprintf(text, 8, "0\r\n");
    for (uint32_t i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, 2 * PC_MAX_TRAILER_BYTES - len, "%.*s: %.*s\r\n", (int)fields[i].name.len, fields[i].name.base,
                                (int)fields[i].value.len, fields[i].value.base);
    memcpy(text + len, "\r\n", 2);
    struct section again = gather(text, len + 2, (struct fuzz_split){0});
    const struct pc_pair *others = NULL;
    MUST(again.is_whole && again.fields == count && again.len == len - 1);
    MUST(pc_trailer_take(&arena, (struct pc_slice){again.bytes, again.len}, &reply, head, &others) == count);
    for (uint32_t i = 0; i < count; i++)
        MUST(pc_slice_eq(others[i].name, fields[i].name) && pc_slice_eq(others[i].value, fields[i].value));
    free(again.bytes);
    free(text);
}

static void
check_names(const void *bytes, size_t size)
{
    char *copy = fuzz_copy(bytes, size);
    struct pc_slice left = pc_trailer_names(&arena, (struct pc_slice){copy, size}, &reply, head), name;
    for (size_t at = 0; left.len > 0 && pc_list_next(left, &at, &name);)
        MUST(name.len > 0 && pc_trailer_may_pass(&reply, head, name));
    MUST(pc_slice_eq(left, pc_trailer_names(&arena, left, &reply, head)));
    free(copy);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    MUST(pc_reply_parse_http(&reply, head, sizeof head - 1, false) > 0);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct section whole = gather(data, size, (struct fuzz_split){0});
    const struct pc_pair *fields = NULL;
    check_split(&whole, data, size, (struct fuzz_split){.kind = 1});
    check_split(&whole, data, size, (struct fuzz_split){.kind = 2, .state = (uint32_t)size});
    if (whole.is_whole) {
        char *exact = fuzz_copy(whole.bytes, whole.len);
        uint32_t count = pc_trailer_take(&arena, (struct pc_slice){exact, whole.len}, &reply, head, &fields);
        MUST(count <= whole.fields);
        for (uint32_t i = 0; i < count; i++)
            check_field(&fields[i]);
        check_again(fields, count);
        free(exact);
    }
    check_names(data, size);
    free(whole.bytes);
    pc_arena_reset(&arena);
    return 0;
}
