/* acme.c - answer an authority that wants to see that a host is ours (ACME's HTTP-01, RFC 8555 8.3).
 * Runs as:  child, as the identity that owns the host.   Sees: the request.   Distrusts: its path.
 * Before:   serve.c   After: file.c
 *
 * A host that redirects everything to https, asks for a password, or passes everything to a back end, could never be given the
 * certificate that it needs. So a file that lies where an ACME client puts it, below the host's own root or where an Alias leads, is
 * sent ahead of all that. Where there is none the request goes on as any other: a back end may answer challenges itself. */
#include "serve.h"

#define MAX_TOKEN_BYTES 128 /* RFC 8555 8.3 asks for 22 or more; authorities have 43 */

static const struct pc_slice prefix = {"/.well-known/acme-challenge/", 28};

/* Letters of base64url alone: no dot, so neither a hidden file nor a program's source has such a name. */
bool
pc_acme_is_challenge(struct pc_slice path)
{
    struct pc_slice token = path.len > prefix.len ? pc_slice_behind(path, prefix.len) : (struct pc_slice){0};
    if (token.len == 0 || token.len > MAX_TOKEN_BYTES || !pc_slice_starts(path, prefix))
        return false;
    for (size_t i = 0; i < token.len; i++) {
        char c = token.base[i];
        bool is_good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (!is_good)
            return false;
    }
    return true;
}

enum pc_serve
pc_acme_serve(struct pc_req *req)
{
    struct pc_place place;
    uint8_t method = pc_serve_method(req);
    if ((method != PC_GET && method != PC_HEAD) || pc_map_place(req, &place) != 0 || req->by_script_alias)
        return PC_SERVE_ON;
    req->options = PC_OPT_FOLLOWSYMLINKS; /* what the host's user can read, and has put there */
    return pc_file_serve_text(req, &place);
}
