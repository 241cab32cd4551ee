/* ask.c - what Python sees of a request that it decides, and how it answers.
 * Runs as:  child, as the identity.   Sees: the request.   Holds: nothing.
 * The worker whose slot is named has come back with PC_WORK_ASK and waits; the strings live until it runs again.
 * Before:   loop.c   After: serve.c */
#include <arpa/inet.h>
#include <string.h>

#include "child.h"

static const char *
text_of(struct pc_req *req, struct pc_slice s)
{
    return s.base == NULL ? "" : pc_arena_copy(req->arena, s).base;
}

static const char *
client_of(struct pc_req *req)
{
    char text[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_in *v4 = (const void *)&req->client;
    const struct sockaddr_in6 *v6 = (const void *)&req->client;
    const void *address = req->client.ss_family == AF_INET6 ? (const void *)&v6->sin6_addr : (const void *)&v4->sin_addr;
    if (inet_ntop(req->client.ss_family, address, text, sizeof text) == NULL)
        return "";
    return text_of(req, (struct pc_slice){text, strlen(text)});
}

int
pc_ask_question(struct pc_child *child, uint32_t slot, struct pc_question *ret_question)
{
    struct pc_conn *conn = child->workers[slot].current;
    if (conn == NULL)
        return -PC_E_BAD;
    struct pc_req *req = &conn->io->req;
    *ret_question = (struct pc_question){
        .kind = req->ask,
        .slot = slot,
        .slot_value = pc_slot_get(child->page, slot),
        .is_handed = conn->is_handed,
        .status = req->resp.status,
        .method = text_of(req, pc_slice_at(req->raw, req->head->method)),
        .path = text_of(req, req->path),
        .query = text_of(req, req->query),
        .host = text_of(req, (struct pc_slice){req->name.name, req->name.len}),
        .handler = text_of(req, req->handler),
        .client = client_of(req),
    };
    return 0;
}

void
pc_ask_answer_name(struct pc_child *child, uint32_t slot, const char *name)
{
    struct pc_conn *conn = child->workers[slot].current;
    if (conn == NULL)
        return;
    struct pc_req *req = &conn->io->req;
    req->client_name = pc_arena_copy(req->arena, (struct pc_slice){name, strlen(name)});
    req->has_answer = true;
}

void
pc_ask_answer(struct pc_child *child, uint32_t slot, uint32_t status, const char *content_type, const char *body, size_t len)
{
    struct pc_conn *conn = child->workers[slot].current;
    if (conn == NULL)
        return;
    struct pc_req *req = &conn->io->req;
    req->has_answer = true;
    req->answer_status = status;
    req->answer = pc_arena_copy(req->arena, (struct pc_slice){body, len});
    req->answer_type = pc_arena_copy(req->arena, (struct pc_slice){content_type, strlen(content_type)});
}
