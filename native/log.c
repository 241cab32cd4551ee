/* log.c - access logs: whole lines are gathered, written 4 KB at a time; what is lost is counted.
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes, escaped by format.c.
 * Holds:    the log files' descriptors.
 * Trusts:   descriptors of the dispatcher.
 * Distrusts: paths below a tenant's directories: opened with the tenant's own rights, and only
 *           plain files that are its own are written to.
 * Before:   format.c   After: - */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PC_LOG_COMPLAIN_NS (60ull * 1000000000u)
/* A line that was written in part must stay whole, hence room for the longest one behind a full
 * buffer. */
#define PC_LOG_ROOM_BYTES (PC_LOG_BUFFER_BYTES + PC_MAX_LOG_LINE_BYTES)

/* What pc_log_file.buffer points to. Its lines begin at data[0]; pc_log_file.used counts them. */
struct pc_log_room {
    _Alignas(64) uint64_t complained_ns; /* 0 = never; cache lines are no other thread's */
    bool in_line;           /* data[0] goes on a line whose beginning is in the file */
    bool is_failing;        /* it was told that writing fails, and not yet that it goes on */
    char data[PC_LOG_ROOM_BYTES];
};

/* ------------------------------------------------------------------ opening */

static const char *
pc_log_judge(int fd)
{
    struct stat facts;

    if (fstat(fd, &facts) != 0)
        return "cannot be examined";
    if (!S_ISREG(facts.st_mode))
        return "is not a regular file";
    if (facts.st_nlink != 1)
        return "has other names (hard links); remove it";
    if (facts.st_uid != geteuid())
        return "belongs to another user; give it to this one or remove it";
    return NULL;
}

