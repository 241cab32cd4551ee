/* Invariant: whole == bytewise == random split; result <= len; every span lies in the head, holds no CR, LF or NUL; what is
 * accepted has one framing, one Content-Length at most and none beside a coding; its head alone is accepted with the same result. */
/* sources: reply.c util.c */
/* max_len: 700 */
/* seeds: reply */
#include "gateway.h"

#include "fuzz.h"

static int
parse_once(struct pc_reply *reply, uint8_t how, const char *buf, size_t len)
{
    if (how % 4 == 0)
        return pc_reply_parse_cgi(reply, buf, len);
    if (how % 4 == 1)
        return pc_reply_parse_nph(reply, buf, len, (how & 4) != 0);
    return pc_reply_parse_http(reply, buf, len, (how & 4) != 0);
}

static int
parse(struct pc_reply *reply, uint8_t how, const uint8_t *data, size_t size, struct fuzz_split split)
{
    size_t have = 0;
    int status = 0;

    memset(reply, 0, offsetof(struct pc_reply, fields));
    while (status == 0 && have < size) {
        char *copy;

        have += fuzz_piece(&split, size - have);
        copy = fuzz_copy(data, have);
        status = parse_once(reply, how, copy, have);
        free(copy);
        MUST(status <= (int)have && reply->at <= have);
        MUST(status >= 0 || status == -PC_E_BAD || status == -PC_E_HEAD_LARGE);
    }
    return status;
}

static void
check_span(const uint8_t *data, struct pc_span span, int len)
{
    MUST(span.at <= (uint32_t)len && span.len <= (uint32_t)len - span.at);
    for (uint32_t i = 0; i < span.len; i++)
        MUST(data[span.at + i] == '\t' || (data[span.at + i] >= 0x20 && data[span.at + i] != 0x7f));
}

static void
check_fields(const struct pc_reply *reply, const uint8_t *data, int len)
{
    uint32_t lengths = 0, codings = 0;

    MUST(reply->field_count <= PC_MAX_REPLY_FIELDS);
    for (uint32_t i = 0; i < reply->field_count; i++) {
        const struct pc_reply_field *field = &reply->fields[i];
        bool is_coding = field->id == PC_REPLY_TRANSFER_ENCODING;

        check_span(data, field->name, len);
        check_span(data, field->value, len);
        MUST(field->name.len > 0 && field->id < PC_REPLY_IDS);
        MUST(!is_coding || field->is_hop);
        lengths += field->id == PC_REPLY_CONTENT_LENGTH;
        codings += is_coding;
    }
    MUST(lengths <= 1 && (lengths == 0 || codings == 0) && reply->has_length == (lengths == 1));
}

static void
check_reply(const struct pc_reply *reply, uint8_t how, const uint8_t *data, int len)
{
    MUST(reply->at == (uint32_t)len && data[len - 1] == '\n');
    MUST(reply->status >= 100 && reply->status <= 999 && reply->minor <= 1 && reply->framing <= PC_REPLY_TUNNEL);
    check_span(data, reply->reason, len);
    check_span(data, reply->location, len);
    check_span(data, reply->content_type, len);
    check_span(data, reply->upgrade, len);
    check_fields(reply, data, len);
    MUST(how % 4 != 0 || (reply->status >= 200 && reply->field_count > 0 && !reply->is_chunked));
    MUST((reply->framing == PC_REPLY_TUNNEL) == (reply->status == 101));
    MUST(reply->framing != PC_REPLY_LENGTH || (reply->has_length && !reply->is_chunked));
    MUST(reply->framing != PC_REPLY_CHUNKED || (reply->is_chunked && reply->minor == 1));
    MUST(!reply->is_local || (reply->status == 200 && data[reply->location.at] == '/'));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pc_reply whole, other;
    uint8_t how;
    uint32_t seed = 2;
    int status;

    if (size == 0)
        return 0;
    how = *data++;
    size--;
    for (size_t i = 0; i < size; i++)
        seed = seed * 31 + data[i];
    status = parse(&whole, how, data, size, (struct fuzz_split){0});
    MUST(parse(&other, how, data, size, (struct fuzz_split){.kind = 1}) == status);
    MUST(parse(&other, how, data, size, (struct fuzz_split){.kind = seed | 2, .state = seed}) == status);
    if (status <= 0)
        return 0;
    check_reply(&whole, how, data, status);
    MUST(parse(&other, how, data, (size_t)status, (struct fuzz_split){0}) == status);
    MUST(memcmp(&whole, &other, offsetof(struct pc_reply, seen)) == 0 && whole.framing == other.framing);
    MUST(whole.length == other.length && whole.status == other.status && whole.field_count == other.field_count);
    return 0;
}
