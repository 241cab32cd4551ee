/* parse_driver.c - the parsers as a filter, for tests written in Python.
 * Runs as:  the developer, started by tests/unit/native_parsers.py.   Sees: the tests' bytes on
 * standard input. Trusts:   the tests' framing.   Distrusts: the code under test: every call gets a
 * block of exactly its bytes. Before:   -   After: native/h1.c, native/chunked.c
 *
 * In:  u32 length, u32 split (0 whole, 1 bytewise, else a seed of random pieces), both
 * little-endian, then the bytes. Out: one line of words "name=value", bytes in hexadecimal: head=
 * peek= (results), name= (peeked), method= target= path= host= port= minor= close= keep= chunked=
 * length= (-1 none) expect= body= (result: consumed, 0 unfinished, error; -99 no body asked for),
 * data=, then field=NAME:VALUE ... */
/* sources: h1.c host.c chunked.c util.c */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pc.h"

#define NO_BODY (-99)

struct split {
    uint32_t kind, state;
};

static size_t
next_piece(struct split *split, size_t left)
{
    size_t piece = left;

    if (split->kind == 1) {
        piece = 1;
    } else if (split->kind > 1) {
        split->state = split->state * 1664525u + 1013904223u;
        piece = 1 + (split->state >> 16) % 37;
    }
    return piece < left ? piece : left;
}

static char *
copy_exactly(const char *bytes, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);

    if (copy == NULL)
        abort();
    memcpy(copy, bytes, len);
    return copy;
}

static void
print_hex(const char *name, struct pc_slice s)
{
    printf(" %s=", name);
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", (uint8_t)s.base[i]);
}

static int
parse_head(struct pc_head *head, const char *bytes, size_t len, struct split split)
{
    static const struct pc_h1_limits limits = {
        .line_bytes = PC_MAX_LINE_BYTES,
        .field_bytes = PC_MAX_LINE_BYTES,
        .field_count = PC_MAX_FIELDS,
    };
    size_t have = 0;
    int status = 0;

    memset(head, 0, offsetof(struct pc_head, fields));
    while (status == 0 && have < len) {
        char *copy;

        have += next_piece(&split, len - have);
        copy = copy_exactly(bytes, have);
        status = pc_h1_parse_head(head, copy, have, &limits);
        free(copy);
    }
    return status;
}

static int
peek_name(const char *bytes, size_t len, struct split split, size_t *ret_at, size_t *ret_len)
{
    size_t have = 0;
    int status = 0;

    while (status == 0 && have < len) {
        struct pc_slice name = {0};
        char *copy;

        have += next_piece(&split, len - have);
        copy = copy_exactly(bytes, have);
        status = pc_h1_peek_name(copy, have, &name);
        *ret_at = status > 0 ? (size_t)(name.base - copy) : 0;
        *ret_len = name.len;
        free(copy);
    }
    return status;
}

static int
decode_body(const char *bytes, size_t len, struct split split, char *data, size_t *ret_len)
{
    struct pc_chunked chunked = {0};
    size_t at = 0, have = 0;

    *ret_len = 0;
    while (!chunked.is_done && have < len) {
        have += next_piece(&split, len - have);
        while (at < have && !chunked.is_done) {
            struct pc_slice piece;
            char *copy = copy_exactly(bytes + at, have - at);
            int status = pc_chunked_decode(&chunked, copy, have - at, &piece);

            if (status > 0 && piece.len > 0) {
                memcpy(data + *ret_len, piece.base,
                       piece.len); /* UNSAFE: data is as long as the input */
                *ret_len += piece.len;
            }
            free(copy);
            if (status <= 0)
                return status;
            at += (size_t)status;
        }
    }
    return chunked.is_done ? (int)at : 0;
}

static void
print_head(const struct pc_head *head, const char *bytes)
{
    print_hex("method", pc_slice_at(bytes, head->method));
    print_hex("target", pc_slice_at(bytes, head->target));
    print_hex("path", pc_slice_at(bytes, head->path));
    print_hex("host", (struct pc_slice){.base = head->host.name, .len = head->host.len});
    printf(" port=%u minor=%u close=%d keep=%d chunked=%d expect=%d", head->host.port, head->minor,
           head->wants_close, head->wants_keep, head->is_chunked, head->expects_continue);
    printf(" length=%" PRId64, head->has_length ? (int64_t)head->content_length : -1);
    for (uint32_t i = 0; i < head->field_count; i++) {
        print_hex("field", pc_slice_at(bytes, head->fields[i].name));
        printf(":");
        for (uint32_t n = 0; n < head->fields[i].value.len; n++)
            printf("%02x", (uint8_t)bytes[head->fields[i].value.at + n]);
    }
}

static void
answer(const char *bytes, size_t len, struct split split)
{
    static struct pc_head head;
    size_t name_at = 0, name_len = 0, data_len = 0;
    int status = parse_head(&head, bytes, len, split),
        peeked = peek_name(bytes, len, split, &name_at, &name_len);
    int body = NO_BODY;

    printf("head=%d peek=%d", status, peeked);
    if (peeked > 0)
        print_hex("name", (struct pc_slice){.base = bytes + name_at, .len = name_len});
    if (status > 0) {
        char *data = copy_exactly(bytes, len);

        if (head.is_chunked)
            body = decode_body(bytes + status, len - (size_t)status, split, data, &data_len);
        printf(" body=%d", body);
        print_hex("data", (struct pc_slice){.base = data, .len = data_len});
        print_head(&head, bytes);
        free(data);
    }
    printf("\n");
    fflush(stdout);
}

int
main(void)
{
    uint32_t frame[2];

    while (fread(frame, sizeof(frame), 1, stdin) == 1) {
        char *bytes = malloc(frame[0] > 0 ? frame[0] : 1);

        if (bytes == NULL || (frame[0] > 0 && fread(bytes, frame[0], 1, stdin) != 1))
            abort();
        answer(bytes, frame[0], (struct split){.kind = frame[1], .state = frame[1]});
        free(bytes);
    }
    return 0;
}
