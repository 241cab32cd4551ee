/* h2_client.h - an HTTP/2 client made of frames, so that a test can send any of them: nghttp2 only packs and unpacks fields for it.
 * Runs as:  the developer.   Sees: what the server sends it.
 * Trusts:   the tests.   Distrusts: the server's frames: lengths, order and windows are checked as they come.
 * Before:   h2_case.h, test_h2_tsan.c, test_tls_tsan.c, tests/fuzz/fuzz_h2.c   After: child_case.h */
#ifndef H2_CLIENT_H
#define H2_CLIENT_H

#include <nghttp2/nghttp2.h>

#include "child_case.h"

/* How bytes go to and fro, as send and recv would; who lays something between defines both. */
#ifndef H2_PUT
#define H2_PUT(fd, bytes, len) send((fd), (bytes), (len), MSG_NOSIGNAL | MSG_DONTWAIT)
#define H2_TAKE(fd, room, len) recv((fd), (room), (len), MSG_DONTWAIT)
#endif

#define H2_STREAMS 4096 /* ids of one client: 1, 3, 5 ... */
#define H2_RAW_BYTES (1u << 20)

struct h2_answer {
    uint32_t status, interim; /* the last status; how many 1xx came before it */
    size_t body_len, kept_len;
    uint32_t reset_code;
    int64_t window;           /* what the server may still send */
    bool has_head, has_ended, is_reset;
    char kept[256];           /* of the body */
    char fields[512];         /* "name: value\n" */
    char interim_fields[512]; /* of all interim answers */
    char trailers[512];
};

struct h2_client {
    int fd;
    nghttp2_hd_deflater *deflater;
    nghttp2_hd_inflater *inflater;
    int32_t next_id;
    size_t raw_len;
    bool has_settings, has_goaway, has_ended;
    bool is_lenient; /* it has sent what it does not know itself: only the frames as such are checked */
    uint32_t goaway_code, goaway_id, settings_acks, pings, resets;
    int64_t window, initial_window; /* the session's; a stream's at its beginning */
    uint64_t body_bytes, window_given; /* DATA heard; WINDOW_UPDATE heard for the session */
    struct h2_answer answers[H2_STREAMS];
    uint8_t raw[H2_RAW_BYTES];
};

static inline struct h2_answer *
h2_answer(struct h2_client *client, int32_t id)
{
    child_must(id > 0 && id % 2 == 1 && id / 2 < H2_STREAMS, "an id of ours");
    return &client->answers[id / 2];
}

/* ------------------------------------------------------------------ sending */

/* Called when the socket takes no more: lets the server run. */
static void h2_drive(struct h2_client *client);

/* False: the server has closed. */
static inline bool
h2_send(struct h2_client *client, const void *bytes, size_t len)
{
    const char *at = bytes;
    for (unsigned round = 0; len > 0; round++) {
        ssize_t count = H2_PUT(client->fd, at, len);
        if (count < 0 && errno != EAGAIN)
            return false;
        at += count > 0 ? count : 0;
        len -= count > 0 ? (size_t)count : 0;
        if (len > 0)
            h2_drive(client);
        child_must(round < 1000000, "the server takes nothing");
    }
    return true;
}

static inline bool
h2_frame(struct h2_client *client, uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t len)
{
    const uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags,
                             (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    return h2_send(client, head, sizeof head) && h2_send(client, payload, len);
}

static inline bool
h2_number(struct h2_client *client, uint8_t type, uint32_t stream, uint32_t number) /* RST_STREAM, WINDOW_UPDATE */
{
    const uint8_t payload[4] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number};
    return h2_frame(client, type, 0, stream, payload, sizeof payload);
}

#define H2_WIDE (4 << 20)

/* Say first that the session and each stream may send H2_WIDE bytes before we have taken any. */
static inline void
h2_widen(struct h2_client *client)
{
    const uint8_t settings[6] = {0, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0, H2_WIDE >> 16, 0, 0};
    (void)h2_frame(client, NGHTTP2_SETTINGS, 0, 0, settings, sizeof settings);
    (void)h2_number(client, NGHTTP2_WINDOW_UPDATE, 0, H2_WIDE);
    client->initial_window = H2_WIDE;
    client->window += H2_WIDE;
}

struct h2_field { const char *name, *value; };

