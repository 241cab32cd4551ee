/* test_h2_memory.c - claims about what one connection of HTTP/2 can make its child hold, whatever it sends: to the byte, by attack.
 * Runs as:  the developer.   Sees: a directory of its own under /tmp.
 * Trusts:   check.h, h2_client.h.   Distrusts: the code under test.
 * Before:   -   After: docs/security.md, which has the same table */
/* sources: accept.c access.c acme.c acceptlock.c arena.c ask.c child.c chunked.c cond.c conn.c date.c errlog.c escape.c fields.c file.c format.c */
/* sources: h1.c hand.c host.c listing.c log.c map.c mime.c page.c peek.c record.c regex.c request.c respond.c route.c serve.c settings.c tlv.c */
/* sources: transport.c uri.c util.c why.c wild.c gate.c gate_answer.c trailer.c gate_cgi.c gate_fcgi.c fcgi.c backend.c dial.c kept.c knock.c target.c gate_http.c h1out.c proxy.c remoteip.c job.c program.c reply.c cgienv.c */
/* sources: proxyhdr.c siphash.c keys.c tickets.c spool.c hello.c phpini.c */
/* sources: tls.c tls_ctx.c pem.c tls_hello.c tls_io.c tls_session.c tls_vars.c */
/* sources: h2.c h2head.c h2in.c h2out.c h2peek.c h2stream.c */
/* flags: -D_GNU_SOURCE */
/* libs: -lpcre2-8 -lssl -lcrypto */
/* libs: -lnghttp2 */
#include "loop.c" /* for handle_event */

#include "gate_case.h"

static bool reads = true; /* the client's socket is emptied; else nothing is sent any more when the server does not take it */
static ssize_t put(int fd, const void *bytes, size_t len);
#define H2_PUT(fd, bytes, len) put((fd), (bytes), (len))
#define H2_TAKE(fd, room, len) recv((fd), (room), (len), MSG_DONTWAIT)
#include "h2_client.h"
#include "held.h"

#define STREAMS 100

static struct h2_client client;
static size_t held_first;
static ssize_t held_most; /* more than at first */

static ssize_t
put(int fd, const void *bytes, size_t len)
{
    ssize_t count = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0 || errno != EAGAIN || reads)
        return count;
    drive();
    count = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0)
        errno = EPIPE;
    return count;
}

static void
h2_drive(struct h2_client *of)
{
    drive();
    if (reads)
        h2_hear(of);
    ssize_t held = (ssize_t)(held_bytes() - held_first);
    held_most = held > held_most ? held : held_most;
}

static void
settle(void)
{
    for (int i = 0; i < 20; i++)
        h2_drive(&client);
}

/* ------------------------------------------------------------------ what it sends */

/* Fields that take no memory of the client's: literal, with an index or without. */
static size_t
put_field(uint8_t *to, bool is_indexed, const char *name, const char *value, size_t value_len)
{
    size_t name_len = strlen(name), at = 0;
    to[at++] = is_indexed ? 0x40 : 0;
    to[at++] = (uint8_t)name_len;
    memcpy(to + at, name, name_len);
    at += name_len;
    if (value_len < 127) {
        to[at++] = (uint8_t)value_len;
    } else { /* RFC 7541 5.1 */
        size_t rest = value_len - 127;
        to[at++] = 127;
        for (; rest >= 128; rest /= 128)
            to[at++] = (uint8_t)(128 | rest % 128);
        to[at++] = (uint8_t)rest;
    }
    memcpy(to + at, value, value_len);
    return at + value_len;
}

static size_t
put_request(uint8_t *to, const char *method, const char *path)
{
    size_t at = put_field(to, false, ":method", method, strlen(method));
    at += put_field(to + at, false, ":scheme", "http", 4);
    at += put_field(to + at, false, ":authority", "own.test", 8);
    return at + put_field(to + at, false, ":path", path, strlen(path));
}

static uint32_t
ask_block(const uint8_t *block, size_t len, bool has_body)
{
    uint32_t id = (uint32_t)client.next_id;
    client.next_id += 2;
    (void)h2_frame(&client, NGHTTP2_HEADERS, (uint8_t)(NGHTTP2_FLAG_END_HEADERS | (has_body ? 0 : NGHTTP2_FLAG_END_STREAM)), id, block, len);
    return id;
}

