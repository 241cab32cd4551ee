/* target.c - the URLs of back ends, as the configuration has them: pure.
 * Runs as:  child.   Sees: nothing of a request but what a pattern put into a path.   Holds: nothing.
 * Trusts:   the host and socket, which the configuration alone says.   Distrusts: the path behind them.
 * Before:   proxy.c   After: backend.c */
#include <string.h>
#include <sys/un.h>

#include "gateway.h"

#define SOCKET_ROOM sizeof ((struct sockaddr_un *)0)->sun_path

static int
parse_service(struct pc_slice rest, struct pc_target *target)
{
    struct pc_slice number = pc_slice_before(rest, '/');
    uint64_t index;
    if (pc_parse_u64(number, &index) != 0 || index >= UINT32_MAX)
        return -PC_E_BAD;
    target->kind = PC_TARGET_SERVICE;
    target->service = (uint32_t)index;
    target->path = pc_slice_behind(rest, number.len);
    return 0;
}

/* host, [address] or either with :port. An empty one is a mistake but where a socket says where to connect. */
static int
parse_authority(struct pc_target *target)
{
    struct pc_slice rest = target->authority;
    uint64_t port = 0;
    if (rest.len > 0 && rest.base[0] == '[') {
        target->host = pc_slice_before(pc_slice_behind(rest, 1), ']');
        if (target->host.len + 2 > rest.len)
            return -PC_E_BAD;
        rest = pc_slice_behind(rest, target->host.len + 2);
    } else {
        target->host = pc_slice_before(rest, ':');
        rest = pc_slice_behind(rest, target->host.len);
    }
    if (target->kind == PC_TARGET_UNIX)
        return 0;
    bool has_port = rest.len > 0;
    if (has_port && (rest.base[0] != ':' || pc_parse_u64(pc_slice_behind(rest, 1), &port) != 0 || port == 0 || port > UINT16_MAX))
        return -PC_E_BAD;
    target->port = (uint16_t)port;
    if (target->host.len == 0 || target->host.len > PC_MAX_HOST_BYTES || memchr(target->host.base, '\0', target->host.len) != NULL)
        return -PC_E_BAD;
    return 0;
}

int
pc_target_parse(struct pc_slice text, struct pc_target *ret_target)
{
    static const struct pc_slice service = {"service:", 8}, local = {"unix:", 5}, mark = {"://", 3};
    struct pc_target target = {.kind = PC_TARGET_TCP};
    if (pc_slice_starts(text, service)) {
        int result = parse_service(pc_slice_behind(text, service.len), &target);
        if (result == 0)
            *ret_target = target;
        return result;
    }
    if (pc_slice_starts(text, local)) {
        target.kind = PC_TARGET_UNIX;
        target.socket = pc_slice_before(pc_slice_behind(text, local.len), '|');
        if (target.socket.len < 2 || target.socket.base[0] != '/' || target.socket.len >= SOCKET_ROOM
            || local.len + target.socket.len >= text.len || memchr(target.socket.base, '\0', target.socket.len) != NULL)
            return -PC_E_BAD;
        text = pc_slice_behind(text, local.len + target.socket.len + 1);
    }
    target.scheme = pc_slice_before(text, ':');
    text = pc_slice_behind(text, target.scheme.len);
    if (target.scheme.len == 0 || !pc_slice_starts(text, mark))
        return -PC_E_BAD;
    text = pc_slice_behind(text, mark.len);
    target.authority = pc_slice_before(text, '/');
    target.path = pc_slice_behind(text, target.authority.len);
    if (parse_authority(&target) != 0)
        return -PC_E_BAD;
    *ret_target = target;
    return 0;
}

size_t
pc_target_escape(struct pc_slice path, char *out)
{
    static const char plain[] = "~$-_.+!*'(),;:@&=/", digits[] = "0123456789ABCDEF";
    size_t used = 0;
    for (size_t i = 0; i < path.len; i++) {
        uint8_t c = (uint8_t)path.base[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')
                        || memchr(plain, c, sizeof plain - 1) != NULL;
        if (is_plain) {
            out[used++] = path.base[i];
            continue;
        }
        out[used++] = '%';
        out[used++] = digits[c >> 4];
        out[used++] = digits[c & 15];
    }
    return used;
}
