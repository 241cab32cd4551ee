/* spool.c - bytes that are kept until all of them are there: a few in memory, more in a file that has no name.
 * Runs as:  child, as the identity that owns the host.   Sees: the body of a request.
 * Holds:    SPOOL_MEMORY_BYTES at most, or one file of the identity's (its quota counts), which is gone with its descriptor.
 * Before:   gate_fcgi.c   After: - */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_TMPFILE */
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gate.h"

#define SPOOL_MEMORY_BYTES 65536

/* For what may be large: /var/tmp is on a disk where /tmp is memory. An old overlay makes no file without a name; memory always does. */
static const char *const directories[] = {"/var/tmp", "/tmp", "/dev/shm"};

struct pc_spool {
    char *memory; /* SPOOL_MEMORY_BYTES, until there is a file */
    int fd;       /* -1 = none */
    uint64_t len, at;
};

struct pc_spool *
pc_spool_new(void)
{
    struct pc_spool *spool = calloc(1, sizeof *spool);
    if (spool == NULL || (spool->memory = malloc(SPOOL_MEMORY_BYTES)) == NULL)
        pc_die(111, "out of memory");
    spool->fd = -1;
    return spool;
}

void
pc_spool_free(struct pc_spool *spool)
{
    if (spool == NULL)
        return;
    if (spool->fd >= 0)
        (void)close(spool->fd); /* nobody reads it any more */
    free(spool->memory);
    free(spool);
}

uint64_t
pc_spool_len(const struct pc_spool *spool)
{
    return spool->len;
}

static int
open_file(void)
{
    int fd = -1;
    for (size_t i = 0; fd < 0 && i < sizeof directories / sizeof *directories; i++)
        fd = open(directories[i], O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    return fd;
}

static int
write_file(const struct pc_spool *spool, const char *buf, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t count = pwrite(spool->fd, buf, len, (off_t)at);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -PC_E_SYS;
        buf += count;
        len -= (size_t)count;
        at += (uint64_t)count;
    }
    return 0;
}

int
pc_spool_put(struct pc_spool *spool, const char *buf, size_t len)
{
    if (spool->fd < 0 && spool->len + len > SPOOL_MEMORY_BYTES) {
        spool->fd = open_file();
        if (spool->fd < 0 || write_file(spool, spool->memory, (size_t)spool->len, 0) != 0)
            return -PC_E_SYS;
        free(spool->memory);
        spool->memory = NULL;
    }
    if (spool->fd < 0)
        memcpy(spool->memory + spool->len, buf, len); /* UNSAFE: compared with the room */
    else if (write_file(spool, buf, len, spool->len) != 0)
        return -PC_E_SYS;
    spool->len += len;
    return 0;
}

ssize_t
pc_spool_take(struct pc_spool *spool, char *buf, size_t cap)
{
    size_t want = spool->len - spool->at < cap ? (size_t)(spool->len - spool->at) : cap;
    ssize_t count = (ssize_t)want;
    if (spool->fd < 0 && want > 0)
        memcpy(buf, spool->memory + spool->at, want); /* UNSAFE: compared with both */
    while (spool->fd >= 0 && (count = pread(spool->fd, buf, want, (off_t)spool->at)) < 0 && errno == EINTR)
        continue;
    if (count < 0 || (count == 0 && want > 0))
        return -PC_E_SYS;
    spool->at += (uint64_t)count;
    return count;
}
