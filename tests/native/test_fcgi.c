/* test_fcgi.c - claims about native/fcgi.c: records as the specification has them, and only those. */
/* sources: fcgi.c util.c */
#include "gateway.h"

#include "check.h"

#define OUT_CAP 400000

static char out[OUT_CAP];

static struct pc_fcgi_writer
new_writer(size_t cap)
{
    memset(out, 0x55, sizeof out);
    return (struct pc_fcgi_writer){.out = out, .cap = cap, .request_id = 0x0102};
}

static void
test_a_request_is_encoded_byte_by_byte(void)
{
    static const uint8_t want[] = {
        1, 1, 1, 2, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0,                                    /* BEGIN, keep */
        1, 4, 1, 2, 0, 9, 7, 0, 1, 1, 'A', 'b', 2, 1, 'C', 'D', 'e', 0, 0, 0, 0, 0, 0, 0, /* PARAMS, 7 of padding */
        1, 4, 1, 2, 0, 0, 0, 0,
    };
    struct pc_fcgi_writer writer = new_writer(sizeof want);

    pc_fcgi_begin(&writer, true);
    pc_fcgi_param(&writer, PC_S("A"), PC_S("b"));
    CHECK_EQ(pc_fcgi_param_sink(&writer, PC_S("CD"), PC_S("e")), 0);
    CHECK_EQ(pc_fcgi_end_params(&writer), 0);
    CHECK(writer.len == sizeof want && memcmp(out, want, sizeof want) == 0);
    for (size_t cap = 0; cap < sizeof want; cap++) {
        writer = new_writer(cap);
        pc_fcgi_begin(&writer, false);
        pc_fcgi_param(&writer, PC_S("A"), PC_S("b"));
        pc_fcgi_param(&writer, PC_S("CD"), PC_S("e"));
        CHECK_EQ(pc_fcgi_end_params(&writer), -PC_E_HEAD_LARGE);
        CHECK(writer.len <= cap && out[cap] == 0x55);
        CHECK_EQ(pc_fcgi_param_sink(&writer, PC_S(""), PC_S("")), -PC_E_HEAD_LARGE);
    }
}

static void
test_heads_tell_their_padding(void)
{
    char head[PC_FCGI_HEAD_BYTES];

    CHECK_EQ(pc_fcgi_head(head, PC_FCGI_STDIN, 1, 0), 0);
    CHECK(memcmp(head, "\1\5\0\1\0\0\0\0", 8) == 0);
    CHECK_EQ(pc_fcgi_head(head, PC_FCGI_STDIN, 0x1234, 0x1fff), 1);
    CHECK(memcmp(head, "\1\5\x12\x34\x1f\xff\1\0", 8) == 0);
    CHECK_EQ(pc_fcgi_head(head, PC_FCGI_STDIN, 1, 65535), 1);
    CHECK_EQ(pc_fcgi_head(head, PC_FCGI_ABORT_REQUEST, 1, 0), 0);
    CHECK(head[1] == 2);
}

static size_t
read_length(const uint8_t *p, size_t *at)
{
    size_t len = p[*at];

    if (len < 128) {
        *at += 1;
        return len;
    }
    len = (len & 127) << 24 | (size_t)p[*at + 1] << 16 | (size_t)p[*at + 2] << 8 | p[*at + 3];
    *at += 4;
    return len;
}

