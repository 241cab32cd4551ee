/* proxyhdr.c - the PROXY protocol header, versions 1 and 2, that a front end sends before a client's bytes.
 * Runs as:  child that listens.   Sees: the first bytes of a front end's connection, looked at.   Holds: nothing.
 * Distrusts: every byte. Pure. Strict: a header is all there and right, or it is refused; it is never guessed.
 * Source:   "The PROXY protocol", HAProxy's doc/proxy-protocol.txt, sections 2.1 and 2.2; the words are mod_remoteip's.
 * Before:   peek.c   After: peek.c, which takes just these bytes from the socket */
#include <arpa/inet.h>
#include <string.h>

#include "pc.h"

#define V1_MAX 107 /* bytes with CRLF: the longest line there can be (2.1) */
#define V2_HEAD 16
#define V2_LOCAL 0x20
#define V2_PROXY 0x21
#define V2_UNSPECIFIED 0x00
#define V2_TCP4 0x11
#define V2_TCP6 0x21

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";
static const char missing[] = "AH03496: RemoteIPProxyProtocol data is missing, but required! Aborting request.";

static int
refuse(const char *why, const char **ret_why)
{
    *ret_why = why;
    return -PC_E_BAD;
}

static void
set_client(struct pc_proxyhdr *header, int family, const void *address, uint16_t port)
{
    header->has_client = true;
    if (family == AF_INET) {
        header->client.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&header->client.v4.sin_addr, address, 4);
    } else {
        header->client.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
        memcpy(&header->client.v6.sin6_addr, address, 16);
    }
}

/* ------------------------------------------------------------------ version 1: a line */

/* The next word, up to one blank or the end of the line. False: there is none, or an empty one. */
static bool
next_word(struct pc_slice *line, struct pc_slice *ret_word)
{
    const char *blank = line->len > 0 ? memchr(line->base, ' ', line->len) : NULL;
    size_t len = blank != NULL ? (size_t)(blank - line->base) : line->len;
    *ret_word = (struct pc_slice){line->base, len};
    size_t used = len + (blank != NULL);
    *line = (struct pc_slice){line->base + used, line->len - used};
    return len > 0;
}

static bool
parse_address(struct pc_slice word, int family, void *ret_address)
{
    char text[INET6_ADDRSTRLEN];
    if (word.len >= sizeof text || memchr(word.base, '\0', word.len) != NULL)
        return false;
    memcpy(text, word.base, word.len);
    text[word.len] = '\0';
    return inet_pton(family, text, ret_address) == 1;
}

