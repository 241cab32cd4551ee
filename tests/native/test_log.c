/* test_log.c - claims about native/log.c. */
/* sources: log.c errlog.c format.c escape.c uri.c h1.c host.c util.c */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "format_case.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------------ a place with two log files: [0] access, [1] errors */

struct place {
    struct case_all *all;
    char dir[64], path[160], error_path[96], other_path[96];
};

static struct place
place_new(void)
{
    struct place place = {.dir = "/tmp/pc-test-log-XXXXXX"};

    if (mkdtemp(place.dir) == NULL)
        abort();
    (void)snprintf(place.path, sizeof place.path, "%s/access.log", place.dir);
    (void)snprintf(place.error_path, sizeof place.error_path, "%s/error.log", place.dir);
    (void)snprintf(place.other_path, sizeof place.other_path, "%s/other", place.dir);
    place.all = case_new();
    place.all->log = (struct pc_log){.file = 0};
    return place;
}

/* Names live in `place`, so this is called when it has come to rest. */
static void
place_open(struct place *place)
{
    struct pc_log_file *files = place->all->files;

    files[0].path = (struct pc_slice){.base = place->path, .len = strlen(place->path)};
    files[1].path = (struct pc_slice){.base = place->error_path, .len = strlen(place->error_path)};
    CHECK_EQ(pc_log_open(&place->all->config, NULL, 0), 0);
}

static void
place_free(struct place *place)
{
    for (size_t i = 0; i < 2; i++) {
        if (place->all->files[i].fd >= 0)
            (void)close(place->all->files[i].fd);
        free(place->all->files[i].buffer);
    }
    free(place->all);
    (void)unlink(place->path);
    (void)rmdir(place->path);
    (void)unlink(place->error_path);
    (void)unlink(place->other_path);
    if (rmdir(place->dir) != 0)
        abort();
}

/* A line of exactly `len` bytes, its newline included: a letter again and again. */
static void
log_line(struct place *place, char letter, size_t len)
{
    static char ops[4 + PC_MAX_LOG_LINE_BYTES];
    const size_t arg_len = len - 1;

    ops[0] = PC_FMT_LITERAL;
    ops[1] = 0;
    ops[2] = (char)(arg_len & 255);
    ops[3] = (char)(arg_len >> 8);
    memset(ops + 4, letter, arg_len);
    place->all->log.format = (struct pc_slice){.base = ops, .len = 4 + arg_len};
    pc_log_request(&place->all->req);
}

/* The file's bytes and a NUL; free() it. */
static char *
slurp(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat facts = {.st_size = 0};
    char *text;

    if (fd < 0)
        return check_copy("", 1);
    if (fstat(fd, &facts) != 0)
        abort();
    text = calloc(1, (size_t)facts.st_size + 1);
    if (text == NULL || read(fd, text, (size_t)facts.st_size) != facts.st_size)
        abort();
    (void)close(fd);
    return text;
}

static size_t
size_of(const char *path)
{
    struct stat facts;

    return stat(path, &facts) == 0 ? (size_t)facts.st_size : 0;
}

static size_t
count_lines(const char *text)
{
    size_t count = 0;

    for (; *text != '\0'; text++)
        count += *text == '\n';
    return count;
}

/* Whether every line is one letter all along and ends. */
static bool
has_whole_lines(const char *text)
{
    while (*text != '\0') {
        const size_t len = strcspn(text, "\n");
        if (text[len] != '\n' || strspn(text, (const char[]){text[0], '\0'}) != len)
            return false;
        text += len + 1;
    }
    return true;
}

static bool
file_is_whole(const char *path, size_t line_count)
{
    char *text = slurp(path);
    const bool is_whole = has_whole_lines(text) && count_lines(text) == line_count;

    free(text);
    return is_whole;
}

/* ------------------------------------------------------------------ gathering */

static void
test_lines_are_gathered_and_written_whole_when_the_next_does_not_fit(void)
{
    struct place place = place_new();

    place_open(&place);
    for (int i = 0; i < 40; i++)
        log_line(&place, 'a', 100);
    CHECK_EQ(size_of(place.path), 0);
    log_line(&place, 'b', 100);
    CHECK_EQ(size_of(place.path), 4000);
    CHECK(file_is_whole(place.path, 40));
    pc_log_flush(&place.all->config);
    CHECK_EQ(size_of(place.path), 4100);
    CHECK(file_is_whole(place.path, 41));
    CHECK_EQ(place.all->files[0].lost_lines, 0);
    place_free(&place);
}

