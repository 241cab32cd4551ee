/* access.c - who may: Require trees (mod_authz_core) and Order/Allow/Deny (mod_access_compat).
 * Runs as:  child, as the identity that owns the host.   Sees: client address, environment, method.
 * Trusts:   the record's trees, checked when it was loaded.   Distrusts: the client; a tree that is cut off denies.
 * Before:   map.c   After: serve.c
 *
 * A rule says granted, denied or nothing. A negated rule can deny but never grant; what nobody granted is denied. A rule that
 * needs the client's name says "ask" as long as Python has not looked it up, and the question is put only if no other rule
 * decides. */
#include <arpa/inet.h>
#include <string.h>

#include "serve.h"

#define MAX_DEPTH 40 /* above what record.c lets in */

enum verdict { NEUTRAL, DENIED, GRANTED, ASK };

struct address {
    uint8_t bytes[16];
    uint8_t family; /* 4, 6; 0 = neither */
};

int
pc_access_next(struct pc_slice nodes, size_t *at, struct pc_access_node *ret_node)
{
    if (*at == nodes.len)
        return 0;
    if (nodes.len - *at < 4)
        return -PC_E_FORMAT;
    const uint8_t *head = (const uint8_t *)nodes.base + *at;
    size_t len = (size_t)(head[2] | head[3] << 8);
    if (head[1] > 1 || len > nodes.len - *at - 4)
        return -PC_E_FORMAT;
    *ret_node = (struct pc_access_node){.kind = head[0], .negate = head[1] == 1, .payload = {nodes.base + *at + 4, len}};
    *at += 4 + len;
    return (int)(4 + len);
}

/* ------------------------------------------------------------------ leaves */

/* An IPv4 client of a listener for both families is an IPv4 client. */
static struct address
address_of(const struct sockaddr_storage *storage)
{
    struct address address = {0};
    if (storage->ss_family == AF_INET) {
        address.family = 4;
        memcpy(address.bytes, &((const struct sockaddr_in *)(const void *)storage)->sin_addr, 4);
    } else if (storage->ss_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)storage)->sin6_addr;
        address.family = IN6_IS_ADDR_V4MAPPED(v6) ? 4 : 6;
        memcpy(address.bytes, v6->s6_addr + (address.family == 4 ? 12 : 0), address.family == 4 ? 4 : 16);
    }
    return address;
}

static bool
is_in_network(const struct sockaddr_storage *address, struct pc_slice payload)
{
    struct address client = address_of(address);
    const uint8_t *rule = (const uint8_t *)payload.base;
    if (payload.len < 2 || client.family != rule[0] || payload.len != (client.family == 4 ? 6u : 18u))
        return false;
    unsigned bits = rule[1], whole = bits / 8, rest = bits % 8;
    if (whole > payload.len - 2 || memcmp(client.bytes, rule + 2, whole) != 0)
        return false;
    return rest == 0 || ((client.bytes[whole] ^ rule[2 + whole]) & (0xff00u >> rest & 0xff)) == 0;
}

bool
pc_access_has(struct pc_slice leaves, const struct sockaddr_storage *address)
{
    struct pc_access_node leaf;
    size_t at = 0;
    while (pc_access_next(leaves, &at, &leaf) > 0)
        if (leaf.kind == PC_ACC_IP && is_in_network(address, leaf.payload))
            return true;
    return false;
}

static bool
is_local(const struct pc_req *req)
{
    static const uint8_t loopback[16] = {[15] = 1};
    struct address client = address_of(&req->client), server = address_of(&req->server);
    if (client.family == 0)
        return false;
    if (client.family == 4 && client.bytes[0] == 127)
        return true;
    if (client.family == 6 && memcmp(client.bytes, loopback, 16) == 0)
        return true;
    return client.family == server.family && memcmp(client.bytes, server.bytes, client.family == 4 ? 4 : 16) == 0;
}

/* "example.org" is itself and all below it, ".example.org" only what is below. */
static bool
is_in_domain(struct pc_slice name, struct pc_slice domain)
{
    if (domain.len == 0 || name.len < domain.len)
        return false;
    struct pc_slice tail = {name.base + name.len - domain.len, domain.len};
    if (!pc_slice_ieq(tail, domain))
        return false;
    return tail.base == name.base || domain.base[0] == '.' || tail.base[-1] == '.';
}

static bool
has_method(const struct pc_req *req, struct pc_slice names)
{
    struct pc_slice method = pc_slice_at(req->raw, req->head->method);
    for (size_t at = 0; at < names.len;) {
        const char *blank = memchr(names.base + at, ' ', names.len - at);
        size_t len = blank != NULL ? (size_t)(blank - names.base) - at : names.len - at;
        if (len > 0 && pc_slice_eq((struct pc_slice){names.base + at, len}, method))
            return true;
        at += len + 1;
    }
    return false;
}

static enum verdict
judge_host(const struct pc_req *req, struct pc_slice domain)
{
    if (req->client_name.base == NULL)
        return ASK;
    return is_in_domain(req->client_name, domain) ? GRANTED : DENIED;
}

