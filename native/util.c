/* util.c - bytes, numbers, clocks and the two ways to give up.
 * Runs as:  any child; the dispatcher up to the drop.   Sees: whatever its caller hands it.
 * Trusts:   its caller's lengths.   Distrusts: the bytes.
 * Before:   everything.   After: - */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strerrordesc_np */
#endif
#include "pc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool
pc_slice_eq(struct pc_slice a, struct pc_slice b)
{
    /* base may be NULL when len is 0, which memcmp does not allow. */
    return a.len == b.len && (a.len == 0 || memcmp(a.base, b.base, a.len) == 0);
}

static unsigned char
pc_util_lower(char c)
{
    unsigned char u = (unsigned char)c;

    return (unsigned char)(u - 'A') < 26 ? (unsigned char)(u | 0x20) : u;
}

bool
pc_slice_ieq(struct pc_slice a, struct pc_slice b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (pc_util_lower(a.base[i]) != pc_util_lower(b.base[i]))
            return false;
    return true;
}

bool
pc_slice_starts(struct pc_slice s, struct pc_slice prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.base, prefix.base, prefix.len) == 0);
}

bool
pc_slice_is_token(struct pc_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!pc_byte_is_token((uint8_t)s.base[i]))
            return false;
    return s.len > 0;
}

struct pc_slice
pc_slice_trim(struct pc_slice s)
{
    while (s.len > 0 && (s.base[0] == ' ' || s.base[0] == '\t'))
        s = (struct pc_slice){s.base + 1, s.len - 1};
    while (s.len > 0 && (s.base[s.len - 1] == ' ' || s.base[s.len - 1] == '\t'))
        s.len--;
    return s;
}

bool
pc_list_next(struct pc_slice list, size_t *at, struct pc_slice *ret_item)
{
    size_t from = *at, to = *at;

    if (from > list.len)
        return false;
    while (to < list.len && list.base[to] != ',')
        to++;
    *at = to + 1;
    *ret_item = pc_slice_trim((struct pc_slice){.base = list.base + from, .len = to - from});
    return true;
}

/* Half a byte at a time: used on tables when they are loaded, never per request. */
uint32_t
pc_crc32(const char *base, size_t len)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned char)base[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

size_t
pc_number(char *out, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    memcpy(out, digits + at, sizeof digits - at);
    return sizeof digits - at;
}

int
pc_parse_u64(struct pc_slice s, uint64_t *ret_number)
{
    uint64_t number = 0;

    if (s.len < 1 || s.len > 19) /* 19 digits cannot overflow */
        return -PC_E_BAD;
    for (size_t i = 0; i < s.len; i++) {
        if (s.base[i] < '0' || s.base[i] > '9')
            return -PC_E_BAD;
        number = number * 10 + (uint64_t)(s.base[i] - '0');
    }
    *ret_number = number;
    return 0;
}

uint64_t
pc_now_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        pc_bug("clock_gettime(CLOCK_MONOTONIC) failed");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int64_t
pc_wall_us(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        pc_bug("clock_gettime(CLOCK_REALTIME) failed");
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* One line, one write, no stdio buffer: the process may have been forked with somebody else's in it. */
static void
pc_util_complain(const char *kind, const char *what, int error)
{
    char line[512];
    int len;

    if (error != 0)
        len = snprintf(line, sizeof line, "perchildd[%d]: %s: %s: %s\n", (int)getpid(), kind, what,
                       strerrordesc_np(error) ? strerrordesc_np(error) : "unknown error");
    else
        len = snprintf(line, sizeof line, "perchildd[%d]: %s: %s\n", (int)getpid(), kind, what);
    if (len < 0)
        return;
    if ((size_t)len >= sizeof line) {
        len = sizeof line;
        line[sizeof line - 1] = '\n';
    }
    /* Nobody is left to tell when stderr itself cannot be written. */
    if (write(STDERR_FILENO, line, (size_t)len) < 0)
        return;
}

_Noreturn void
pc_bug(const char *what)
{
    pc_util_complain("bug", what, 0);
    abort();
}

_Noreturn void
pc_die(int exit_code, const char *what)
{
    pc_util_complain("fatal", what, errno);
    _exit(exit_code);
}
