/* test_chunked.c - claims about native/chunked.c. */
/* sources: chunked.c util.c */
#include "pc.h"

#include "check.h"

#define BODY_CAP 65536

/* Feed `text` in pieces of `piece` bytes. Returns bytes consumed when done, 0 not done, -PC_E_BAD.
 */
static int
feed(const char *text, size_t len, size_t piece, char *body, size_t *ret_body_len)
{
    struct pc_chunked chunked = {0};
    size_t at = 0, have = 0, used = 0;

    while (!chunked.is_done && have < len) {
        have = len - have < piece ? len : have + piece;
        while (at < have && !chunked.is_done) {
            struct pc_slice data = {0};
            char *copy = check_copy(text + at, have - at);
            int status = pc_chunked_decode(&chunked, copy, have - at, &data);

            if (status > 0 && data.len > 0) {
                memcpy(body + used, data.base, data.len);
                used += data.len;
            }
            free(copy);
            if (status < 0)
                return status;
            CHECK(status > 0 && (size_t)status <= have - at);
            at += (size_t)status;
        }
    }
    *ret_body_len = used;
    return chunked.is_done ? (int)at : 0;
}

static void
check_body(const char *text, const char *want, size_t want_consumed)
{
    char body[BODY_CAP];
    size_t used;

    for (size_t piece = 1; piece <= strlen(text); piece++) {
        CHECK_EQ_FOR(text, feed(text, strlen(text), piece, body, &used), want_consumed);
        CHECK_FOR(text, used == strlen(want) && memcmp(body, want, used) == 0);
    }
}

static void
check_refused(const char *text, size_t len)
{
    char body[BODY_CAP];
    size_t used;

    for (size_t piece = 1; piece <= len; piece++)
        CHECK_EQ_FOR(text, feed(text, len, piece, body, &used), -PC_E_BAD);
}

/* Data comes out, sizes, extensions and trailers do not, and nothing behind the end is touched. */
static void
test_chunked_decode_gives_the_data_and_stops_at_the_end(void)
{
    check_body("0\r\n\r\n", "", 5);
    check_body("5\r\nhello\r\n0\r\n\r\nGET /", "hello", 15);
    check_body("3\r\nabc\r\n1\r\nd\r\n000\r\n\r\n", "abcd", 21);
    check_body("A\r\n0123456789\r\n0\r\n\r\n", "0123456789", 20);
    check_body("0000000000000001\r\nx\r\n0\r\n\r\n", "x", 26);
    check_body("5;a\r\nhello\r\n0;b=c;d=\"e\\\" ;f\"\r\n\r\n", "hello", 32);
    check_body("1\r\nx\r\n0\r\nHost: evil\r\nX:\r\n\r\n.", "x", 27);
}

