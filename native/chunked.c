/* chunked.c - take a chunked body apart: a client's, or a back end's.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes, those of a back end.
 * Trusts:   nothing.   Distrusts: every byte.
 * Before:   h1.c, reply.c   After: request.c, gate.c; gate_answer.c
 *
 * A state machine over single bytes, so that the pieces in which bytes arrive cannot matter.
 * Grammar: RFC 9112 7.1 without its "bad whitespace"; sizes of 1 to 16 digits below 2^63;
 * extensions and trailers are checked and bounded. Extensions are dropped; which bytes are the trailer
 * section's is told, and a trailer never becomes a field of the head. */
#include "pc.h"

#define MAX_SIZE_DIGITS 16

_Static_assert(PC_MAX_TRAILER_BYTES < UINT16_MAX && PC_MAX_CHUNK_EXT_BYTES < UINT16_MAX && PC_MAX_TRAILER_FIELDS < UINT8_MAX,
               "they fit struct pc_chunked");

enum state {
    SIZE_FIRST,
    SIZE,
    EXT_NAME_FIRST,
    EXT_NAME,
    EXT_VALUE_FIRST,
    EXT_VALUE,
    EXT_QUOTED,
    EXT_QUOTED_PAIR,
    EXT_AFTER_QUOTE,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    REFUSED,
};

static int
hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int
add_digit(struct pc_chunked *chunked, uint8_t c)
{
    int digit = hex_value(c);

    if (digit < 0 || chunked->digit_count == MAX_SIZE_DIGITS)
        return -PC_E_BAD;
    if (chunked->left_bytes > ((uint64_t)INT64_MAX >> 4))
        return -PC_E_BAD;
    chunked->left_bytes = chunked->left_bytes << 4 | (uint64_t)digit;
    chunked->digit_count++;
    return SIZE;
}

/* What may follow a whole chunk-size or extension: the line's end, or one more extension. */
static int
end_of_part(uint8_t c)
{
    if (c == '\r')
        return SIZE_LF;
    return c == ';' ? EXT_NAME_FIRST : -PC_E_BAD;
}

/* Each returns the next state or -PC_E_BAD. */
static int
step_extension(enum state state, uint8_t c)
{
    switch (state) {
    case EXT_NAME_FIRST:
        return pc_byte_is_token(c) ? EXT_NAME : -PC_E_BAD;
    case EXT_NAME:
        if (c == '=')
            return EXT_VALUE_FIRST;
        return pc_byte_is_token(c) ? EXT_NAME : end_of_part(c);
    case EXT_VALUE_FIRST:
        if (c == '"')
            return EXT_QUOTED;
        return pc_byte_is_token(c) ? EXT_VALUE : -PC_E_BAD;
    case EXT_VALUE:
        return pc_byte_is_token(c) ? EXT_VALUE : end_of_part(c);
    case EXT_QUOTED:
        if (c == '"')
            return EXT_AFTER_QUOTE;
        if (c == '\\')
            return EXT_QUOTED_PAIR;
        return pc_byte_is_text(c) ? EXT_QUOTED : -PC_E_BAD;
    case EXT_QUOTED_PAIR:
        return pc_byte_is_text(c) ? EXT_QUOTED : -PC_E_BAD;
    default:
        return end_of_part(c); /* EXT_AFTER_QUOTE */
    }
}

static int
step_trailer(struct pc_chunked *chunked, uint8_t c)
{
    switch ((enum state)chunked->state) {
    case TRAILER_FIRST:
        if (c == '\r')
            return LAST_LF;
        if (++chunked->trailer_fields > PC_MAX_TRAILER_FIELDS)
            return -PC_E_BAD;
        return pc_byte_is_token(c) ? TRAILER_NAME : -PC_E_BAD;
    case TRAILER_NAME:
        if (c == ':')
            return TRAILER_VALUE;
        return pc_byte_is_token(c) ? TRAILER_NAME : -PC_E_BAD;
    case TRAILER_VALUE:
        if (c == '\r')
            return TRAILER_LF;
        return pc_byte_is_text(c) ? TRAILER_VALUE : -PC_E_BAD;
    default:
        return c == '\n' ? TRAILER_FIRST : -PC_E_BAD; /* TRAILER_LF */
    }
}

/* The byte behind chunk-size or chunk-data. */
static int
step_frame(struct pc_chunked *chunked, uint8_t c)
{
    switch ((enum state)chunked->state) {
    case SIZE_FIRST:
        return add_digit(chunked, c);
    case SIZE:
        return hex_value(c) >= 0 ? add_digit(chunked, c) : end_of_part(c);
    case SIZE_LF:
        if (c != '\n')
            return -PC_E_BAD;
        return chunked->left_bytes > 0 ? DATA : TRAILER_FIRST;
    case DATA_CR:
        return c == '\r' ? DATA_LF : -PC_E_BAD;
    case DATA_LF:
        chunked->digit_count = 0;
        return c == '\n' ? SIZE_FIRST : -PC_E_BAD;
    case LAST_LF:
        chunked->is_done = c == '\n';
        return c == '\n' ? LAST_LF : -PC_E_BAD;
    default:
        return -PC_E_BAD; /* REFUSED stays refused; DATA never comes here */
    }
}

/* One byte that is not chunk-data. Returns 0 or -PC_E_BAD. */
static int
step(struct pc_chunked *chunked, uint8_t c)
{
    enum state state = (enum state)chunked->state;
    int next;

    if (state >= EXT_NAME_FIRST && state <= EXT_AFTER_QUOTE) {
        next = ++chunked->ext_bytes > PC_MAX_CHUNK_EXT_BYTES ? -PC_E_BAD : step_extension(state, c);
    } else if (state >= TRAILER_FIRST && state <= TRAILER_LF) {
        next = ++chunked->trailer_bytes > PC_MAX_TRAILER_BYTES ? -PC_E_BAD : step_trailer(chunked, c);
    } else {
        next = step_frame(chunked, c);
    }
    if (state >= TRAILER_FIRST && state <= LAST_LF)
        chunked->fresh_bytes++;
    chunked->state = (uint8_t)(next < 0 ? (int)REFUSED : next);
    return next < 0 ? next : 0;
}

int
pc_chunked_decode(struct pc_chunked *chunked, const char *buf, size_t len,
                  struct pc_slice *ret_data)
{
    size_t at = 0, most = INT32_MAX;

    if (len > most)
        len = most;
    chunked->fresh_bytes = 0;
    while (at < len && !chunked->is_done) {
        if (chunked->state == DATA) {
            size_t take = len - at < chunked->left_bytes ? len - at : (size_t)chunked->left_bytes;

            *ret_data = (struct pc_slice){.base = buf + at, .len = take};
            chunked->left_bytes -= take;
            if (chunked->left_bytes == 0)
                chunked->state = DATA_CR;
            return (int)(at + take);
        }
        if (step(chunked, (uint8_t)buf[at]) < 0)
            return -PC_E_BAD;
        at++;
    }
    if (at > 0)
        *ret_data = (struct pc_slice){.base = buf + at, .len = 0};
    return (int)at;
}
