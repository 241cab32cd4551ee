/* fcgi.c - FastCGI 1.0 as the web server speaks it: one request to a responder, records out, records in.
 * Runs as:  child, as the identity that owns the host.   Sees: variables of a request; bytes of a tenant's program.
 * Trusts:   its caller's buffers.   Distrusts: every byte of the program.
 * Before:   cgienv.c, gate.c   After: gate.c, reply.c
 *
 * PARAMS is a stream: a pair may lie across two records. A record is closed when it holds RECORD_BYTES, a multiple of 8, and is
 * padded when it is the last one. */
#include <string.h>

#include "gateway.h"

#define VERSION 1
#define ROLE_RESPONDER 1
#define KEEP_CONN 1
#define RECORD_BYTES 65528 /* of content: largest multiple of 8 that 16 bits hold */
#define MAX_PAIR_BYTES 0x7fffffffu
#define END_BYTES 8

/* ------------------------------------------------------------------ out */

size_t
pc_fcgi_head(char out[PC_FCGI_HEAD_BYTES], enum pc_fcgi_type type, uint16_t request_id, size_t len)
{
    size_t padding = -len & 7;

    if (len > UINT16_MAX)
        pc_bug("a FastCGI record above 65535 bytes");
    out[0] = VERSION;
    out[1] = (char)type;
    out[2] = (char)(request_id >> 8);
    out[3] = (char)(request_id & 255);
    out[4] = (char)(len >> 8);
    out[5] = (char)(len & 255);
    out[6] = (char)padding;
    out[7] = 0;
    return padding;
}

/* Room for len bytes, or NULL: then the writer is full. */
static char *
take(struct pc_fcgi_writer *writer, size_t len)
{
    char *at = writer->out + writer->len;

    if (writer->is_full || writer->cap - writer->len < len) {
        writer->is_full = true;
        return NULL;
    }
    writer->len += len;
    return at;
}

void
pc_fcgi_begin(struct pc_fcgi_writer *writer, bool keep)
{
    char *at = take(writer, PC_FCGI_HEAD_BYTES + 8);

    if (at == NULL)
        return;
    (void)pc_fcgi_head(at, PC_FCGI_BEGIN_REQUEST, writer->request_id, 8); /* 8 need no padding */
    memset(at + PC_FCGI_HEAD_BYTES, 0, 8);
    at[PC_FCGI_HEAD_BYTES + 1] = ROLE_RESPONDER;
    at[PC_FCGI_HEAD_BYTES + 2] = keep ? KEEP_CONN : 0;
}

static void
close_record(struct pc_fcgi_writer *writer)
{
    size_t len = writer->len - writer->record_at - PC_FCGI_HEAD_BYTES, padding;
    char *at;

    if (!writer->is_open || writer->is_full)
        return;
    padding = pc_fcgi_head(writer->out + writer->record_at, PC_FCGI_PARAMS, writer->request_id, len);
    at = take(writer, padding);
    if (at != NULL)
        memset(at, 0, padding);
    writer->is_open = false;
}

/* Bytes of the PARAMS stream. */
static void
put(struct pc_fcgi_writer *writer, const char *base, size_t len)
{
    while (len > 0 && !writer->is_full) {
        size_t used, now;
        char *at;

        if (!writer->is_open) {
            writer->record_at = writer->len;
            writer->is_open = take(writer, PC_FCGI_HEAD_BYTES) != NULL;
            continue;
        }
        used = writer->len - writer->record_at - PC_FCGI_HEAD_BYTES;
        now = len < RECORD_BYTES - used ? len : RECORD_BYTES - used;
        at = take(writer, now);
        if (at == NULL)
            return;
        memcpy(at, base, now); /* UNSAFE: take() found room for `now` */
        base += now;
        len -= now;
        if (used + now == RECORD_BYTES)
            close_record(writer);
    }
}

/* One byte below 128, else four with the highest bit set. */
static size_t
put_length(char out[4], size_t len)
{
    if (len < 128) {
        out[0] = (char)len;
        return 1;
    }
    out[0] = (char)(len >> 24 | 0x80);
    out[1] = (char)(len >> 16 & 255);
    out[2] = (char)(len >> 8 & 255);
    out[3] = (char)(len & 255);
    return 4;
}