static enum verdict
judge_leaf(const struct pc_req *req, const struct pc_access_node *node)
{
    bool fits = false;
    switch (node->kind) {
    case PC_ACC_GRANTED:
        fits = true;
        break;
    case PC_ACC_IP:
        fits = is_in_network(&req->client, node->payload);
        break;
    case PC_ACC_HOST:
        return judge_host(req, node->payload);
    case PC_ACC_LOCAL:
        fits = is_local(req);
        break;
    case PC_ACC_ENV:
        fits = pc_env_get(req, node->payload).base != NULL;
        break;
    case PC_ACC_METHOD:
        fits = has_method(req, node->payload);
        break;
    default: /* PC_ACC_DENIED, and what record.c would not have let in */
        break;
    }
    return fits ? GRANTED : DENIED;
}

/* ------------------------------------------------------------------ Require */

static enum verdict
negate(enum verdict verdict)
{
    if (verdict == GRANTED)
        return DENIED;
    return verdict == ASK ? ASK : NEUTRAL;
}

static enum verdict judge_nodes(const struct pc_req *req, struct pc_slice nodes, bool all, int depth);

static enum verdict
judge_node(const struct pc_req *req, const struct pc_access_node *node, int depth)
{
    enum verdict verdict;
    if (node->kind < PC_ACC_ALL || node->kind > PC_ACC_NONE)
        verdict = judge_leaf(req, node);
    else
        verdict = judge_nodes(req, node->payload, node->kind == PC_ACC_ALL, depth + 1);
    if (node->kind == PC_ACC_NONE)
        verdict = negate(verdict);
    return node->negate ? negate(verdict) : verdict;
}

/* all: the first that denies decides, else any that grants; otherwise: the first that grants decides, else any that denies. */
static enum verdict
judge_nodes(const struct pc_req *req, struct pc_slice nodes, bool all, int depth)
{
    const enum verdict final = all ? DENIED : GRANTED;
    enum verdict result = NEUTRAL;
    struct pc_access_node node;
    bool must_ask = false;
    size_t at = 0;
    int step;
    if (depth > MAX_DEPTH)
        return DENIED;
    while ((step = pc_access_next(nodes, &at, &node)) > 0) {
        enum verdict verdict = judge_node(req, &node, depth);
        if (verdict == final)
            return final;
        if (verdict == ASK)
            must_ask = true;
        else if (verdict != NEUTRAL)
            result = verdict;
    }
    if (step < 0)
        return DENIED;
    return must_ask ? ASK : result;
}

/* ------------------------------------------------------------------ Order, Allow, Deny */

/* Whether any of Allow's or Deny's words fits. Here `env=!X` is simply the opposite, where `Require not` has no opinion. */
static enum verdict
judge_list(const struct pc_req *req, struct pc_slice leaves)
{
    struct pc_access_node leaf;
    enum verdict result = DENIED;
    size_t at = 0;
    while (pc_access_next(leaves, &at, &leaf) > 0) {
        enum verdict verdict = judge_leaf(req, &leaf);
        if (verdict == ASK)
            result = ASK;
        else if ((verdict == GRANTED) != leaf.negate)
            return GRANTED;
    }
    return result;
}

static enum verdict
judge_order(const struct pc_req *req, const struct pc_order *order)
{
    enum verdict allowed = judge_list(req, order->allow), denied = judge_list(req, order->deny);
    bool allow_last = order->order == 0; /* deny,allow: allowed unless denied, and Allow has the last word */
    if (allow_last && allowed == GRANTED)
        return GRANTED;
    if (!allow_last && denied == GRANTED)
        return DENIED;
    if (allowed == ASK || denied == ASK)
        return ASK;
    if (allow_last)
        return denied == GRANTED ? DENIED : GRANTED;
    return allowed == GRANTED ? GRANTED : DENIED;
}

/* Returns what pc_access_check does; ret_by_order: it was Order, Allow and Deny that refused. */
static int
judge(struct pc_req *req, bool *ret_by_order)
{
    const struct pc_order *order = NULL;
    enum verdict ordered = GRANTED, required = GRANTED;
    if (req->has_answer && req->ask == PC_ASK_HOSTNAME && req->client_name.base == NULL)
        req->client_name = PC_S(""); /* looked up, and there is none */
    for (uint32_t i = req->layer_count; i-- > 0 && order == NULL;)
        order = req->layers[i]->order;
    if (order != NULL)
        ordered = judge_order(req, order);
    *ret_by_order = ordered == DENIED;
    if (ordered == DENIED)
        return -PC_E_FORBIDDEN;
    struct pc_slice require = PC_LAYERS_SLICE(req, require);
    if (require.base != NULL)
        required = judge_nodes(req, require, true, 0);
    if (required == DENIED || required == NEUTRAL)
        return -PC_E_FORBIDDEN;
    return ordered == ASK || required == ASK ? 1 : 0;
}

int
pc_access_judge(struct pc_req *req)
{
    bool by_order;
    return judge(req, &by_order);
}

int
pc_access_check(struct pc_req *req)
{
    bool by_order;
    int result = judge(req, &by_order);
    if (result < 0) /* the words that fail2ban's apache filters look for */
        pc_errlog_req(req, PC_ERROR, by_order ? "access_compat" : "authz_core",
                      "%s: client denied by server configuration: %.*s", by_order ? "AH01797" : "AH01630",
                      (int)req->filename.len, req->filename.len > 0 ? req->filename.base : "");
    return result;
}