static uint32_t
ask(const char *path)
{
    uint8_t block[256];
    return ask_block(block, put_request(block, "GET", path), false);
}

static void
set_window(uint8_t bytes)
{
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, 0, 0, bytes};
    (void)h2_frame(&client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
}

static void
ask_often(const char *path, uint8_t window)
{
    set_window(window);
    for (int i = 0; i < STREAMS; i++)
        (void)ask(path);
}

static void
send_nothing(void)
{
}

static void
stall_large_files(void)
{
    ask_often("/big", 0);
}

static void
stall_but_for_a_byte(void)
{
    ask_often("/big", 1);
}

static void
stall_small_files(void)
{
    ask_often("/small", 0);
}

static void
stall_errors(void)
{
    ask_often("/nothing", 0);
}

/* Windows are open, but the socket is not emptied. */
static void
read_no_files(void)
{
    for (int i = 0; i < STREAMS; i++)
        (void)ask("/middle");
}

static void
read_no_errors(void)
{
    for (int i = 0; i < STREAMS; i++)
        (void)ask("/nothing");
}

static void
reset_rapidly(void)
{
    for (int i = 0; i < 1000; i++)
        (void)h2_number(&client, NGHTTP2_RST_STREAM, ask("/big"), NGHTTP2_CANCEL);
}

static void
ping(void)
{
    for (int i = 0; i < 5000; i++)
        (void)h2_frame(&client, NGHTTP2_PING, 0, 0, "12345678", 8);
}

static void
send_settings(void)
{
    for (int i = 0; i < 5000; i++)
        set_window((uint8_t)i);
}

static void
open_windows(void)
{
    for (int i = 0; i < 5000; i++)
        (void)h2_number(&client, NGHTTP2_WINDOW_UPDATE, 0, 1);
}

static void
prioritize(void)
{
    for (uint32_t i = 0; i < 5000; i++)
        (void)h2_frame(&client, NGHTTP2_PRIORITY, 0, 2 * i + 1, "\0\0\0\0\1", 5);
}

static void
send_empty_data(void)
{
    uint8_t block[256];
    uint32_t id = ask_block(block, put_request(block, "POST", "/small"), true);
    for (int i = 0; i < 5000; i++)
        (void)h2_data(&client, (int32_t)id, "", 0, false);
}

static void
continue_for_ever(void)
{
    static char large[7000];
    uint8_t block[8000];
    memset(large, 'x', sizeof large);
    (void)h2_frame(&client, NGHTTP2_HEADERS, 0, 1, block, put_request(block, "GET", "/small"));
    for (int i = 0; i < PC_H2_CONTINUATIONS; i++)
        (void)h2_frame(&client, NGHTTP2_CONTINUATION, 0, 1, block, put_field(block, false, "x", large, sizeof large));
}

/* The smallest entries: each costs far more than the 33 bytes that it counts (RFC 7541 4.1). */
static void
fill_table(void)
{
    uint8_t block[2048];
    size_t at = put_request(block, "GET", "/small");
    for (int i = 0; i < 60; i++)
        at += put_field(block + at, true, "a", "", 0);
    for (int i = 0; i < 3; i++)
        (void)ask_block(block, at, false);
}

/* Two that are answered and not taken, and behind them others wait with large heads: one entry of the table, named again and again. */
static void
send_bombs(void)
{
    static char large[2900];
    static uint8_t block[16384];
    set_window(0);
    memset(large, 'x', sizeof large);
    size_t at = put_request(block, "POST", "/big");
    (void)ask_block(block, at + put_field(block + at, true, "x", large, sizeof large), false);
    memset(block + at, 0x80 | 62, 10);
    for (int i = 1; i < STREAMS; i++)
        (void)ask_block(block, at + 10, true);
}

/* To requests that wait: nobody reads them. */
static void
send_bodies(void)
{
    static const char body[5200];
    for (uint32_t id = (uint32_t)client.next_id - 2 * (STREAMS - PC_H2_STALLED); id < (uint32_t)client.next_id; id += 2)
        (void)h2_data(&client, (int32_t)id, body, sizeof body, false);
}