static void
test_the_longest_line_comes_out_whole(void)
{
    struct place place = place_new();

    place_open(&place);
    log_line(&place, 'a', 4096);
    CHECK_EQ(size_of(place.path), 0);
    log_line(&place, 'b', PC_MAX_LOG_LINE_BYTES);
    CHECK_EQ(size_of(place.path), 4096 + PC_MAX_LOG_LINE_BYTES);
    log_line(&place, 'c', 2);
    pc_log_flush(&place.all->config);
    CHECK(file_is_whole(place.path, 3));
    place_free(&place);
}

static void
test_lines_are_appended_to_what_another_process_wrote(void)
{
    struct place place = place_new();
    int fd;

    place_open(&place);
    log_line(&place, 'a', 10);
    pc_log_flush(&place.all->config);
    fd = open(place.path, O_WRONLY | O_APPEND | O_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "bbb\n", 4) == 4);
    (void)close(fd);
    log_line(&place, 'c', 10);
    pc_log_flush(&place.all->config);
    CHECK_EQ(size_of(place.path), 24);
    CHECK(file_is_whole(place.path, 3));
    place_free(&place);
}

static void
test_a_condition_on_the_environment_is_kept(void)
{
    static const struct { const char *env; size_t want; } rows[] = {
        {"COLOUR", 1}, {"!COLOUR", 0}, {"OTHER", 0}, {"!OTHER", 1}, {"", 1}};

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct place place = place_new();
        place_open(&place);
        place.all->log.env = (struct pc_slice){.base = rows[i].env, .len = strlen(rows[i].env)};
        log_line(&place, 'a', 10);
        pc_log_flush(&place.all->config);
        CHECK_EQ_FOR(rows[i].env, size_of(place.path), rows[i].want * 10);
        place_free(&place);
    }
}

struct crowd {
    struct place *place;
    char letter;
};

static void *
write_many(void *to)
{
    const struct crowd *crowd = to;
    char ops[4 + 199];
    struct case_all *mine = case_new(); /* a request of its own for the shared files */

    mine->config.log_files = crowd->place->all->files;
    mine->log = (struct pc_log){.file = 0, .format = {.base = ops, .len = sizeof ops}};
    ops[0] = PC_FMT_LITERAL;
    ops[1] = 0;
    ops[2] = (char)199;
    ops[3] = 0;
    memset(ops + 4, crowd->letter, 199);
    for (int i = 0; i < 500; i++)
        pc_log_request(&mine->req);
    free(mine);
    return NULL;
}

static void
test_threads_do_not_mix_their_lines(void)
{
    struct place place = place_new();
    struct crowd crowds[4];
    pthread_t threads[4];

    place_open(&place);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        crowds[i] = (struct crowd){.place = &place, .letter = (char)('a' + i)};
        if (pthread_create(&threads[i], NULL, write_many, &crowds[i]) != 0)
            abort();
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        if (pthread_join(threads[i], NULL) != 0)
            abort();
    pc_log_flush(&place.all->config);
    CHECK(file_is_whole(place.path, 2000));
    place_free(&place);
}

/* ------------------------------------------------------------------ failing */

static void
test_a_full_disk_loses_counted_lines_and_says_so_once(void)
{
    struct place place = place_new();
    char *said;

    place_open(&place);
    (void)close(place.all->files[0].fd);
    place.all->files[0].fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    CHECK(place.all->files[0].fd >= 0);
    for (int i = 0; i < 500; i++)
        log_line(&place, 'a', 100);
    pc_log_flush(&place.all->config);
    CHECK_EQ(place.all->files[0].lost_lines, 500 - (PC_LOG_BUFFER_BYTES + PC_MAX_LOG_LINE_BYTES) / 100);
    said = slurp(place.error_path);
    CHECK_EQ(count_lines(said), 1);
    CHECK_FOR(said, strstr(said, "No space left on device") != NULL && strstr(said, "access.log") != NULL);
    free(said);
    place_free(&place);
}

static void
test_lines_wait_out_a_full_disk(void)
{
    struct place place = place_new();
    int full, good;

    place_open(&place);
    good = place.all->files[0].fd;
    full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    CHECK(full >= 0);
    place.all->files[0].fd = full;
    for (int i = 0; i < 100; i++)
        log_line(&place, 'a', 100);
    place.all->files[0].fd = good;
    log_line(&place, 'b', 100);
    pc_log_flush(&place.all->config);
    CHECK_EQ(place.all->files[0].lost_lines, 0);
    CHECK(file_is_whole(place.path, 101));
    (void)close(full);
    place_free(&place);
}

static void
limit_file_size(rlim_t bytes)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) != 0)
        abort();
    limit.rlim_cur = bytes;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        abort();
}

