/* h2peek.c - the name that the first request of an HTTP/2 connection is for, from bytes that stay in the socket.
 * Runs as:  child that listens (User, or a tenant's uid under AcceptScope any).   Sees: a stranger's first bytes.
 * Distrusts: every byte: at most PC_MAX_PEEK_BYTES of them, and of decoded fields no more than a head may have.
 * Before:   peek.c   After: route.c
 *
 * Pure: frames are walked up to the first HEADERS, whose block a fresh HPACK decoder (nghttp2) takes apart; whoever gets the connection
 * reads everything again. Clients need not wait for our SETTINGS (RFC 9113 3.4), and those in use do not. */
#include <nghttp2/nghttp2.h>
#include <string.h>

#include "h2.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_BYTES (sizeof PREFACE - 1)
#define FRAME_HEAD_BYTES 9
#define MAX_FRAMES 32 /* in front of the first request */

int
pc_h2_check_preface(const char *buf, size_t len)
{
    size_t seen = len < PREFACE_BYTES ? len : PREFACE_BYTES;
    if (memcmp(buf, PREFACE, seen) != 0)
        return -PC_E_BAD;
    return len < PREFACE_BYTES ? 0 : (int)PREFACE_BYTES;
}

struct frame {
    uint32_t len, stream;
    uint8_t type, flags;
    const uint8_t *payload;
};

/* Returns >0 its whole length, 0 need more, <0. */
static int
next_frame(const char *buf, size_t len, struct frame *ret_frame)
{
    const uint8_t *p = (const uint8_t *)buf;
    if (len < FRAME_HEAD_BYTES)
        return 0;
    *ret_frame = (struct frame){
        .len = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2], .type = p[3], .flags = p[4],
        .stream = ((uint32_t)p[5] << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8]) & 0x7fffffff,
        .payload = p + FRAME_HEAD_BYTES,
    };
    if (ret_frame->len > PC_MAX_PEEK_BYTES)
        return -PC_E_HEAD_LARGE;
    return len - FRAME_HEAD_BYTES < ret_frame->len ? 0 : (int)(FRAME_HEAD_BYTES + ret_frame->len);
}

/* The block's piece in a HEADERS frame: without padding and priority. */
static int
find_block(const struct frame *frame, struct pc_slice *ret_block)
{
    uint32_t skip = 0, pad = 0;
    if ((frame->flags & NGHTTP2_FLAG_PADDED) != 0) {
        if (frame->len < 1)
            return -PC_E_BAD;
        pad = frame->payload[0];
        skip = 1;
    }
    skip += (frame->flags & NGHTTP2_FLAG_PRIORITY) != 0 ? 5 : 0;
    if (skip + pad > frame->len)
        return -PC_E_BAD;
    *ret_block = (struct pc_slice){(const char *)frame->payload + skip, frame->len - skip - pad};
    return 0;
}

struct names {
    struct pc_slice authority, host; /* in `bytes` */
    size_t decoded_bytes;
    uint32_t field_count;
    char *bytes; /* 2 * PC_H2_NAME_BYTES */
};

static int
note_name(struct pc_slice *which, char *to, const nghttp2_nv *field)
{
    if (which->base != NULL || field->valuelen > PC_H2_NAME_BYTES)
        return -PC_E_BAD;
    memcpy(to, field->value, field->valuelen); /* UNSAFE: compared with its room */
    *which = (struct pc_slice){to, field->valuelen};
    return 0;
}

static int
look_at(struct names *names, const nghttp2_nv *field)
{
    struct pc_slice name = {(const char *)field->name, field->namelen};
    names->decoded_bytes += field->namelen + field->valuelen + 4;
    if (++names->field_count > PC_MAX_FIELDS_HARD || names->decoded_bytes > PC_MAX_HEAD_BYTES)
        return -PC_E_HEAD_LARGE;
    if (pc_slice_eq(name, PC_S(":authority")))
        return note_name(&names->authority, names->bytes, field);
    if (pc_slice_eq(name, PC_S("host")))
        return note_name(&names->host, names->bytes + PC_H2_NAME_BYTES, field);
    return 0;
}

/* One piece of the block. Returns 0 or <0. */
static int
inflate(nghttp2_hd_inflater *inflater, struct pc_slice block, bool is_last, struct names *names)
{
    const uint8_t *at = (const uint8_t *)block.base;
    size_t left = block.len;
    for (;;) {
        nghttp2_nv field;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(inflater, &field, &flags, at, left, is_last);
        if (used < 0)
            return -PC_E_BAD;
        at += used;
        left -= (size_t)used;
        int status = (flags & NGHTTP2_HD_INFLATE_EMIT) != 0 ? look_at(names, &field) : 0;
        if (status < 0)
            return status;
        bool has_field = (flags & NGHTTP2_HD_INFLATE_EMIT) != 0;
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0 || (!has_field && (left == 0 || used == 0)))
            return 0;
    }
}

/* HEADERS and what continues it. Returns >0 the block was whole, 0 need more, <0. */
static int
read_block(nghttp2_hd_inflater *inflater, const char *buf, size_t len, struct names *names)
{
    size_t at = 0;
    uint32_t stream = 0;
    for (int count = 0; count < MAX_FRAMES; count++) {
        struct frame frame = {0};
        struct pc_slice block = {0};
        int size = next_frame(buf + at, len - at, &frame);
        if (size <= 0)
            return size;
        bool is_first = count == 0;
        if (!is_first && (frame.type != NGHTTP2_CONTINUATION || frame.stream != stream))
            return -PC_E_BAD;
        stream = frame.stream;
        block = (struct pc_slice){(const char *)frame.payload, frame.len};
        int status = is_first ? find_block(&frame, &block) : 0;
        bool is_last = (frame.flags & NGHTTP2_FLAG_END_HEADERS) != 0;
        if (status == 0)
            status = inflate(inflater, block, is_last, names);
        if (status < 0)
            return status;
        at += (size_t)size;
        if (is_last)
            return (int)at;
    }
    return -PC_E_HEAD_LARGE;
}

static int
read_names(const char *buf, size_t len, struct names *names)
{
    nghttp2_hd_inflater *inflater = NULL;
    if (nghttp2_hd_inflate_new(&inflater) != 0)
        pc_die(111, "out of memory");
    int status = read_block(inflater, buf, len, names);
    nghttp2_hd_inflate_del(inflater);
    return status;
}

int
pc_h2_peek_name(const char *buf, size_t len, char bytes[2 * PC_H2_NAME_BYTES], struct pc_slice *ret_name)
{
    int at = pc_h2_check_preface(buf, len);
    if (at <= 0)
        return at;
    for (int count = 0; count < MAX_FRAMES; count++) {
        struct frame frame = {0};
        struct names names = {.bytes = bytes};
        size_t rest = len - (size_t)at;
        int size = next_frame(buf + at, rest, &frame);
        if (count == 0 && rest >= FRAME_HEAD_BYTES && frame.type != NGHTTP2_SETTINGS) /* RFC 9113 3.4 */
            return -PC_E_BAD;
        if (size <= 0)
            return size;
        if (frame.type != NGHTTP2_HEADERS) {
            at += size;
            continue;
        }
        int status = read_names(buf + at, rest, &names);
        if (status <= 0)
            return status;
        *ret_name = names.authority.base != NULL ? names.authority : names.host;
        if (ret_name->base == NULL)
            *ret_name = PC_S("");
        return at + status;
    }
    return -PC_E_HEAD_LARGE;
}
