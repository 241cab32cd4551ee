/* test_phpini.c - claims about native/phpini.c: which settings a request brings to php-fpm, and in which of its two variables.
 * Runs as:  the developer.   Sees: nothing but this file.
 * Trusts:   check.h.   Distrusts: the code under test.
 * Before:   -   After: - */
/* sources: phpini.c arena.c util.c */
#include "gateway.h"

#include "check.h"

static struct pc_arena arena;
static struct pc_php_value wide[4], narrow[4];
static struct pc_settings layers[2] = {{.php_values = wide}, {.php_values = narrow}};
static struct pc_pair names[] = {{PC_S("set"), PC_S("0")}, {PC_S("lock"), PC_S("1")}};
static struct pc_service pool = {.php_names = names, .php_name_count = 2};

static bool
says(const struct pc_service *of, bool is_admin, const char *wanted)
{
    struct pc_req req = {.arena = &arena, .layer_count = 2};
    req.layers[0] = &layers[0];
    req.layers[1] = &layers[1];
    struct pc_slice got = pc_phpini_lines(&req, of, is_admin);
    if (wanted == NULL ? got.base == NULL : pc_slice_eq(got, (struct pc_slice){wanted, strlen(wanted)}))
        return true;
    printf("got: %.*s\n", (int)got.len, got.base);
    return false;
}

static void
set(struct pc_settings *layer, struct pc_php_value *list, const char *name, const char *value, bool is_admin)
{
    list[layer->php_value_count++] = (struct pc_php_value){is_admin, {name, strlen(name)}, {value, strlen(value)}};
}

static void
clear(void)
{
    layers[0].php_value_count = layers[1].php_value_count = 0;
}

static void
nothing_is_said_where_nothing_is_configured(void)
{
    clear();
    CHECK(says(NULL, true, NULL) && says(NULL, false, NULL));
    CHECK(says(&(struct pc_service){0}, true, NULL) && says(&(struct pc_service){0}, false, NULL));
}

static void
the_most_specific_comes_last_and_admin_apart(void)
{
    clear();
    set(&layers[0], wide, "a", "1", false);
    set(&layers[0], wide, "b", "2", true);
    set(&layers[1], narrow, "a", "3", false);
    CHECK(says(NULL, false, "a=1\na=3") && says(NULL, true, "b=2"));
}

static void
a_value_means_itself(void)
{
    clear();
    set(&layers[0], wide, "path", "2;/tmp", false);
    set(&layers[0], wide, "x", "it's; a", false);
    set(&layers[0], wide, "error_reporting", "E_ALL & ~E_NOTICE", false);
    set(&layers[0], wide, "y", "", false);
    CHECK(says(NULL, false, "path='2;/tmp'\nx=\"it's; a\"\nerror_reporting=E_ALL & ~E_NOTICE\ny="));
}

static void
what_other_places_set_is_set_back(void)
{
    clear();
    CHECK(says(&pool, false, "set=\"${perchild.set}\"") && says(&pool, true, "lock=\"${perchild.lock}\""));
    set(&layers[1], narrow, "set", "5", false);
    CHECK(says(&pool, false, "set=5") && says(&pool, true, "lock=\"${perchild.lock}\""));
}

static void
what_one_place_locks_is_locked_everywhere(void)
{
    clear();
    set(&layers[0], wide, "lock", "user", false);
    CHECK(says(&pool, false, "set=\"${perchild.set}\"") && says(&pool, true, "lock=user"));
    set(&layers[0], wide, "lock", "admin", true); /* it wins over php_value, however specific that is */
    set(&layers[1], narrow, "lock", "more", false);
    CHECK(says(&pool, true, "lock=admin") && says(&pool, false, "lock=user\nlock=more\nset=\"${perchild.set}\""));
    clear();
    set(&layers[0], wide, "set", "admin", true);
    CHECK(says(&pool, true, "set=admin\nlock=\"${perchild.lock}\"") && says(&pool, false, NULL));
}

int
main(void)
{
    RUN(nothing_is_said_where_nothing_is_configured);
    RUN(the_most_specific_comes_last_and_admin_apart);
    RUN(a_value_means_itself);
    RUN(what_other_places_set_is_set_back);
    RUN(what_one_place_locks_is_locked_everywhere);
    pc_arena_free(&arena);
    return check_end();
}