static void
test_the_rest_of_a_short_write_follows_later(void)
{
    struct place place = place_new();

    place_open(&place);
    limit_file_size(1050);
    for (int i = 0; i < 20; i++)
        log_line(&place, 'a', 100);
    pc_log_flush(&place.all->config);
    CHECK_EQ(size_of(place.path), 1050);
    limit_file_size(RLIM_INFINITY);
    log_line(&place, 'b', 100);
    pc_log_flush(&place.all->config);
    CHECK_EQ(size_of(place.path), 2100);
    CHECK(file_is_whole(place.path, 21));
    CHECK_EQ(place.all->files[0].lost_lines, 0);
    place_free(&place);
}

static void
test_a_file_that_could_not_be_opened_counts_every_line(void)
{
    struct place place = place_new();

    if (mkdir(place.path, 0700) != 0)
        abort();
    place_open(&place);
    CHECK_EQ(place.all->files[0].fd, -1);
    for (int i = 0; i < 300; i++)
        log_line(&place, 'a', 100);
    CHECK_EQ(place.all->files[0].lost_lines, 300);
    place_free(&place);
}

/* ------------------------------------------------------------------ opening */

static void
test_a_new_log_has_mode_0640_under_any_umask(void)
{
    struct place place = place_new();
    struct stat facts;

    (void)umask(077);
    place_open(&place);
    CHECK(stat(place.path, &facts) == 0 && (facts.st_mode & 07777) == 0640);
    CHECK((fcntl(place.all->files[0].fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK((fcntl(place.all->files[0].fd, F_GETFL) & O_APPEND) != 0);
    place_free(&place);
}

static void
make_symlink(const struct place *place)
{
    if (close(open(place->other_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) != 0 ||
        symlink(place->other_path, place->path) != 0)
        abort();
}

static void
make_dangling(const struct place *place)
{
    if (symlink(place->other_path, place->path) != 0)
        abort();
}

static void
make_hard_link(const struct place *place)
{
    if (close(open(place->other_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)) != 0 ||
        link(place->other_path, place->path) != 0)
        abort();
}

static void
make_fifo(const struct place *place)
{
    if (mkfifo(place->path, 0600) != 0)
        abort();
}

static void
make_fifo_with_reader(const struct place *place)
{
    make_fifo(place);
    if (open(place->path, O_RDONLY | O_NONBLOCK) < 0) /* open until the test ends its process */
        abort();
}

static void
make_foreign(const struct place *place)
{
    if (close(open(place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666)) != 0 || chown(place->path, 54321, 54321) != 0)
        abort();
}

static void
test_only_a_plain_file_of_its_own_is_written_to(void)
{
    static const struct {
        const char *what, *said;
        void (*make)(const struct place *place);
        bool needs_root;
    } rows[] = {
        {"symbolic link", "is a symbolic link", make_symlink, false},
        {"dangling link", "is a symbolic link", make_dangling, false},
        {"hard link", "hard links", make_hard_link, false},
        {"fifo", "No such device or address", make_fifo, false},
        {"fifo with a reader", "is not a regular file", make_fifo_with_reader, false},
        {"another's file", "belongs to another user", make_foreign, true},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct place place = place_new();
        int said_fd = open(place.error_path, O_CREAT | O_RDWR | O_CLOEXEC, 0600), stderr_fd = dup(2);
        char *said;
        if (!rows[i].needs_root || geteuid() == 0) {
            rows[i].make(&place);
            (void)dup2(said_fd, 2);
            place_open(&place);
            (void)dup2(stderr_fd, 2);
            said = slurp(place.error_path);
            CHECK_EQ_FOR(rows[i].what, place.all->files[0].fd, -1);
            CHECK_FOR(rows[i].what, strstr(said, rows[i].said) != NULL);
            CHECK_EQ_FOR(rows[i].what, size_of(place.other_path), 0);
            free(said);
        }
        (void)close(said_fd);
        (void)close(stderr_fd);
        place_free(&place);
    }
}

static void
test_directories_may_be_reached_over_links(void)
{
    struct place place = place_new();
    char real[96];

    (void)snprintf(real, sizeof real, "%s/real", place.dir);
    if (mkdir(real, 0700) != 0 || symlink(real, place.other_path) != 0)
        abort();
    (void)snprintf(place.path, sizeof place.path, "%s/access.log", place.other_path);
    place_open(&place);
    CHECK(place.all->files[0].fd >= 0);
    (void)unlink(place.path);
    (void)rmdir(real);
    place_free(&place);
}

static void
test_a_descriptor_of_the_dispatcher_is_taken_as_it_is(void)
{
    struct place place = place_new();
    int fds[2] = {open(place.path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600), -1};
    const int fd = fds[0];

    place.all->files[0].by_dispatcher = place.all->files[1].by_dispatcher = true;
    CHECK_EQ(pc_log_open(&place.all->config, fds, 2), 0);
    CHECK_EQ(place.all->files[0].fd, fd);
    CHECK_EQ(place.all->files[1].fd, -1);
    CHECK_EQ(pc_log_open(&place.all->config, fds, 1), 0); /* a list that is too short has none */
    CHECK_EQ(place.all->files[1].fd, -1);
    place_free(&place);
}

/* ------------------------------------------------------------------ reopening */

static void
test_reopen_leaves_old_lines_in_the_old_file(void)
{
    struct place place = place_new();

    place_open(&place);
    log_line(&place, 'a', 100);
    CHECK_EQ(rename(place.path, place.other_path), 0);
    log_line(&place, 'b', 100);
    CHECK_EQ(pc_log_reopen(&place.all->config, NULL, 0), 0);
    log_line(&place, 'c', 100);
    pc_log_flush(&place.all->config);
    CHECK(file_is_whole(place.other_path, 2));
    CHECK(file_is_whole(place.path, 1));
    place_free(&place);
}

static void
test_reopen_never_puts_half_a_line_into_the_new_file(void)
{
    struct place place = place_new();

    place_open(&place);
    limit_file_size(1050);
    for (int i = 0; i < 20; i++)
        log_line(&place, 'a', 100);
    pc_log_flush(&place.all->config); /* ten lines and a half are in the file */
    CHECK_EQ(rename(place.path, place.other_path), 0);
    CHECK_EQ(pc_log_reopen(&place.all->config, NULL, 0), 0);
    pc_log_flush(&place.all->config);
    limit_file_size(RLIM_INFINITY);
    CHECK_EQ(size_of(place.other_path), 1050);
    CHECK(file_is_whole(place.path, 9));
    CHECK_EQ(place.all->files[0].lost_lines, 1);
    place_free(&place);
}

static void
test_reopen_without_a_new_file_goes_on_with_the_old_one(void)
{
    struct place place = place_new();

    place_open(&place);
    CHECK_EQ(rename(place.path, place.other_path), 0);
    if (mkdir(place.path, 0700) != 0)
        abort();
    int stderr_fd = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void)dup2(null, 2);
    CHECK_EQ(pc_log_reopen(&place.all->config, NULL, 0), 0);
    (void)dup2(stderr_fd, 2);
    (void)close(stderr_fd);
    (void)close(null);
    log_line(&place, 'a', 100);
    pc_log_flush(&place.all->config);
    CHECK_EQ(size_of(place.other_path), 100);
    place_free(&place);
}

static void
test_reopen_leaks_no_descriptor(void)
{
    struct place place = place_new();
    int before, after;

    place_open(&place);
    before = dup(0);
    for (int i = 0; i < 50; i++)
        CHECK_EQ(pc_log_reopen(&place.all->config, NULL, 0), 0);
    after = dup(0);
    CHECK(after <= before + 2);
    (void)close(before);
    (void)close(after);
    place_free(&place);
}

int
main(void)
{
    (void)alarm(120); /* opening a fifo must not wait: if it does, end */
    if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
        return 2;
    RUN(test_lines_are_gathered_and_written_whole_when_the_next_does_not_fit);
    RUN(test_the_longest_line_comes_out_whole);
    RUN(test_lines_are_appended_to_what_another_process_wrote);
    RUN(test_a_condition_on_the_environment_is_kept);
    RUN(test_threads_do_not_mix_their_lines);
    RUN(test_a_full_disk_loses_counted_lines_and_says_so_once);
    RUN(test_lines_wait_out_a_full_disk);
    RUN(test_the_rest_of_a_short_write_follows_later);
    RUN(test_a_file_that_could_not_be_opened_counts_every_line);
    RUN(test_a_new_log_has_mode_0640_under_any_umask);
    RUN(test_only_a_plain_file_of_its_own_is_written_to);
    RUN(test_directories_may_be_reached_over_links);
    RUN(test_a_descriptor_of_the_dispatcher_is_taken_as_it_is);
    RUN(test_reopen_leaves_old_lines_in_the_old_file);
    RUN(test_reopen_never_puts_half_a_line_into_the_new_file);
    RUN(test_reopen_without_a_new_file_goes_on_with_the_old_one);
    RUN(test_reopen_leaks_no_descriptor);
    return check_end();
}