/* Pairs of these lengths, read back from the records. */
static void
check_pairs(const size_t *lens, size_t count)
{
    static char value[OUT_CAP];
    static uint8_t stream[OUT_CAP];
    struct pc_fcgi_writer writer = new_writer(sizeof out);
    size_t used = 0, records = 0, at = 0;

    memset(value, 'v', sizeof value);
    for (size_t i = 0; i < count; i++)
        pc_fcgi_param(&writer, PC_S("NAME"), (struct pc_slice){value, lens[i]});
    CHECK_EQ(pc_fcgi_end_params(&writer), 0);
    while (at + 8 <= writer.len) {
        size_t len = (size_t)(uint8_t)out[at + 4] << 8 | (uint8_t)out[at + 5];

        CHECK(out[at] == 1 && out[at + 1] == 4 && (len + (uint8_t)out[at + 6]) % 8 == 0);
        memcpy(stream + used, out + at + 8, len);
        used += len;
        at += 8 + len + (uint8_t)out[at + 6];
        records++;
        CHECK_EQ(len == 0, at == writer.len);
    }
    CHECK_EQ(records, 1 + (used + 65527) / 65528);
    at = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ(read_length(stream, &at), 4);
        CHECK_EQ(read_length(stream, &at), lens[i]);
        CHECK(memcmp(stream + at, "NAME", 4) == 0 && memcmp(stream + at + 4, value, lens[i]) == 0);
        at += 4 + lens[i];
    }
    CHECK_EQ(at, used);
}

static void
test_long_pairs_and_long_streams_span_records(void)
{
    static const size_t edges[] = {0, 1, 127, 128, 129, 255, 256, 65519, 65520, 65521, 65528, 65535, 65536, 131056, 200000};

    for (size_t i = 0; i < COUNT_OF(edges); i++)
        check_pairs(&edges[i], 1);
    check_pairs(edges, 9);
    check_pairs((const size_t[]){65514, 3, 65528, 0, 0}, 5);
    check_pairs(NULL, 0);
}

struct decoded {
    int status; /* consumed when done, 0 unfinished, error */
    char text[256], errors[256];
    struct pc_fcgi_event end;
};

static void
add(char *to, struct pc_slice bytes)
{
    size_t len = strlen(to);

    CHECK(bytes.len > 0 && len + bytes.len < 256);
    memcpy(to + len, bytes.base, bytes.len);
    to[len + bytes.len] = '\0';
}

static void
decode_pieces(const char *raw, size_t len, size_t piece, struct decoded *ret)
{
    struct pc_fcgi_reader reader = {.request_id = 1};
    size_t at = 0, have = 0;

    memset(ret, 0, sizeof *ret);
    while (have < len && !reader.is_done) {
        int status = 1;

        have = len - have < piece ? len : have + piece;
        while (status > 0) {
            struct pc_fcgi_event event = {0};
            char *copy = check_copy(raw + at, have - at);

            status = pc_fcgi_decode(&reader, copy, have - at, &event);
            if (status < 0)
                CHECK_EQ(pc_fcgi_decode(&reader, "\1\6\0\1\0\0\0\0", 8, &event), -PC_E_BAD);
            else if (event.what == PC_FCGI_OUT || event.what == PC_FCGI_ERR)
                add(event.what == PC_FCGI_OUT ? ret->text : ret->errors, event.bytes);
            else if (event.what == PC_FCGI_END)
                ret->end = event;
            free(copy);
            if (status < 0) {
                ret->status = status;
                return;
            }
            at += (size_t)status;
        }
    }
    ret->status = reader.is_done ? (int)at : 0;
}

#define BYTES(literal) (literal), sizeof(literal) - 1
#define OUT_HI "\1\6\0\1\0\2\6\0Hi......"
#define ERR_OOPS "\1\7\0\1\0\4\0\0oops"
#define END_7 "\1\3\0\1\0\10\0\0\0\0\0\7\0\0\0\0"

static void
check_decoded(const char *raw, size_t len, int want, const char *text, const char *errors, uint32_t app_status, uint8_t protocol)
{
    struct decoded got;

    for (size_t piece = 1; piece <= len; piece++) {
        decode_pieces(raw, len, piece, &got);
        CHECK_EQ(got.status, want);
        CHECK_FOR(text, strcmp(got.text, text) == 0 && strcmp(got.errors, errors) == 0);
        CHECK(got.end.app_status == app_status && got.end.protocol == protocol);
        CHECK_EQ(got.end.what, want > 0 ? PC_FCGI_END : PC_FCGI_NOTHING);
    }
}