static inline size_t
h2_pack(struct h2_client *client, const struct h2_field *fields, size_t count, uint8_t *block, size_t cap)
{
    nghttp2_nv pairs[300];
    child_must(count <= 300, "fields");
    for (size_t i = 0; i < count; i++)
        pairs[i] = (nghttp2_nv){(uint8_t *)(uintptr_t)fields[i].name, (uint8_t *)(uintptr_t)fields[i].value, strlen(fields[i].name),
                                strlen(fields[i].value), NGHTTP2_NV_FLAG_NONE};
    ssize_t len = nghttp2_hd_deflate_hd(client->deflater, block, cap, pairs, count);
    child_must(len >= 0, "nghttp2_hd_deflate_hd");
    return (size_t)len;
}

/* A request with these fields. Returns its stream's id. */
static inline int32_t
h2_ask_with(struct h2_client *client, const struct h2_field *fields, size_t count, bool has_body)
{
    static _Thread_local uint8_t block[65536];
    int32_t id = client->next_id;
    size_t len = h2_pack(client, fields, count, block, sizeof block);
    client->next_id += 2;
    h2_answer(client, id)->window = client->initial_window;
    (void)h2_frame(client, NGHTTP2_HEADERS, (uint8_t)(NGHTTP2_FLAG_END_HEADERS | (has_body ? 0 : NGHTTP2_FLAG_END_STREAM)), (uint32_t)id,
                   block, len);
    return id;
}

static inline int32_t
h2_ask(struct h2_client *client, const char *method, const char *path, const char *host, bool has_body)
{
    const struct h2_field fields[] = {{":method", method}, {":scheme", "http"}, {":authority", host}, {":path", path}};
    return h2_ask_with(client, fields, 4, has_body);
}

static inline int32_t
h2_get(struct h2_client *client, const char *path)
{
    return h2_ask(client, "GET", path, "own.test", false);
}

static inline bool
h2_data(struct h2_client *client, int32_t id, const void *bytes, size_t len, bool is_last)
{
    return h2_frame(client, NGHTTP2_DATA, is_last ? NGHTTP2_FLAG_END_STREAM : 0, (uint32_t)id, bytes, len);
}

/* ------------------------------------------------------------------ hearing */

static inline void
h2_note_field(char fields[512], const nghttp2_nv *field, uint32_t *status)
{
    if (field->namelen == 7 && memcmp(field->name, ":status", 7) == 0)
        *status = (uint32_t)strtoul((const char *)field->value, NULL, 10);
    for (size_t i = 0; i < field->namelen; i++)
        child_must(field->name[i] < 'A' || field->name[i] > 'Z', "names of fields are in lower case");
    size_t used = strlen(fields);
    (void)snprintf(fields + used, 512 - used, "%.*s: %.*s\n", (int)field->namelen, (const char *)field->name, (int)field->valuelen,
                   (const char *)field->value);
}

static inline void
h2_hear_head(struct h2_client *client, struct h2_answer *answer, const uint8_t *block, size_t len, uint8_t flags)
{
    uint32_t status = 0;
    char fields[512] = "";
    child_must((flags & NGHTTP2_FLAG_END_HEADERS) != 0 && (flags & NGHTTP2_FLAG_PADDED) == 0, "a head in one frame");
    child_must(!answer->has_ended && !answer->is_reset, "a head of an answer that is not over");
    for (int state = 0; (state & NGHTTP2_HD_INFLATE_FINAL) == 0;) {
        nghttp2_nv field;
        ssize_t used = nghttp2_hd_inflate_hd2(client->inflater, &field, &state, block, len, 1);
        child_must(used >= 0, "a block that can be unpacked");
        block += used;
        len -= (size_t)used;
        if ((state & NGHTTP2_HD_INFLATE_EMIT) != 0)
            h2_note_field(fields, &field, &status);
    }
    (void)nghttp2_hd_inflate_end_headers(client->inflater);
    if (answer->has_head) {
        child_must((flags & NGHTTP2_FLAG_END_STREAM) != 0 && status == 0, "one head, and then trailers, which end it");
        (void)snprintf(answer->trailers, sizeof answer->trailers, "%s", fields);
        return;
    }
    child_must(status >= 100 && status <= 599, "a status");
    char *to = status < 200 ? answer->interim_fields : answer->fields;
    size_t used = strlen(to);
    (void)snprintf(to + used, sizeof answer->fields - used, "%s", fields);
    if (status < 200) {
        child_must((flags & NGHTTP2_FLAG_END_STREAM) == 0, "an interim answer ends nothing");
        answer->interim++;
        return;
    }
    answer->status = status;
    answer->has_head = true;
}