static int
pc_log_openat2(const char *path, uint64_t more_flags)
{
    struct open_how how = {
        .flags = O_WRONLY | O_APPEND | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC | more_flags,
        .mode = (more_flags & O_CREAT) ? 0640 : 0,
        .resolve = RESOLVE_NO_MAGICLINKS, /* links among the directories are the administrator's */
    };

    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* Open or create the child's own log. Returns the descriptor, or -1 with ret_why. */
static int
pc_log_open_own(const char *path, const char **ret_why)
{
    int fd = pc_log_openat2(path, 0);

    if (fd < 0 && errno == ENOENT) {
        fd = pc_log_openat2(path, O_CREAT | O_EXCL);
        if (fd >= 0 && fchmod(fd, 0640) != 0) { /* umask 077; but the group may read logs */
            *ret_why = "cannot be given mode 0640";
            goto refuse;
        }
        if (fd < 0 && errno == EEXIST) /* another child of this identity was faster */
            fd = pc_log_openat2(path, 0);
    }
    if (fd < 0) {
        *ret_why = errno == ELOOP ? "is a symbolic link; name the file itself"
                                  : strerrordesc_np(errno);
        return -1;
    }
    *ret_why = pc_log_judge(fd);
    if (*ret_why == NULL)
        return fd;
refuse:
    (void)close(fd); /* nothing was written to it */
    return -1;
}

/* The descriptor that file `index` shall have; -1 = none. */
static int
pc_log_obtain(struct pc_config *config, uint32_t index, const int *fds, size_t fd_count)
{
    const struct pc_log_file *file = &config->log_files[index];
    char path[PC_MAX_PATH_BYTES + 1];
    const char *why = "its name is too long";
    int fd = -1;

    if (file->by_dispatcher)
        return index < fd_count ? fds[index] : -1;
    if (file->path.len < sizeof path) {
        memcpy(path, file->path.base, file->path.len);
        path[file->path.len] = '\0';
        fd = pc_log_open_own(path, &why);
    }
    if (fd < 0)
        pc_errlog(config, NULL, PC_ERROR, "log_config", NULL,
                  "AH00649: could not open transfer log file %.*s: %s", (int)file->path.len,
                  file->path.base, why);
    return fd;
}

int
pc_log_open(struct pc_config *config, const int *fds, size_t fd_count)
{
    for (uint32_t i = 0; i < config->log_file_count; i++)
        config->log_files[i].fd = pc_log_obtain(config, i, fds, fd_count);
    return 0;
}

/* ------------------------------------------------------------------ writing; the lock is held */

/* How much to write at once: whole lines, and no more than a pipe takes without mixing its writers
 * (PIPE_BUF). */
static size_t
pc_log_piece(const struct pc_log_room *room, size_t used)
{
    const char *end;

    if (used <= PC_LOG_BUFFER_BYTES)
        return used;
    end = memrchr(room->data, '\n', PC_LOG_BUFFER_BYTES);
    if (end == NULL)
        end = memchr(room->data, '\n', used);
    return end != NULL ? (size_t)(end - room->data) + 1 : used;
}

/* Write what is there, as far as the file takes it. Returns 0 or an errno; the rest stays. */
static int
pc_log_write_out(struct pc_log_file *file)
{
    struct pc_log_room *room = (struct pc_log_room *)(void *)file->buffer;
    ssize_t count;

    while (file->used > 0) {
        if (file->fd < 0)
            return EBADF;
        count = write(file->fd, room->data, pc_log_piece(room, file->used));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno;
        if (count == 0)
            return ENOSPC;
        room->in_line = room->data[count - 1] != '\n';
        file->used -= (size_t)count;
        memmove(room->data, room->data + count, file->used);
    }
    return 0;
}

/* The file changes: a line begun in the old one cannot go on in the new one. */
static void
pc_log_cut_line(struct pc_log_file *file)
{
    struct pc_log_room *room = (struct pc_log_room *)(void *)file->buffer;
    const char *end;

    if (!room->in_line)
        return;
    end = memchr(room->data, '\n', file->used);
    if (end == NULL)
        pc_bug("log: a line without an end");
    file->used -= (size_t)(end - room->data) + 1;
    memmove(room->data, end + 1, file->used);
    room->in_line = false;
    file->lost_lines++;
}

/* Whether this failure is to be told: at most once a minute and file. */
static bool
pc_log_may_complain(struct pc_log_file *file)
{
    struct pc_log_room *room = (struct pc_log_room *)(void *)file->buffer;
    const uint64_t now = pc_now_ns();

    if (room->complained_ns != 0 && now - room->complained_ns < PC_LOG_COMPLAIN_NS)
        return false;
    room->complained_ns = now;
    room->is_failing = true;
    return true;
}

/* Returns 0 or the errno why lines wait or were lost. */
static int
pc_log_append(struct pc_log_file *file, struct pc_slice line)
{
    struct pc_log_room *room = (struct pc_log_room *)(void *)file->buffer;
    int error = 0;

    if (file->used + line.len > PC_LOG_BUFFER_BYTES)
        error = pc_log_write_out(file);
    if (file->fd < 0 || file->used + line.len > PC_LOG_ROOM_BYTES) {
        file->lost_lines++;
        return error != 0 ? error : EBADF;
    }
    memcpy(room->data + file->used, line.base, line.len);
    file->used += line.len;
    if (file->used > PC_LOG_BUFFER_BYTES && error == 0)
        error = pc_log_write_out(file);
    return error;
}

/* ------------------------------------------------------------------ for others */

static void
pc_log_complain(const struct pc_config *config, const struct pc_host *host,
                const struct pc_log_file *file, int error, uint64_t lost_lines)
{
    const char *why = strerrordesc_np(error);

    pc_errlog(config, host, PC_ERROR, "log_config", NULL,
              "writing the access log %.*s fails: %s; %llu lines lost so far; still serving",
              (int)file->path.len, file->path.base, why != NULL ? why : "unknown error",
              (unsigned long long)lost_lines);
}

/* What was written until now has arrived. Whether that is news: only after a complaint. */
static bool
pc_log_has_recovered(struct pc_log_file *file)
{
    struct pc_log_room *room = (struct pc_log_room *)(void *)file->buffer;

    if (room == NULL || !room->is_failing || file->fd < 0)
        return false;
    room->is_failing = false;
    return true;
}

/* At the first line: a host that nobody visits costs nothing. */
static bool
pc_log_has_room(struct pc_log_file *file)
{
    struct pc_log_room *room;

    if (file->buffer != NULL)
        return true;
    room = aligned_alloc(_Alignof(struct pc_log_room), sizeof *room);
    if (room == NULL)
        return false;
    room->complained_ns = 0;
    room->in_line = room->is_failing = false;
    file->buffer = (char *)room;
    return true;
}

static void
pc_log_line(const struct pc_req *req, struct pc_log_file *file, struct pc_slice line)
{
    bool may_complain = false;
    uint64_t lost_lines;
    int error = 0;

    pthread_mutex_lock(&file->lock);
    if (!pc_log_has_room(file)) {
        file->lost_lines++; /* no memory: not the moment to write about it */
    } else {
        error = pc_log_append(file, line);
        may_complain = error != 0 && error != EAGAIN && pc_log_may_complain(file);
    }
    lost_lines = file->lost_lines;
    pthread_mutex_unlock(&file->lock);
    if (may_complain)
        pc_log_complain(req->config, req->host, file, error, lost_lines);
}

/* CustomLog ... env=name, env=!name */
static bool
pc_log_is_wanted(const struct pc_req *req, struct pc_slice env)
{
    const bool wants_unset = env.len > 0 && env.base[0] == '!';

    if (env.len == 0)
        return true;
    if (wants_unset) {
        env.base++;
        env.len--;
    }
    return (pc_env_get(req, env).base == NULL) == wants_unset;
}

void
pc_log_request(struct pc_req *req)
{
    char line[PC_MAX_LOG_LINE_BYTES];
    size_t len;

    if (req->host == NULL)
        return;
    if (req->host->log_count > 0 && req->end_ns == 0)
        req->end_ns = pc_now_ns();
    for (uint32_t i = 0; i < req->host->log_count; i++) {
        const struct pc_log *log = &req->host->logs[i];
        if (log->file >= req->config->log_file_count || !pc_log_is_wanted(req, log->env))
            continue;
        len = pc_format_write(req, log->format, true, line, sizeof line - 1);
        line[len++] = '\n';
        pc_log_line(req, &req->config->log_files[log->file],
                    (struct pc_slice){.base = line, .len = len});
    }
}

void
pc_log_flush(struct pc_config *config)
{
    for (uint32_t i = 0; i < config->log_file_count; i++) {
        struct pc_log_file *file = &config->log_files[i];
        bool may_complain = false, has_recovered;
        uint64_t lost_lines;
        int error;

        pthread_mutex_lock(&file->lock);
        error = file->buffer != NULL ? pc_log_write_out(file) : 0;
        has_recovered = error == 0 && pc_log_has_recovered(file);
        may_complain = error != 0 && error != EAGAIN && pc_log_may_complain(file);
        lost_lines = file->lost_lines;
        pthread_mutex_unlock(&file->lock);
        if (may_complain)
            pc_log_complain(config, NULL, file, error, lost_lines);
        if (has_recovered)
            pc_errlog(config, NULL, PC_NOTICE, "log_config", NULL,
                      "writing the access log %.*s goes on; %llu lines were lost",
                      (int)file->path.len, file->path.base, (unsigned long long)lost_lines);
    }
}

void
pc_log_end(struct pc_config *config)
{
    pc_log_flush(config);
    for (uint32_t i = 0; i < config->log_file_count; i++) {
        struct pc_log_file *file = &config->log_files[i];
        const struct pc_log_room *room = (const struct pc_log_room *)(const void *)file->buffer;

        pthread_mutex_lock(&file->lock);
        for (size_t at = 0; at < file->used; at++)
            file->lost_lines += room->data[at] == '\n';
        file->used = 0;
        pthread_mutex_unlock(&file->lock);
    }
}

uint64_t
pc_log_lost(struct pc_config *config)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < config->log_file_count; i++) {
        pthread_mutex_lock(&config->log_files[i].lock);
        count += config->log_files[i].lost_lines;
        pthread_mutex_unlock(&config->log_files[i].lock);
    }
    return count;
}

/* Without a new file the old one is written on: better a rotated log than none. */
int
pc_log_reopen(struct pc_config *config, const int *fds, size_t fd_count)
{
    for (uint32_t i = 0; i < config->log_file_count; i++) {
        struct pc_log_file *file = &config->log_files[i];
        const int fd = pc_log_obtain(config, i, fds, fd_count);

        if (fd < 0)
            continue;
        pthread_mutex_lock(&file->lock);
        if (file->buffer != NULL && pc_log_write_out(file) != 0)
            pc_log_cut_line(file); /* whole lines go to the new file */
        if (file->fd >= 0)
            (void)close(file->fd); /* what write(2) took is the kernel's to keep */
        file->fd = fd;
        pthread_mutex_unlock(&file->lock);
    }
    return 0;
}
