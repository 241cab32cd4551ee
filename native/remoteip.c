/* remoteip.c - who the client is when trusted front ends say so in a field (RemoteIPHeader, as mod_remoteip).
 * Runs as:  child, as the identity that owns the host.   Sees: the field, and the address that the connection came from.
 * Trusts:   the host's lists of front ends; where there are none, anybody, as httpd does.
 * Distrusts: the client: it may have written the beginning of the list, so it is read from its end, and only as far as front ends go.
 * Before:   request.c   After: access.c, log.c, cgienv.c, h1out.c (req->client) */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memrchr */
#endif
#include <arpa/inet.h>
#include <string.h>

#include "serve.h"

#define ADDRESS_ROOM 64

/* All such fields in their order, as one list; base NULL = none. In memory once, however many there are. */
static struct pc_slice
join_fields(struct pc_req *req, struct pc_slice name)
{
    struct pc_slice list = {0};
    char *copy = NULL;
    size_t room = 0, used = 0;
    for (uint32_t i = 0; i < req->head->field_count; i++) {
        struct pc_slice value = pc_slice_at(req->raw, req->head->fields[i].value);
        if (!pc_slice_ieq(pc_slice_at(req->raw, req->head->fields[i].name), name))
            continue;
        list = list.base == NULL ? value : list;
        room += value.len + 2;
    }
    if (list.base == NULL || room == list.len + 2) /* none, or one */
        return list;
    copy = pc_arena_alloc(req->arena, room);
    for (uint32_t i = 0; i < req->head->field_count; i++) {
        struct pc_slice value = pc_slice_at(req->raw, req->head->fields[i].value);
        if (!pc_slice_ieq(pc_slice_at(req->raw, req->head->fields[i].name), name))
            continue;
        if (used > 0)
            memcpy(copy + used - 2, ", ", 2);
        memcpy(copy + used, value.base, value.len); /* UNSAFE: all of them were added up */
        used += value.len + 2;
    }
    return (struct pc_slice){copy, used - 2};
}

/* An address without port or brackets; the port stays that of the connection, as in httpd. */
static bool
parse_address(struct pc_slice text, const struct sockaddr_storage *before, struct sockaddr_storage *ret_address)
{
    char copy[ADDRESS_ROOM];
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (void *)&address;
    struct sockaddr_in6 *v6 = (void *)&address;
    in_port_t port = before->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)(const void *)before)->sin6_port
                                                   : ((const struct sockaddr_in *)(const void *)before)->sin_port;
    if (text.len >= sizeof copy)
        return false;
    memcpy(copy, text.base, text.len); /* UNSAFE: just compared with its room */
    copy[text.len] = '\0';
    if (strlen(copy) != text.len)
        return false;
    if (inet_pton(AF_INET, copy, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = port;
    } else if (inet_pton(AF_INET6, copy, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = port;
    } else {
        return false;
    }
    *ret_address = address;
    return true;
}

/* Not an address of the internet's: only internal front ends may name one. */
static bool
is_private(const struct sockaddr_storage *address)
{
    uint8_t b[16];
    if (address->ss_family == AF_INET6) {
        memcpy(b, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
        return (b[0] & 0xe0) != 0x20;
    }
    memcpy(b, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    return b[0] == 10 || b[0] == 127 || (b[0] == 169 && b[1] == 254) || (b[0] == 172 && (b[1] & 0xf0) == 16)
           || (b[0] == 192 && b[1] == 168);
}

/* Whether the peer so far may say who was before it. */
static bool
is_front_end(const struct pc_host *host, const struct sockaddr_storage *peer, bool *ret_is_internal)
{
    bool has_lists = host->remote_ip_internal.base != NULL || host->remote_ip_trusted.base != NULL;
    *ret_is_internal = host->remote_ip_internal.base != NULL && pc_access_has(host->remote_ip_internal, peer);
    if (!has_lists || *ret_is_internal)
        return true;
    return host->remote_ip_trusted.base != NULL && pc_access_has(host->remote_ip_trusted, peer);
}

/* Take the last element off the list; an empty list has none. */
static bool
take_last(struct pc_slice *list, struct pc_slice *ret_item)
{
    if (list->base == NULL)
        return false;
    const char *comma = list->len > 0 ? memrchr(list->base, ',', list->len) : NULL;
    size_t skip = comma != NULL ? (size_t)(comma + 1 - list->base) : 0;
    *ret_item = pc_slice_trim((struct pc_slice){list->base + skip, list->len - skip});
    *list = comma != NULL ? (struct pc_slice){list->base, skip - 1} : (struct pc_slice){0};
    return true;
}

void
pc_remoteip_apply(struct pc_req *req)
{
    const struct pc_host *host = req->host;
    struct pc_slice name = host->remote_ip_header, rest = {0}, before, item;
    struct sockaddr_storage client, next;
    bool is_internal, has_moved = false;
    if (name.base == NULL)
        return;
    rest = before = join_fields(req, name);
    memcpy(&client, &req->client, sizeof client); /* UNSAFE: the same type */
    while (is_front_end(host, &client, &is_internal) && take_last(&rest, &item)) {
        if (item.len == 0 || !parse_address(item, &client, &next)) {
            if (item.len > 0)
                pc_errlog_req(req, PC_DEBUG, "remoteip", "AH01568: RemoteIP: Header %.*s value of %.*s cannot be parsed as a client IP",
                              (int)name.len, name.base, (int)item.len, item.base);
            rest = before;
            break;
        }
        if (!is_internal && is_private(&next)) {
            pc_errlog_req(req, PC_DEBUG, "remoteip",
                          "AH01569: RemoteIP: Header %.*s value of %.*s appears to be a private IP or nonsensical.  Ignored",
                          (int)name.len, name.base, (int)item.len, item.base);
            rest = before;
            break;
        }
        client = next;
        before = rest;
        has_moved = true;
    }
    if (!has_moved)
        return;
    req->peer = req->client;
    req->has_peer = true;
    req->client = client;
    req->front_field = (struct pc_pair){.name = name, .value = rest};
}
