/* keys.c - the descriptors of an identity's TLS keys, from the fork until its child is ready.
 * Runs as:  child, after the drop.   Sees: no byte of them: tls.c reads.   Holds: the keys' descriptors, until pc_keys_close.
 * Trusts:   the dispatcher's descriptors.   Distrusts: paths of its own tenant: opened with the tenant's rights alone.
 * Before:   child.c   After: tls.c */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "child.h"

/* Keys that the dispatcher did not open lie where not only root can change the path: they are opened with this child's rights. */
static void
open_own_keys(struct pc_child *child, const struct pc_host *host)
{
    for (uint32_t i = 0; host->tls != NULL && i < host->tls->cert_count; i++) {
        const struct pc_cert *cert = &host->tls->certs[i];
        if (cert->key_number >= child->key_count || child->key_fds[cert->key_number] >= 0)
            continue;
        int fd = open(cert->key_path.base, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        child->key_fds[cert->key_number] = fd >= 0 ? fd : -errno;
    }
}

int
pc_keys_take(struct pc_child *child, const struct pc_child_options *options)
{
    child->key_fds = calloc(options->key_count + 1, sizeof *child->key_fds);
    if (child->key_fds == NULL)
        return -PC_E_MEMORY;
    for (uint32_t i = 0; i < options->key_count; i++)
        child->key_fds[i] = options->key_fds[i] >= 0 ? options->key_fds[i] : -ENOENT;
    child->key_count = options->key_count;
    child->takes_any_key = options->takes_any_key;
    for (uint32_t i = 0; i < child->config->host_count; i++)
        open_own_keys(child, &child->config->hosts[i]);
    return options->ticket_fd >= 0 ? pc_child_set_tickets(child, options->ticket_fd) : 0;
}

/* Read by now, or of no use. */
void
pc_keys_close(struct pc_child *child)
{
    for (uint32_t i = 0; i < child->key_count; i++)
        if (child->key_fds[i] >= 0)
            (void)close(child->key_fds[i]);
    free(child->key_fds);
    child->key_fds = NULL;
    child->key_count = 0;
}
