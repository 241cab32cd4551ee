/* Invariant: whole == bytewise == random split; result <= len; every span lies in the head, holds
 * no CR, LF or NUL; what is accepted has exactly one meaning (Host as parsed, one framing) and is
 * accepted again as it stands; what is refused has a sentence that says why. */
/* sources: h1.c host.c util.c why.c */
/* max_len: 700 */
/* seeds: http1 */
#include "pc.h"

#include "fuzz.h"

static const struct pc_h1_limits limits = {
    .line_bytes = 300, .field_bytes = 300, .field_count = 12};

static int
parse(struct pc_head *head, const uint8_t *data, size_t size, struct fuzz_split split)
{
    size_t have = 0;
    int status = 0;

    memset(head, 0, offsetof(struct pc_head, fields));
    while (status == 0 && have < size) {
        char *copy;

        have += fuzz_piece(&split, size - have);
        copy = fuzz_copy(data, have);
        status = pc_h1_parse_head(head, copy, have, &limits);
        free(copy);
        MUST(status <= (int)have);
        MUST(head->at <= have);
    }
    return status;
}

static void
check_span(const uint8_t *data, struct pc_span span, int head_len, size_t most)
{
    MUST(span.len <= most && span.at <= (uint32_t)head_len &&
         span.len <= (uint32_t)head_len - span.at);
    for (uint32_t i = 0; i < span.len; i++)
        MUST(data[span.at + i] != '\r' && data[span.at + i] != '\n' && data[span.at + i] != '\0' &&
             data[span.at + i] != 0x7f);
}

static void
check_head(const struct pc_head *head, const uint8_t *data, int len)
{
    struct pc_hostname again;

    MUST(len >= 18 && memcmp(data + len - 4, "\r\n\r\n", 4) == 0 && head->at == (uint32_t)len);
    check_span(data, head->line, len, 300);
    check_span(data, head->method, len, 32);
    check_span(data, head->target, len, 300);
    check_span(data, head->path, len, 300);
    check_span(data, head->authority, len, 300);
    MUST(head->method.len > 0 && head->path.len > 0 && head->minor <= 1 && head->field_count <= 12);
    MUST(data[head->path.at] == '/' || (head->path.len == 1 && head->method_id == PC_OPTIONS));
    for (uint32_t i = 0; i < head->field_count; i++) {
        check_span(data, head->fields[i].name, len, 300);
        check_span(data, head->fields[i].value, len, 300);
        MUST(head->fields[i].name.len > 0 && head->fields[i].id <= PC_F_OTHER);
        if (head->fields[i].id < PC_F_KNOWN)
            MUST(head->known[head->fields[i].id] > 0 && head->known[head->fields[i].id] <= i + 1);
    }
    MUST(!(head->is_chunked && head->has_length) && !(head->is_chunked && head->minor == 0));
    MUST(!head->has_length || head->content_length <= INT64_MAX);
    MUST(head->minor == 0 || head->known[PC_F_HOST] > 0);
    MUST(head->host.len <= PC_MAX_HOST_BYTES && head->host.name[head->host.len] == '\0');
    MUST(pc_host_parse((struct pc_slice){.base = head->host.name, .len = head->host.len}, &again) ==
         0);
    MUST(again.len == head->host.len && memcmp(again.name, head->host.name, again.len) == 0);
}

static void
check_why(const uint8_t *data, size_t size, int status)
{
    struct pc_why why;
    char *copy = fuzz_copy(data, size);

    memset(&why, 'x', sizeof why);
    pc_why_refused(status, (struct pc_slice){copy, size}, &limits, &why);
    MUST(memchr(why.text, '\0', sizeof why.text) != NULL && memcmp(why.text, "AH", 2) == 0);
    MUST(why.level == PC_ERROR || why.level == PC_INFO || why.level == PC_DEBUG);
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pc_head whole, other;
    uint32_t seed = 2;
    int status = parse(&whole, data, size, (struct fuzz_split){0});

    for (size_t i = 0; i < size; i++)
        seed = seed * 31 + data[i];
    MUST(parse(&other, data, size, (struct fuzz_split){.kind = 1}) == status);
    if (status > 0)
        MUST(memcmp(whole.fields, other.fields, whole.field_count * sizeof(whole.fields[0])) == 0);
    MUST(parse(&other, data, size, (struct fuzz_split){.kind = seed | 2, .state = seed}) == status);
    if (size > 0)
        check_why(data, size, status < 0 ? status : -PC_E_HEAD_LARGE);
    if (status <= 0)
        return 0;
    check_head(&whole, data, status);
    MUST(whole.field_count == other.field_count && whole.is_chunked == other.is_chunked);
    MUST(memcmp(whole.fields, other.fields, whole.field_count * sizeof(whole.fields[0])) == 0);
    MUST(parse(&other, data, (size_t)status, (struct fuzz_split){0}) == status);
    return 0;
}