static bool
parse_port(struct pc_slice word, uint16_t *ret_port)
{
    uint64_t port = 0;
    bool has_zeros = word.len > 1 && word.base[0] == '0';
    if (has_zeros || pc_parse_u64(word, &port) != 0 || port > UINT16_MAX)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

/* Behind "PROXY TCP4 " or "PROXY TCP6 ": both addresses, both ports, and nothing else. */
static int
parse_tcp(struct pc_slice rest, int family, struct pc_proxyhdr *header, const char **ret_why)
{
    struct pc_slice source, destination, source_port, destination_port;
    uint8_t address[16], unused[16];
    uint16_t port = 0, unused_port = 0;
    if (!next_word(&rest, &source))
        return refuse("AH03497: RemoteIPProxyProtocol: no client-address found in header", ret_why);
    if (!next_word(&rest, &destination))
        return refuse("AH03497: RemoteIPProxyProtocol: no destination-address found in header", ret_why);
    if (!next_word(&rest, &source_port) || !next_word(&rest, &destination_port) || rest.len > 0
        || destination_port.base + destination_port.len != rest.base)
        return refuse("AH03497: RemoteIPProxyProtocol: no client-port found in header", ret_why);
    if (!parse_address(source, family, address) || !parse_address(destination, family, unused))
        return refuse("AH03500: RemoteIPProxyProtocol: invalid client-address found in header", ret_why);
    if (!parse_port(source_port, &port) || !parse_port(destination_port, &unused_port))
        return refuse("AH03501: RemoteIPProxyProtocol: error parsing port in header", ret_why);
    set_client(header, family, address, port);
    return 0;
}

static int
parse_line(struct pc_slice line, struct pc_proxyhdr *header, const char **ret_why)
{
    struct pc_slice family;
    line = (struct pc_slice){line.base + 6, line.len - 6}; /* "PROXY " */
    if (!next_word(&line, &family))
        return refuse("AH03497: RemoteIPProxyProtocol: no family found in header", ret_why);
    if (pc_slice_eq(family, PC_S("TCP4")))
        return parse_tcp(line, AF_INET, header, ret_why);
    if (pc_slice_eq(family, PC_S("TCP6")))
        return parse_tcp(line, AF_INET6, header, ret_why);
    if (pc_slice_eq(family, PC_S("UNKNOWN"))) /* whatever follows means nothing */
        return 0;
    return refuse("AH03499: RemoteIPProxyProtocol: unknown family in header", ret_why);
}

static int
parse_v1(const char *buf, size_t len, struct pc_proxyhdr *header, const char **ret_why)
{
    size_t seen = len < V1_MAX ? len : V1_MAX;
    const char *end = memchr(buf, '\n', seen);
    if (end == NULL && len < V1_MAX)
        return 0;
    if (end == NULL || end[-1] != '\r') /* "PROXY " stands before it */
        return refuse("AH10185: RemoteIPProxyProtocol header too long", ret_why);
    int error = parse_line((struct pc_slice){buf, (size_t)(end - 1 - buf)}, header, ret_why);
    return error != 0 ? error : (int)(end + 1 - buf);
}

/* ------------------------------------------------------------------ version 2: bytes */

static int
parse_addresses(const uint8_t *at, size_t len, uint8_t family, struct pc_proxyhdr *header, const char **ret_why)
{
    if (family == V2_UNSPECIFIED) /* as UNKNOWN */
        return 0;
    if (family != V2_TCP4 && family != V2_TCP6)
        return refuse("AH10183: RemoteIPProxyProtocol: unsupported protocol", ret_why);
    size_t size = family == V2_TCP4 ? 4 : 16;
    if (len < 2 * size + 4)
        return refuse(family == V2_TCP4 ? "AH10597: RemoteIPProxyProtocol: address length too short for TCPv4"
                                        : "AH10598: RemoteIPProxyProtocol: address length too short for TCPv6", ret_why);
    uint16_t port = (uint16_t)(at[2 * size] << 8 | at[2 * size + 1]);
    set_client(header, family == V2_TCP4 ? AF_INET : AF_INET6, at, port);
    return 0; /* what stands behind the ports (TLVs) is nothing that we use */
}

static int
parse_v2(const char *buf, size_t len, struct pc_proxyhdr *header, const char **ret_why)
{
    const uint8_t *at = (const uint8_t *)buf;
    if (len < V2_HEAD)
        return 0;
    size_t rest = (size_t)(at[14] << 8 | at[15]);
    if (at[12] >> 4 != 2)
        return refuse("AH03509: RemoteIPProxyProtocol: unknown version", ret_why);
    if (at[12] != V2_LOCAL && at[12] != V2_PROXY)
        return refuse("AH03507: RemoteIPProxyProtocol: unsupported command", ret_why);
    if (V2_HEAD + rest > PC_MAX_PROXYHDR_BYTES)
        return refuse("AH10186: RemoteIPProxyProtocol protocol header length too long", ret_why);
    if (len < V2_HEAD + rest)
        return 0;
    int error = at[12] == V2_LOCAL ? 0 : parse_addresses(at + V2_HEAD, rest, at[13], header, ret_why);
    return error != 0 ? error : (int)(V2_HEAD + rest);
}

/* ------------------------------------------------------------------ either */

static bool
may_begin(const char *buf, size_t len, const char *with, size_t with_len)
{
    return memcmp(buf, with, len < with_len ? len : with_len) == 0;
}

int
pc_proxyhdr_parse(const char *buf, size_t len, struct pc_proxyhdr *ret_header, const char **ret_why)
{
    struct pc_proxyhdr header = {0};
    int used = 0;
    bool is_line = may_begin(buf, len, "PROXY ", 6);
    if (!is_line && !may_begin(buf, len, signature, sizeof signature))
        return refuse(missing, ret_why);
    if (is_line && len >= 6)
        used = parse_v1(buf, len, &header, ret_why);
    else if (!is_line && len >= sizeof signature)
        used = parse_v2(buf, len, &header, ret_why);
    if (used > 0)
        *ret_header = header;
    return used;
}
