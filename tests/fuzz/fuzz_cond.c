/* Invariant: pc_cond_check says 0, 304 or 412, 304 only to GET and HEAD; ranges lie in the file,
 * are not empty, at most PC_MAX_RANGES, and their sum is at most the file's size; a refusal writes
 * nothing. */
/* sources: cond.c date.c h1.c host.c util.c */
/* seeds: cond */
#include "pc.h"

#include "fuzz.h"

static void
check_ranges(struct pc_slice value, uint64_t size)
{
    static const struct pc_range none[PC_MAX_RANGES];
    struct pc_range ranges[PC_MAX_RANGES] = {0};
    int count = pc_range_parse(value, size, ranges);
    uint64_t sum = 0;

    MUST(count == -PC_E_RANGE || (count >= 0 && count <= PC_MAX_RANGES));
    if (count <= 0) {
        MUST(memcmp(ranges, none, sizeof(none)) == 0);
        return;
    }
    for (int i = 0; i < count; i++) {
        MUST(ranges[i].length > 0 && ranges[i].first < size &&
             ranges[i].length <= size - ranges[i].first);
        MUST(ranges[i].length <= size - sum);
        sum += ranges[i].length;
    }
}

/* The input is field lines, up to the first empty one, of a GET, HEAD or PUT; its first byte
 * chooses. */
static void
check_fields(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"GET", "HEAD", "PUT"};
    static const struct pc_h1_limits limits = {
        .line_bytes = 8190, .field_bytes = 8190, .field_count = 100};
    static const struct pc_validators now[] = {
        {.etag = {.base = "\"a-1\"", .len = 5}, .modified_s = 784111777},
        {.etag = {.base = "W/\"a-1\"", .len = 7}, .modified_s = 0},
        {.modified_s = -1},
    };
    static struct pc_head head;
    char *text = malloc(size + 64);
    int used = snprintf(text, 64, "%s / HTTP/1.0\r\n", methods[data[0] % 3]);
    bool may_range = false;
    char *exact;

    memcpy(text + used, data + 1, size - 1);
    memcpy(text + used + size - 1, "\r\n\r\n", 4);
    memset(&head, 0, offsetof(struct pc_head, fields));
    exact = fuzz_copy(text, (size_t)used + size + 3);
    if (pc_h1_parse_head(&head, exact, (size_t)used + size + 3, &limits) > 0) {
        int status = pc_cond_check(&head, exact, &now[data[0] / 3 % 3], &may_range);

        MUST(status == 0 || status == 412 || (status == 304 && head.method_id != PC_PUT));
        MUST(!may_range || (head.method_id == PC_GET && head.known[PC_F_RANGE] > 0));
        if (may_range)
            check_ranges(pc_head_field(&head, exact, PC_F_RANGE), 1000);
    }
    free(exact);
    free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc_slice value = {.base = fuzz_copy(data, size), .len = size};

    check_ranges(value, 0);
    check_ranges(value, 1000);
    check_ranges(value, UINT64_MAX);
    if (size > 0 && size < 8000)
        check_fields(data, size);
    free((void *)value.base);
    return 0;
}
