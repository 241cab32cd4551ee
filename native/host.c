/* host.c - read a server name as clients write it.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes.
 * Trusts:   nothing.   Distrusts: the name (any bytes, any length).
 * Before:   h1.c   After: route.c
 *
 * Stricter than RFC 3986: an empty label ("a..b", ".a"), an empty port ("a:") and a port without a
 * name are refused, and so is whatever no DNS name or IP literal holds, so that a name can never be
 * a path or a log line of its own. */
#include <arpa/inet.h>
#include <string.h>

#include "pc.h"

/* The byte in lower case where a name may hold it, else 0. */
/* clang-format off */
static const char name_byte[256] = {
    ['-'] = '-', ['.'] = '.', ['_'] = '_',
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4',
    ['5'] = '5', ['6'] = '6', ['7'] = '7', ['8'] = '8', ['9'] = '9',
    ['A'] = 'a', ['B'] = 'b', ['C'] = 'c', ['D'] = 'd', ['E'] = 'e', ['F'] = 'f', ['G'] = 'g',
    ['H'] = 'h', ['I'] = 'i', ['J'] = 'j', ['K'] = 'k', ['L'] = 'l', ['M'] = 'm', ['N'] = 'n',
    ['O'] = 'o', ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r', ['S'] = 's', ['T'] = 't', ['U'] = 'u',
    ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y', ['Z'] = 'z',
    ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd', ['e'] = 'e', ['f'] = 'f', ['g'] = 'g',
    ['h'] = 'h', ['i'] = 'i', ['j'] = 'j', ['k'] = 'k', ['l'] = 'l', ['m'] = 'm', ['n'] = 'n',
    ['o'] = 'o', ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't', ['u'] = 'u',
    ['v'] = 'v', ['w'] = 'w', ['x'] = 'x', ['y'] = 'y', ['z'] = 'z',
};
/* clang-format on */

/* Length of the bracketed IPv6 literal at the start of raw, 0 = none. */
static size_t
measure_ipv6(struct pc_slice raw)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    const char *close = memchr(raw.base, ']', raw.len);
    size_t len;

    if (close == NULL)
        return 0;
    len = (size_t)(close - raw.base) - 1;
    if (len == 0 || len >= sizeof(text) || memchr(raw.base, '\0', len + 1) != NULL)
        return 0;
    memcpy(text, raw.base + 1, len);
    text[len] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1 ? len + 2 : 0;
}

/* Length of the DNS name or IPv4 address at the start of raw, 0 = none or one with an empty label.
 */
static size_t
measure_name(struct pc_slice raw)
{
    size_t i;
    char before = '.';

    for (i = 0; i < raw.len && name_byte[(uint8_t)raw.base[i]] != 0; i++) {
        if (raw.base[i] == '.' && before == '.')
            return 0;
        before = raw.base[i];
    }
    return i;
}

static int
parse_port(struct pc_slice digits, uint16_t *ret_port)
{
    uint32_t port = 0;
    size_t i;

    if (digits.len == 0 || digits.len > 5)
        return -PC_E_BAD;
    for (i = 0; i < digits.len; i++) {
        if (digits.base[i] < '0' || digits.base[i] > '9')
            return -PC_E_BAD;
        port = port * 10 + (uint32_t)(digits.base[i] - '0');
    }
    if (port > UINT16_MAX)
        return -PC_E_BAD;
    *ret_port = (uint16_t)port;
    return 0;
}

int
pc_host_parse(struct pc_slice raw, struct pc_hostname *ret_host)
{
    uint16_t port = 0;
    size_t len, i;

    if (raw.len == 0) {
        ret_host->len = 0;
        ret_host->port = 0;
        ret_host->name[0] = '\0';
        return 0;
    }
    len = raw.base[0] == '[' ? measure_ipv6(raw) : measure_name(raw);
    if (len == 0)
        return -PC_E_BAD;
    if (len < raw.len) {
        struct pc_slice digits = {.base = raw.base + len + 1, .len = raw.len - len - 1};

        if (raw.base[len] != ':' || parse_port(digits, &port) < 0)
            return -PC_E_BAD;
    }
    if (raw.base[len - 1] == '.')
        len--;
    if (len > PC_MAX_HOST_BYTES)
        return -PC_E_BAD;
    for (i = 0; i < len; i++) {
        char lower = name_byte[(uint8_t)raw.base[i]];

        ret_host->name[i] =
            lower != 0 ? lower : raw.base[i]; /* brackets and colons of an IPv6 literal */
    }
    ret_host->name[len] = '\0';
    ret_host->len = (uint16_t)len;
    ret_host->port = port;
    return 0;
}