static void
test_answers_come_apart_in_any_pieces(void)
{
    check_decoded(BYTES(OUT_HI ERR_OOPS OUT_HI END_7 "next"), 60, "HiHi", "oops", 7, 0);
    check_decoded(BYTES("\1\6\0\1\0\0\0\0" "\1\7\0\1\0\0\3\0..." END_7), 35, "", "", 7, 0);
    check_decoded(BYTES("\1\3\0\1\0\10\2\0\xff\xff\xff\xff\2\0\0\0.."), 18, "", "", 0xffffffff, PC_FCGI_OVERLOADED);
    check_decoded(BYTES("\1\3\0\1\0\10\2\0\xff\xff\xff\xff\2\0\0\0."), 0, "", "", 0, 0);
    check_decoded(BYTES(OUT_HI ERR_OOPS), 0, "Hi", "oops", 0, 0);
    check_decoded(BYTES("\1\6\0\1\0\5\0\0Hi"), 0, "Hi", "", 0, 0);
}

static void
test_an_end_whose_padding_is_missing_is_known(void)
{
    struct pc_fcgi_reader reader = {.request_id = 1};
    struct pc_fcgi_event event;

    CHECK_EQ(pc_fcgi_decode(&reader, "\1\3\0\1\0\10\1\0", 8, &event), 8);
    CHECK(!reader.has_end && event.what == PC_FCGI_NOTHING);
    CHECK_EQ(pc_fcgi_decode(&reader, "\0\0\0\0\0\0\0\0", 8, &event), 8);
    CHECK(reader.has_end && !reader.is_done && event.what == PC_FCGI_NOTHING);
    CHECK_EQ(pc_fcgi_decode(&reader, "xyz", 3, &event), 1);
    CHECK(reader.is_done && event.what == PC_FCGI_END);
    CHECK_EQ(pc_fcgi_decode(&reader, "yz", 2, &event), 0);
}

static void
test_what_is_not_ours_is_refused(void)
{
    static const struct {
        const char *raw;
        size_t len;
    } rows[] = {
        {BYTES("\0\6\0\1\0\0\0\0")}, {BYTES("\2\6\0\1\0\0\0\0")}, {BYTES("HTTP/1.1 200 OK\r\n")}, /* version */
        {BYTES("\1\6\0\2\0\0\0\0")}, {BYTES("\1\6\1\1\0\0\0\0")}, {BYTES("\1\6\0\0\0\0\0\0")},      /* request */
        {BYTES("\1\1\0\1\0\10\0\0")}, {BYTES("\1\2\0\1\0\0\0\0")}, {BYTES("\1\4\0\1\0\0\0\0")},     /* our own types */
        {BYTES("\1\5\0\1\0\0\0\0")}, {BYTES("\1\10\0\1\0\0\0\0")}, {BYTES("\1\0\0\1\0\0\0\0")},
        {BYTES("\1\11\0\0\0\0\0\0")}, {BYTES("\1\13\0\0\0\10\0\0")}, {BYTES("\1\14\0\1\0\0\0\0")}, /* never asked for */
        {BYTES("\1\3\0\1\0\0\0\0")}, {BYTES("\1\3\0\1\0\7\0\0")}, {BYTES("\1\3\0\1\0\11\0\0")}, {BYTES("\1\3\0\1\1\10\0\0")},
    };
    struct decoded got;

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        for (size_t piece = 1; piece <= rows[i].len; piece++) {
            decode_pieces(rows[i].raw, rows[i].len, piece, &got);
            CHECK_EQ(got.status, -PC_E_BAD);
        }
    decode_pieces(BYTES(OUT_HI "\1\6\0\2\0\0\0\0"), 64, &got);
    CHECK(got.status == -PC_E_BAD && strcmp(got.text, "Hi") == 0);
}

int
main(void)
{
    RUN(test_a_request_is_encoded_byte_by_byte);
    RUN(test_heads_tell_their_padding);
    RUN(test_long_pairs_and_long_streams_span_records);
    RUN(test_answers_come_apart_in_any_pieces);
    RUN(test_an_end_whose_padding_is_missing_is_known);
    RUN(test_what_is_not_ours_is_refused);
    return check_end();
}