/* Everything the grammar does not have is refused, in any pieces. */
static void
test_chunked_decode_refuses_what_the_grammar_lacks(void)
{
    static const char *const texts[] = {
        "\r\n",
        " 5\r\nhello",
        "+5\r\nhello",
        "-5\r\n",
        "0x5\r\nhello",
        "5 \r\nhello",
        "5\t\r\nhello",
        "5_0\r\n",
        "g\r\n",
        "5\nhello",
        "5\rhello",
        "5\r\r\nhello",
        "5;\r\nhello",
        "5;\nhello",
        "5;a\nhello",
        "5;a\rX",
        "5; a\r\nhello",
        "5 ;a\r\nhello",
        "5;a=\r\nhello",
        "5;a=\"b\r\n",
        "5;a=\"b\"c\r\n",
        "5;a=\"b\nc\"\r\n",
        "5;=b\r\n",
        "5\r\nhelloX",
        "5\r\nhello\n",
        "5\r\nhello\rX",
        "5\r\nhello!\r\n",
        "0\r\nX\r\n",
        "0\r\n X: y\r\n",
        "0\r\nX : y\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: \x01\r\n",
        "0\r\n: y\r\n",
        "0\r\n\rX",
        "0\r\n\n",
        "0\r\nX: y\r\n z\r\n",
        "00000000000000005\r\nhello", /* 17 digits */
        "8000000000000000\r\n",       /* 2^63 */
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        check_refused(texts[i], strlen(texts[i]));
    check_refused("5;\0\r\nhello", 11);
    check_refused("5\0\r\nhello", 10);
    check_refused("0\r\nX: \0\r\n\r\n", 11);
}

/* A size of 2^63 - 1 is the largest. */
static void
test_chunked_decode_takes_sizes_up_to_the_limit(void)
{
    struct pc_chunked chunked = {0};
    struct pc_slice data;

    CHECK_EQ(pc_chunked_decode(&chunked, "7fffffffffffffff\r\n", 18, &data), 18);
    CHECK(chunked.left_bytes == INT64_MAX);
}

/* Chunk by chunk, `ext_len` bytes of extension in all; whether it is taken. */
static bool
takes_extensions(size_t ext_len, size_t per_chunk)
{
    struct pc_chunked chunked = {0};
    char line[PC_MAX_CHUNK_EXT_BYTES + 64];

    while (ext_len > 0) {
        size_t now =
            ext_len < per_chunk ? ext_len : per_chunk; /* bytes behind ';', the CR counted */
        size_t len = 0, at = 0;
        struct pc_slice data;

        line[len++] = '1';
        line[len++] = ';';
        memset(line + len, 'e', now - 1);
        len += now - 1;
        memcpy(line + len, "\r\nx\r\n", 5);
        len += 5;
        while (at < len) {
            int status = pc_chunked_decode(&chunked, line + at, len - at, &data);

            if (status < 0)
                return false;
            at += (size_t)status;
        }
        ext_len -= now;
    }
    return true;
}

/* The limit on extensions counts a whole body: one long one, or many small ones (CVE-2023-39326).
 */
static void
test_chunked_decode_bounds_extensions_of_the_whole_body(void)
{
    CHECK(takes_extensions(PC_MAX_CHUNK_EXT_BYTES - 1, PC_MAX_CHUNK_EXT_BYTES));
    CHECK(takes_extensions(PC_MAX_CHUNK_EXT_BYTES, PC_MAX_CHUNK_EXT_BYTES));
    CHECK(!takes_extensions(PC_MAX_CHUNK_EXT_BYTES + 1, PC_MAX_CHUNK_EXT_BYTES + 1));
    CHECK(takes_extensions(PC_MAX_CHUNK_EXT_BYTES, 16));
    CHECK(!takes_extensions(PC_MAX_CHUNK_EXT_BYTES + 16, 16));
}

static bool
takes_trailer(size_t trailer_len)
{
    struct pc_chunked chunked = {0};
    struct pc_slice data;
    char *text = malloc(trailer_len + 3);
    int status;

    if (text == NULL)
        abort();
    memcpy(text, "0\r\n", 3);
    memset(text + 3, 'v', trailer_len);
    text[4] = ':';
    memcpy(text + 3 + trailer_len - 4, "\r\n\r\n", 4);
    status = pc_chunked_decode(&chunked, text, trailer_len + 3, &data);
    free(text);
    return status == (int)trailer_len + 3 && chunked.is_done;
}

/* The trailer section is bounded; its last LF is not counted. */
static void
test_chunked_decode_bounds_the_trailer_section(void)
{
    CHECK(takes_trailer(PC_MAX_TRAILER_BYTES));
    CHECK(takes_trailer(PC_MAX_TRAILER_BYTES + 1));
    CHECK(!takes_trailer(PC_MAX_TRAILER_BYTES + 2));
}

static bool
takes_trailers(unsigned count)
{
    struct pc_chunked chunked = {0};
    struct pc_slice data;
    char text[8 * (PC_MAX_TRAILER_FIELDS + 2)] = "0\r\n";
    size_t len = 3;
    int status;

    for (unsigned i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "a:%u\r\n", i);
    memcpy(text + len, "\r\n", 2);
    status = pc_chunked_decode(&chunked, text, len + 2, &data);
    return status == (int)len + 2 && chunked.is_done && chunked.trailer_fields == count;
}

static void
test_chunked_decode_bounds_the_number_of_trailers(void)
{
    CHECK(takes_trailers(0));
    CHECK(takes_trailers(PC_MAX_TRAILER_FIELDS));
    CHECK(!takes_trailers(PC_MAX_TRAILER_FIELDS + 1));
}

/* Put together from what each call says of it, the section is what was sent, in any pieces. */
static void
test_chunked_decode_says_which_bytes_are_the_trailer_sections(void)
{
    static const char *const rows[][2] = {
        {"2;x\r\nab\r\n0;y\r\nA: b\r\nC:d \r\n\r\nGET /", "A: b\r\nC:d \r\n\r\n"},
        {"0\r\n\r\n\r\n", "\r\n"}, {"000;a\r\nx:\r\n\r\n0", "x:\r\n\r\n"},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (size_t piece = 1, len = strlen(rows[i][0]); piece <= len; piece++) {
            struct pc_chunked chunked = {0};
            struct pc_slice data;
            char section[64] = "";

            for (size_t at = 0, have = 0; !chunked.is_done;) {
                have = at < have ? have : len - have < piece ? len : have + piece;
                int used = pc_chunked_decode(&chunked, rows[i][0] + at, have - at, &data);

                CHECK_FOR(rows[i][0], used > 0 && chunked.fresh_bytes <= used);
                if (used <= 0)
                    break;
                at += (size_t)used;
                (void)strncat(section, rows[i][0] + at - chunked.fresh_bytes, chunked.fresh_bytes);
            }
            CHECK_FOR(rows[i][0], strcmp(section, rows[i][1]) == 0);
        }
    }
}

/* After a mistake nothing more is taken, even if it looks right. */
static void
test_chunked_decode_stays_refused(void)
{
    struct pc_chunked chunked = {0};
    struct pc_slice data;

    CHECK_EQ(pc_chunked_decode(&chunked, "x", 1, &data), -PC_E_BAD);
    CHECK_EQ(pc_chunked_decode(&chunked, "0\r\n\r\n", 5, &data), -PC_E_BAD);
}

int
main(void)
{
    RUN(test_chunked_decode_gives_the_data_and_stops_at_the_end);
    RUN(test_chunked_decode_refuses_what_the_grammar_lacks);
    RUN(test_chunked_decode_takes_sizes_up_to_the_limit);
    RUN(test_chunked_decode_bounds_extensions_of_the_whole_body);
    RUN(test_chunked_decode_bounds_the_trailer_section);
    RUN(test_chunked_decode_bounds_the_number_of_trailers);
    RUN(test_chunked_decode_says_which_bytes_are_the_trailer_sections);
    RUN(test_chunked_decode_stays_refused);
    return check_end();
}
