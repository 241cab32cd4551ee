/* What Python may call: the whole seam. Read by native/build.py; perchild/native.py is the only user. */

struct pc_drop {
    uint32_t uid, gid;
    const uint32_t *groups;
    size_t group_count;
    const int *keep_fds;
    size_t keep_count;
    int parent_pid;
    uint64_t nofile;
    bool is_privileged;
    const void *seccomp_bpf;
    size_t seccomp_count;
    bool is_runner, may_gain;
    int parent_fd;
};
int pc_seccomp_build_child(void **ret_bpf, size_t *ret_count);
int pc_seccomp_build_runner(void **ret_bpf, size_t *ret_count);
int pc_restrict_to_read_search(void);

struct pc_child;
struct pc_child_options {
    int control_fd, inbox_fd, record_fd, types_fd, page_fd, route_fd;
    const int *listener_fds;
    uint32_t listener_count;
    const uint32_t *inbox_numbers;
    const int *inbox_fds;
    uint32_t inbox_count;
    const int *log_fds;
    uint32_t log_count;
    uint32_t max_open;
    int mutex_kind, mutex_fd, mutex_id;
    int job_fd;
    int ticket_fd;
    const int *key_fds;
    uint32_t key_count;
    bool takes_any_key;
    bool may_scale_leaders;
    size_t thread_stack_bytes;
    bool has_one_worker;
    uint32_t generation;
    char name[64];
};
int pc_spawn(const struct pc_drop *drop, const struct pc_child_options *options, struct pc_child **ret_child);
int pc_nursery_start(int *ret_fd, struct pc_child **ret_child);
int pc_nursery_spawn(int fd, const struct pc_drop *drop, const struct pc_child_options *options);

struct pc_runner_options {
    int box_fd, file_fd, parent_fd;
    char name[64];
};
int pc_runner_spawn(const struct pc_drop *drop, const struct pc_runner_options *options);
int pc_nursery_spawn_runner(int fd, const struct pc_drop *drop, const struct pc_runner_options *options);
bool pc_runner_here(int *ret_box, int *ret_file, bool *ret_is_apart);
int pc_runner_signals(void);

struct pc_exec_limit {
    bool is_set;
    uint64_t soft, hard;
};
struct pc_exec_wish {
    const char *path, *cwd, *roots, *args, *env;
    size_t roots_len, args_len, env_len;
    const char *search_path;
    uint32_t uid, gid;
    int fds[3];
    int listen_fd;
    int config_fd;
    struct pc_exec_limit limits[3];
    int nice;
    bool is_service;
    bool has_own_env;
};
int pc_exec_start(const struct pc_exec_wish *wish);
const char *pc_exec_reason(int refusal);

int pc_child_main(struct pc_child *child);
int pc_child_ask_board(struct pc_child *child, uint32_t timeout_ms);
void pc_child_finish(struct pc_child *child);
void pc_child_stop(struct pc_child *child);

struct pc_child_facts {
    uint32_t start_threads, min_spare, max_spare, max_threads, max_connections, idle_s;
    uint32_t threads, python_threads, busy, ask_count, open_count;
    uint32_t generation, thread_stack_bytes;
    char name[64];
};
void pc_child_facts(struct pc_child *child, struct pc_child_facts *ret_facts);

int pc_worker_start(struct pc_child *child, bool is_python);
int pc_worker_run(struct pc_child *child, uint32_t slot);
void pc_worker_end(struct pc_child *child, uint32_t slot);

struct pc_question {
    uint32_t kind, slot;
    int32_t slot_value;
    bool is_handed;
    uint32_t status;
    const char *method, *path, *query, *host, *handler, *client;
};
int pc_ask_question(struct pc_child *child, uint32_t slot, struct pc_question *ret_question);
void pc_ask_answer_name(struct pc_child *child, uint32_t slot, const char *name);
void pc_ask_answer(struct pc_child *child, uint32_t slot, uint32_t status, const char *content_type, const char *body,
                   size_t len);

int pc_acceptlock_init_shared(int fd);
int pc_acceptlock_new_semaphore(uint32_t uid, uint32_t gid);
int pc_acceptlock_remove_semaphore(int id);

int pc_tickets_rotate(int before, int fd);

struct pc_cert_facts {
    int problem, kind, bits, chain_count;
    int64_t not_before_s, not_after_s;
    char words[128];
};
int pc_cert_check(const char *pem, size_t len, int key_fd, struct pc_cert_facts *ret_facts);
int pc_cert_check_list(const char *pem, size_t len, char *ret_words);
int pc_cert_check_command(const char *name, const char *value, char *ret_words);
