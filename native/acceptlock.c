/* acceptlock.c - AcceptMutex: at most one of the unassigned children waits for connections at a time.
 * Runs as:  unassigned child, which shares its uid with all who take the lock; never a tenant's child: a stopped holder would
 *           stop the others (security.md 4.4).   Sees: nothing of clients.
 * The holder keeps the lock while it waits in epoll and lets go of it behind each batch; the others look again every
 * PC_LOCK_POLL_MS. `default` takes no lock: EPOLLEXCLUSIVE wakes one child at a time.
 * Before:   loop.c   After: accept.c */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <unistd.h>

#include "child.h"

int
pc_acceptlock_init_shared(int fd)
{
    if (ftruncate(fd, (off_t)sizeof(pthread_mutex_t)) < 0)
        return -PC_E_SYS;
    void *at = mmap(NULL, sizeof(pthread_mutex_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return -PC_E_SYS;
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error == 0)
        error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0)
        error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (error == 0)
        error = pthread_mutex_init(at, &attributes);
    (void)munmap(at, sizeof(pthread_mutex_t));
    return error == 0 ? 0 : -PC_E_SYS;
}

int
pc_acceptlock_new_semaphore(uint32_t uid, uint32_t gid)
{
    union { int val; struct semid_ds *buf; } argument;
    struct semid_ds state;
    int id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
    if (id < 0)
        return -PC_E_SYS;
    argument.buf = &state;
    bool is_ours = semctl(id, 0, IPC_STAT, argument) == 0;
    state.sem_perm.uid = uid;
    state.sem_perm.gid = gid;
    is_ours = is_ours && semctl(id, 0, IPC_SET, argument) == 0;
    argument.val = 1;
    if (!is_ours || semctl(id, 0, SETVAL, argument) < 0) {
        (void)semctl(id, 0, IPC_RMID);
        return -PC_E_SYS;
    }
    return id;
}

int
pc_acceptlock_remove_semaphore(int id)
{
    return semctl(id, 0, IPC_RMID) < 0 ? -PC_E_SYS : 0;
}

int
pc_acceptlock_map(struct pc_child *child)
{
    if (child->mutex_kind != PC_LOCK_PTHREAD)
        return 0;
    void *at = mmap(NULL, sizeof(pthread_mutex_t), PROT_READ | PROT_WRITE, MAP_SHARED, child->mutex_fd, 0);
    if (at == MAP_FAILED)
        return -PC_E_SYS;
    child->mutex_shared = at;
    return 0;
}

static bool
try_default(struct pc_child *child)
{
    (void)child;
    return true;
}

static void
release_default(struct pc_child *child)
{
    (void)child;
}

/* flock belongs to the open file description, and forked children share one: each opens the file again for itself. */
static bool
try_flock(struct pc_child *child)
{
    return flock(child->mutex_fd, LOCK_EX | LOCK_NB) == 0;
}

static void
release_flock(struct pc_child *child)
{
    (void)flock(child->mutex_fd, LOCK_UN); /* cannot fail on a lock that is held */
}

static bool
try_fcntl(struct pc_child *child)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(child->mutex_fd, F_SETLK, &whole) == 0;
}

static void
release_fcntl(struct pc_child *child)
{
    struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    (void)fcntl(child->mutex_fd, F_SETLK, &whole); /* as above */
}

static bool
try_pthread(struct pc_child *child)
{
    int error = pthread_mutex_trylock(child->mutex_shared);
    if (error == EOWNERDEAD) /* its holder was killed; the state it guards is the kernel's */
        error = pthread_mutex_consistent(child->mutex_shared);
    return error == 0;
}

static void
release_pthread(struct pc_child *child)
{
    (void)pthread_mutex_unlock(child->mutex_shared); /* held by this thread */
}

static bool
try_sysvsem(struct pc_child *child)
{
    struct sembuf down = {.sem_num = 0, .sem_op = -1, .sem_flg = IPC_NOWAIT | SEM_UNDO};
    return semop(child->mutex_id, &down, 1) == 0;
}

static void
release_sysvsem(struct pc_child *child)
{
    struct sembuf up = {.sem_num = 0, .sem_op = 1, .sem_flg = IPC_NOWAIT | SEM_UNDO};
    (void)semop(child->mutex_id, &up, 1); /* raising never waits */
}

static const struct {
    bool (*try)(struct pc_child *child);
    void (*release)(struct pc_child *child);
} methods[] = {
    [PC_LOCK_DEFAULT] = {try_default, release_default},
    [PC_LOCK_FLOCK] = {try_flock, release_flock},
    [PC_LOCK_FCNTL] = {try_fcntl, release_fcntl},
    [PC_LOCK_PTHREAD] = {try_pthread, release_pthread},
    [PC_LOCK_SYSVSEM] = {try_sysvsem, release_sysvsem},
};

bool
pc_acceptlock_try(struct pc_child *child)
{
    if (!child->mutex_held)
        child->mutex_held = methods[child->mutex_kind].try(child);
    return child->mutex_held;
}

void
pc_acceptlock_release(struct pc_child *child)
{
    if (child->mutex_held)
        methods[child->mutex_kind].release(child);
    child->mutex_held = false;
}