void
pc_fcgi_param(struct pc_fcgi_writer *writer, struct pc_slice name, struct pc_slice value)
{
    char lengths[8];
    size_t used;

    if (name.len > MAX_PAIR_BYTES || value.len > MAX_PAIR_BYTES) {
        writer->is_full = true;
        return;
    }
    used = put_length(lengths, name.len);
    used += put_length(lengths + used, value.len);
    put(writer, lengths, used);
    put(writer, name.base, name.len);
    put(writer, value.base, value.len);
}

int
pc_fcgi_param_sink(void *to, struct pc_slice name, struct pc_slice value)
{
    struct pc_fcgi_writer *writer = to;

    pc_fcgi_param(writer, name, value);
    return writer->is_full ? -PC_E_HEAD_LARGE : 0;
}

int
pc_fcgi_end_params(struct pc_fcgi_writer *writer)
{
    char *at;

    close_record(writer);
    at = take(writer, PC_FCGI_HEAD_BYTES);
    if (at == NULL)
        return -PC_E_HEAD_LARGE;
    (void)pc_fcgi_head(at, PC_FCGI_PARAMS, writer->request_id, 0); /* nothing to pad */
    return 0;
}

/* ------------------------------------------------------------------ in */

static uint32_t
number_at(const char *p, size_t len)
{
    uint32_t number = 0;

    for (size_t i = 0; i < len; i++)
        number = number << 8 | (uint8_t)p[i];
    return number;
}

static int
refuse(struct pc_fcgi_reader *reader)
{
    reader->is_refused = true;
    return -PC_E_BAD;
}

/* Between two records. */
static int
take_head(struct pc_fcgi_reader *reader, const char *buf, size_t len)
{
    uint8_t type;

    if (len < PC_FCGI_HEAD_BYTES)
        return 0;
    type = (uint8_t)buf[1];
    if (buf[0] != VERSION || number_at(buf + 2, 2) != reader->request_id)
        return refuse(reader);
    if (type != PC_FCGI_STDOUT && type != PC_FCGI_STDERR && type != PC_FCGI_END_REQUEST)
        return refuse(reader);
    reader->type = type;
    reader->content = number_at(buf + 4, 2);
    reader->padding = (uint8_t)buf[6];
    if (type == PC_FCGI_END_REQUEST && reader->content != END_BYTES)
        return refuse(reader);
    return PC_FCGI_HEAD_BYTES;
}

static int
take_content(struct pc_fcgi_reader *reader, const char *buf, size_t len, struct pc_fcgi_event *ret_event)
{
    uint32_t now = len < reader->content ? (uint32_t)len : reader->content;

    if (reader->type == PC_FCGI_END_REQUEST) {
        if (len < END_BYTES)
            return 0;
        reader->app_status = number_at(buf, 4);
        reader->protocol = (uint8_t)buf[4];
        reader->has_end = true;
    } else {
        ret_event->what = reader->type == PC_FCGI_STDOUT ? PC_FCGI_OUT : PC_FCGI_ERR;
        ret_event->bytes = (struct pc_slice){.base = buf, .len = now};
    }
    reader->content -= now;
    return (int)now;
}

int
pc_fcgi_decode(struct pc_fcgi_reader *reader, const char *buf, size_t len, struct pc_fcgi_event *ret_event)
{
    struct pc_fcgi_event event = {.what = PC_FCGI_NOTHING};
    uint32_t skipped = len < reader->padding ? (uint32_t)len : reader->padding;
    int status = 0;

    if (reader->is_refused)
        return -PC_E_BAD;
    if (reader->is_done || len == 0)
        return 0;
    if (reader->content > 0) {
        status = take_content(reader, buf, len, &event);
    } else if (skipped > 0) {
        reader->padding -= skipped;
        status = (int)skipped;
    } else {
        status = take_head(reader, buf, len);
    }
    if (status <= 0)
        return status;
    if (reader->has_end && reader->content == 0 && reader->padding == 0) {
        event = (struct pc_fcgi_event){.what = PC_FCGI_END, .app_status = reader->app_status, .protocol = reader->protocol};
        reader->is_done = true;
    }
    *ret_event = event;
    return status;
}
