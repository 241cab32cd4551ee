/* test_h2_floods.c - claims about clients of HTTP/2 that send what costs more than it costs them (security.md 6.3), on the real connection
 * code: each ends by its own doing, within bounds of memory and of processor time.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h, h2_case.h, held.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* flags: -D_GNU_SOURCE */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* libs: -lnghttp2 */
#include <time.h>

#include "h2_case.h"
#include "held.h"

static uint64_t
cpu_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#define FLOOD 20000
#define FLOOD_CPU_NS (20ull * 1000000000) /* under ASan, on a machine that does other things; without a bound it would be minutes */
#define FLOOD_HELD_BYTES (4u << 20)

static bool
flood_rapid_reset(int i)
{
    (void)i;
    int32_t id = h2_get(&client, "/big");
    bool is_open = h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)id, NGHTTP2_CANCEL);
    if (client.next_id / 2 >= H2_STREAMS - 2)
        client.next_id = 1;
    return is_open;
}

static bool
flood_ping(int i)
{
    (void)i;
    return h2_frame(&client, NGHTTP2_PING, 0, 0, "12345678", 8);
}

static bool
flood_settings(int i)
{
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, 0, (uint8_t)i, 0};
    return h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
}

static bool
flood_empty_data(int i)
{
    if (i == 0)
        (void)h2_ask(&client, "POST", "/small", "own.test", true);
    return h2_data(&client, 1, "", 0, false);
}

static bool
flood_priority(int i)
{
    const uint8_t payload[5] = {0, 0, 0, 0, (uint8_t)i};
    return h2_frame(&client, NGHTTP2_PRIORITY, 0, (uint32_t)(2 * i + 1), payload, sizeof payload);
}

static bool
flood_window_update(int i)
{
    (void)i;
    return h2_number(&client, NGHTTP2_WINDOW_UPDATE, 0, 1);
}

static bool
flood_unknown(int i)
{
    return h2_frame(&client, (uint8_t)(0x40 + i % 64), 0, 0, "x", 1);
}

static bool
flood_continuation(int i)
{
    return h2_frame(&client, i == 0 ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION, 0, 1, i == 0 ? "\x82" : "", i == 0 ? 1 : 0);
}

/* The client breaks a rule of each stream, and the server resets it (CVE-2025-8671). */
static bool
flood_made_you_reset(int i)
{
    (void)i;
    const struct h2_field fields[] = {{":method", "POST"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/ask"},
                                      {"content-length", "1"}};
    int32_t id = h2_ask_with(&client, fields, 5, true);
    bool is_open = h2_data(&client, id, "12345", 5, false); /* more than it said */
    if (client.next_id / 2 >= H2_STREAMS - 2)
        client.next_id = 1;
    return is_open;
}

/* ------------------------------------------------------------------ claims */

static void
a_request_is_answered(void)
{
    start();
    int32_t id = h2_get(&client, "/small");
    settle();
    CHECK(h2_answer(&client, id)->status == 200 && h2_answer(&client, id)->has_ended);
    stop();
}

static void
run_flood(const char *name, bool (*send_one)(int i))
{
    start();
    size_t held_before = held_bytes();
    uint64_t began_ns = cpu_ns(), asked = child_counter(&one, PC_C_REQUESTS);
    int count = 0;
    while (count < FLOOD && !client.has_ended && send_one(count)) {
        count++;
        if (count % 64 == 0)
            h2_drive(&client);
    }
    for (int i = 0; i < 10; i++)
        h2_drive(&client);
    size_t held = held_bytes();
    CHECK_FOR(name, client.has_ended && count < FLOOD / 2);
    CHECK_FOR(name, client.has_goaway && client.goaway_code == NGHTTP2_ENHANCE_YOUR_CALM);
    CHECK_FOR(name, held <= held_before + FLOOD_HELD_BYTES);
    CHECK_FOR(name, cpu_ns() - began_ns < FLOOD_CPU_NS);
    CHECK_FOR(name, child_counter(&one, PC_C_REQUESTS) - asked < 1000);
    stop();
}

static void
floods_end_their_connection(void)
{
    run_flood("rapid reset", flood_rapid_reset);
    run_flood("ping", flood_ping);
    run_flood("settings", flood_settings);
    run_flood("empty data", flood_empty_data);
    run_flood("priority", flood_priority);
    run_flood("window update", flood_window_update);
    run_flood("unknown frames", flood_unknown);
    run_flood("continuation", flood_continuation);
    run_flood("made you reset", flood_made_you_reset);
}

/* One field of 3,000 bytes in the table, and then a byte for each copy of it. */
static void
a_bomb_of_references_costs_its_own_length(void)
{
    static char large[2900]; /* more is not kept in nghttp2's table */
    static uint8_t block[65536];
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, 0, 0, 0};
    memset(large, 'x', sizeof large - 1);
    const struct h2_field first[] = {{":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/big"}, {"x", large}};
    start();
    (void)h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
    client.initial_window = 0;
    (void)h2_ask_with(&client, first, 5, false);
    settle();
    size_t held_before = held_bytes();
    uint64_t began_ns = cpu_ns();
    int count = 0;
    for (; count < 200 && !client.has_ended; count++) {
        size_t len = h2_pack(&client, first, 5, block, sizeof block);
        memset(block + len, 0x80 | 62, 10000 - len); /* the newest entry, again and again */
        if (!h2_frame(&client, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, (uint32_t)client.next_id, block, 10000))
            break;
        client.next_id += 2;
        h2_drive(&client);
    }
    CHECK(client.has_ended && client.goaway_code == NGHTTP2_ENHANCE_YOUR_CALM && count < 120);
    CHECK(held_bytes() <= held_before + (1u << 20));
    CHECK(cpu_ns() - began_ns < FLOOD_CPU_NS);
    stop();
}

/* Heads as large as they may be, for streams that take nothing: the session holds a bounded part of them. */
static void
heads_of_stalled_streams_are_bounded(void)
{
    static char large[2900]; /* more is not kept in nghttp2's table */
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, 0, 0, 0};
    memset(large, 'x', sizeof large - 1);
    struct h2_field fields[14] = {{":method", "GET"}, {":scheme", "http"}, {":authority", "own.test"}, {":path", "/big"}};
    for (int i = 4; i < 14; i++)
        fields[i] = (struct h2_field){"x", large};
    start();
    (void)h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
    client.initial_window = 0;
    size_t held_before = held_bytes();
    for (int i = 0; i < 100; i++)
        (void)h2_ask_with(&client, fields, 14, false);
    settle();
    CHECK(held_bytes() <= held_before + (3u << 20));
    unsigned refused = 0;
    for (int i = 0; i < 100; i++)
        refused += client.answers[i].is_reset && client.answers[i].reset_code == NGHTTP2_REFUSED_STREAM;
    CHECK(refused > 50);
    stop();
}

int
main(void)
{
    set_up();
    RUN(a_request_is_answered); /* opens the roots, for good */
    int before = fcntl(0, F_DUPFD_CLOEXEC, 3);
    child_must(before >= 0 && close(before) == 0, "descriptors");
    RUN(floods_end_their_connection);
    RUN(a_bomb_of_references_costs_its_own_length);
    RUN(heads_of_stalled_streams_are_bounded);
    int after = fcntl(0, F_DUPFD_CLOEXEC, 3);
    CHECK_EQ(after, before);
    (void)close(after);
    tear_down();
    return check_end();
}