static inline void
h2_hear_data(struct h2_client *client, struct h2_answer *answer, const uint8_t *bytes, size_t len)
{
    child_must(answer->has_head && !answer->has_ended && !answer->is_reset, "a body behind its head");
    answer->window -= (int64_t)len;
    client->window -= (int64_t)len;
    child_must(answer->window >= 0 && client->window >= 0, "no more than the windows allow");
    size_t room = sizeof answer->kept - 1 - answer->kept_len, kept = len < room ? len : room;
    memcpy(answer->kept + answer->kept_len, bytes, kept);
    answer->kept_len += kept;
    answer->body_len += len;
    client->body_bytes += len;
}

static inline uint32_t
h2_read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void
h2_hear_frame(struct h2_client *client, const uint8_t *head, const uint8_t *payload, size_t len)
{
    uint8_t type = head[3], flags = head[4];
    uint32_t stream = h2_read_u32(head + 5);
    child_must(client->has_settings || type == NGHTTP2_SETTINGS, "SETTINGS come first");
    if (client->is_lenient && type != NGHTTP2_SETTINGS)
        return;
    struct h2_answer *answer = stream > 0 ? h2_answer(client, (int32_t)stream) : NULL;
    if (type == NGHTTP2_SETTINGS) {
        client->has_settings = true;
        client->settings_acks += (flags & NGHTTP2_FLAG_ACK) != 0;
    } else if (type == NGHTTP2_HEADERS) {
        h2_hear_head(client, answer, payload, len, flags);
    } else if (type == NGHTTP2_DATA) {
        h2_hear_data(client, answer, payload, len);
    } else if (type == NGHTTP2_RST_STREAM) {
        answer->is_reset = true;
        answer->reset_code = h2_read_u32(payload);
        client->resets++;
    } else if (type == NGHTTP2_GOAWAY) {
        client->has_goaway = true;
        client->goaway_id = h2_read_u32(payload);
        client->goaway_code = h2_read_u32(payload + 4);
    } else if (type == NGHTTP2_PING) {
        client->pings++;
    } else if (type == NGHTTP2_WINDOW_UPDATE && stream == 0) {
        client->window_given += h2_read_u32(payload);
    }
    if ((type == NGHTTP2_HEADERS || type == NGHTTP2_DATA) && (flags & NGHTTP2_FLAG_END_STREAM) != 0)
        answer->has_ended = true;
}

/* Everything that has come. */
static inline void
h2_hear(struct h2_client *client)
{
    for (;;) {
        ssize_t count = H2_TAKE(client->fd, client->raw + client->raw_len, H2_RAW_BYTES - client->raw_len);
        client->has_ended = client->has_ended || count == 0 || (count < 0 && errno == ECONNRESET);
        if (count <= 0)
            return;
        client->raw_len += (size_t)count;
        size_t at = 0;
        while (client->raw_len - at >= 9) {
            const uint8_t *head = client->raw + at;
            size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
            child_must(len <= 16384, "a frame as large as it may be");
            if (client->raw_len - at < 9 + len)
                break;
            h2_hear_frame(client, head, head + 9, len);
            at += 9 + len;
        }
        memmove(client->raw, client->raw + at, client->raw_len - at);
        client->raw_len -= at;
    }
}

/* ------------------------------------------------------------------ begin and end */

static inline void
h2_begin(struct h2_client *client, int fd)
{
    memset(client, 0, offsetof(struct h2_client, raw));
    client->fd = fd;
    client->next_id = 1;
    client->window = client->initial_window = 65535;
    child_must(nghttp2_hd_deflate_new(&client->deflater, 4096) == 0 && nghttp2_hd_inflate_new(&client->inflater) == 0, "HPACK");
    (void)h2_send(client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    (void)h2_frame(client, NGHTTP2_SETTINGS, 0, 0, "", 0);
}

static inline void
h2_end(struct h2_client *client)
{
    nghttp2_hd_deflate_del(client->deflater);
    nghttp2_hd_inflate_del(client->inflater);
    child_must(close(client->fd) == 0, "close");
}

#endif
