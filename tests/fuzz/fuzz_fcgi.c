/* Invariant: decoding whole == bytewise == random split, in consumption, both streams, end and refusal; each step consumes
 * 1..len and points into what it consumed; what is refused stays refused. Pairs written are the pairs read back from PARAMS
 * records of any room, and a writer without room never writes behind it. */
/* sources: fcgi.c util.c */
/* max_len: 1500 */
/* seeds: fcgi */
#include "gateway.h"

#include "fuzz.h"

struct decoded {
    int status; /* consumed when done, 0 unfinished, error */
    size_t len[2];
    char *data[2]; /* stdout, stderr */
    struct pc_fcgi_event end;
};

static void
check_event(struct decoded *decoded, const struct pc_fcgi_event *event, const char *copy, int status)
{
    size_t which = event->what == PC_FCGI_ERR;

    MUST(event->what <= PC_FCGI_END);
    if (event->what == PC_FCGI_END)
        decoded->end = *event;
    if (event->what != PC_FCGI_OUT && event->what != PC_FCGI_ERR)
        return;
    MUST(event->bytes.len > 0 && event->bytes.base >= copy && event->bytes.base + event->bytes.len <= copy + status);
    memcpy(decoded->data[which] + decoded->len[which], event->bytes.base, event->bytes.len);
    decoded->len[which] += event->bytes.len;
}

static struct decoded
decode(const uint8_t *bytes, size_t size, struct fuzz_split split)
{
    struct pc_fcgi_reader reader = {.request_id = 1};
    struct decoded decoded = {.data = {fuzz_copy(bytes, size), fuzz_copy(bytes, size)}};
    size_t at = 0, have = 0;
    int status = 1;

    while (status >= 0 && have < size) {
        have += fuzz_piece(&split, size - have);
        for (status = 1; status > 0;) {
            struct pc_fcgi_event event = {0};
            char *copy = fuzz_copy(bytes + at, have - at);

            status = pc_fcgi_decode(&reader, copy, have - at, &event);
            MUST(status <= (int)(have - at) && (status >= 0 || status == -PC_E_BAD));
            if (status > 0)
                check_event(&decoded, &event, copy, status);
            else
                MUST(event.what == PC_FCGI_NOTHING);
            free(copy);
            at += status > 0 ? (size_t)status : 0;
        }
    }
    if (status < 0)
        MUST(pc_fcgi_decode(&reader, "\1\6\0\1\0\0\0\0", 8, &decoded.end) == -PC_E_BAD);
    MUST((decoded.end.what == PC_FCGI_END) == reader.is_done);
    decoded.status = status < 0 ? status : reader.is_done ? (int)at : 0;
    return decoded;
}

static void
free_decoded(struct decoded decoded)
{
    free(decoded.data[0]);
    free(decoded.data[1]);
}

static void
check_same(const struct decoded *a, struct decoded b)
{
    MUST(a->status == b.status && a->end.app_status == b.end.app_status && a->end.protocol == b.end.protocol);
    for (size_t i = 0; i < 2; i++)
        MUST(a->len[i] == b.len[i] && memcmp(a->data[i], b.data[i], a->len[i]) == 0);
    free_decoded(b);
}

/* The bytes of the PARAMS stream in `raw`, which must end with an empty record. Returns how many. */
static size_t
join_params(const char *raw, size_t len, char *stream)
{
    size_t used = 0, at = 0, now = 1;

    while (at < len) {
        MUST(now > 0 && len - at >= 8 && raw[at] == 1 && raw[at + 1] == PC_FCGI_PARAMS && raw[at + 2] == 0 && raw[at + 3] == 9);
        now = (size_t)(uint8_t)raw[at + 4] << 8 | (uint8_t)raw[at + 5];
        MUST((now + (uint8_t)raw[at + 6]) % 8 == 0 && len - at - 8 >= now + (uint8_t)raw[at + 6]);
        memcpy(stream + used, raw + at + 8, now);
        used += now;
        at += 8 + now + (uint8_t)raw[at + 6];
    }
    MUST(now == 0 || len == 0);
    return used;
}

static size_t
put_length(char *to, size_t len)
{
    const char four[4] = {(char)(0x80 | len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len};

    if (len > 127)
        memcpy(to, four, 4);
    else
        to[0] = (char)len;
    return len > 127 ? 4 : 1;
}

/* Pairs cut from the data: a byte says how long the name is, two how long the value. Written, and as `want` they must be read
 * back. Returns the length of want. */
static size_t
write_pairs(struct pc_fcgi_writer *writer, const uint8_t *data, size_t size, char *want)
{
    static char value[65536];
    size_t wanted = 0;

    memset(value, 'v', sizeof value);
    for (size_t at = 0; at + 3 < size && wanted < 260000;) {
        size_t name_len = data[at] % 160u, value_len = (size_t)data[at + 1] << 8 | data[at + 2];

        at += 3;
        name_len = name_len < size - at ? name_len : size - at;
        pc_fcgi_param(writer, (struct pc_slice){(const char *)data + at, name_len}, (struct pc_slice){value, value_len});
        wanted += put_length(want + wanted, name_len);
        wanted += put_length(want + wanted, value_len);
        memcpy(want + wanted, data + at, name_len);
        memcpy(want + wanted + name_len, value, value_len);
        wanted += name_len + value_len;
        at += name_len;
    }
    return wanted;
}

static void
check_params(const uint8_t *data, size_t size)
{
    static char stream[400000], want[400000];
    size_t cap = size > 0 && data[0] < 128 ? (size_t)data[0] * 8 : sizeof stream, wanted;
    struct pc_fcgi_writer writer = {.out = malloc(cap + 1), .cap = cap, .request_id = 9};
    int status;

    if (writer.out == NULL)
        abort();
    writer.out[cap] = 0x55;
    wanted = write_pairs(&writer, data, size, want);
    status = pc_fcgi_end_params(&writer);
    MUST(writer.len <= cap && writer.out[cap] == 0x55);
    if (status == 0)
        MUST(join_params(writer.out, writer.len, stream) == wanted && memcmp(stream, want, wanted) == 0);
    else
        MUST(writer.is_full && cap < wanted + 24 + 16 * (1 + wanted / 65528));
    free(writer.out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct decoded whole = decode(data, size, (struct fuzz_split){0});

    check_same(&whole, decode(data, size, (struct fuzz_split){.kind = 1}));
    check_same(&whole, decode(data, size, (struct fuzz_split){.kind = 2, .state = (uint32_t)size}));
    free_decoded(whole);
    check_params(data, size);
    return 0;
}