static void
wait_with_bodies(void)
{
    uint8_t block[256];
    ask_often("/big", 0);
    (void)h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)client.next_id - 2, NGHTTP2_CANCEL);
    client.next_id = 1 + 2 * STREAMS;
    for (int i = PC_H2_STALLED; i < STREAMS; i++)
        (void)h2_number(&client, NGHTTP2_RST_STREAM, (uint32_t)(1 + 2 * i), NGHTTP2_CANCEL);
    for (int i = PC_H2_STALLED; i < STREAMS; i++)
        (void)ask_block(block, put_request(block, "POST", "/cgi/script"), true);
    send_bodies();
}

static void
do_all_of_it(void)
{
    fill_table();
    settle();
    send_bombs();
    send_bodies();
}

/* Each of them runs: what they cost themselves is more. */
static void
run_programs(void)
{
    ask_often("/cgi/script", 0);
}

/* ------------------------------------------------------------------ the claims */

/* What earlier streams have left would be had for nothing. */
static void
free_stock(void)
{
    struct pc_io *next, *io = one.child->io_stock[PC_IO_STREAM];
    one.child->io_stock[PC_IO_STREAM] = worker->stock[PC_IO_STREAM];
    worker->stock[PC_IO_STREAM] = NULL;
    for (int i = 0; i < 2; i++, io = one.child->io_stock[PC_IO_STREAM])
        for (; io != NULL; io = next) {
            next = io->next;
            pc_arena_free(&io->arena);
            free(io);
        }
    one.child->io_stock[PC_IO_STREAM] = NULL;
    one.child->io_stocked[PC_IO_STREAM] = 0;
}

static ssize_t
attack(void (*send)(void), bool is_reader)
{
    reads = true;
    h2_begin(&client, open_client(is_reader ? 1 << 20 : 4096));
    client.is_lenient = true;
    free_stock();
    held_first = held_bytes();
    held_most = 0;
    settle();
    reads = is_reader;
    send();
    settle();
    reads = true;
    h2_end(&client);
    drive();
    while (take_job() != 0)
        leave();
    CHECK_EQ(atomic_load(&one.child->open_count), 0);
    return held_most;
}

/* docs/security.md has the same table. */
static void
each_attack_costs_so_much_and_no_more(void)
{
    static const struct { const char *name; void (*send)(void); bool is_reader; ssize_t most_kb; } rows[] = {
        {"silence", send_nothing, true, 32},
        {"large files, window 0", stall_large_files, true, 96},
        {"large files, window 1", stall_but_for_a_byte, true, 96},
        {"small files, window 0", stall_small_files, true, 96},
        {"errors, window 0", stall_errors, true, 96},
        {"files, socket not read", read_no_files, false, 96},
        {"errors, socket not read", read_no_errors, false, 96},
        {"rapid reset", reset_rapidly, true, 80},
        {"pings, socket not read", ping, false, 64},
        {"settings, socket not read", send_settings, false, 64},
        {"settings", send_settings, true, 64},
        {"window updates", open_windows, true, 64},
        {"priorities", prioritize, true, 64},
        {"empty data", send_empty_data, true, 64},
        {"continuation", continue_for_ever, true, 80},
        {"the decoder's table", fill_table, true, 64},
        {"bombs of references", send_bombs, true, 640},
        {"bodies that nobody reads", wait_with_bodies, true, 1024},
        {"table, bombs and bodies", do_all_of_it, true, 1024},
        {"programs", run_programs, true, 100 * 64},
    };
    (void)attack(run_programs, true); /* what a child makes once */
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        ssize_t held = attack(rows[i].send, rows[i].is_reader);
        if (getenv("HELD_SHOW") != NULL)
            printf("%s: %zd\n", rows[i].name, held);
        CHECK_FOR(rows[i].name, held > 0 && held <= rows[i].most_kb * 1024);
    }
}

int
main(void)
{
    set_up();
    RUN(each_attack_costs_so_much_and_no_more);
    tear_down();
    return check_end();
}
