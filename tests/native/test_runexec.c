/* test_runexec.c - claims about the pure parts of native/runexec.c; what it executes: tests/boundary/test_runner.py. */
/* sources: runexec.c */
/* flags: -D_GNU_SOURCE */
#include <sys/stat.h>

#include "child.h"
#include "runexec.h"

#include "check.h"

enum { UID = 1001, GID = 1002, OTHER = 1003 };

/* Interpreter and argument are found as the kernel finds them; an unfinished line asks for more. */
static void
test_the_first_line_is_parsed_as_the_kernel_does(void)
{
    static const struct { const char *raw, *interpreter, *argument; int status; } rows[] = {
        {"#!/bin/sh\n", "/bin/sh", "", 10}, {"#! /bin/sh -e \n", "/bin/sh", "-e", 15}, {"#!/a b c\nrest", "/a", "b c", 9},
        {"#!\t/a\t\tb\n", "/a", "b", 9}, {"", NULL, NULL, 0}, {"#", NULL, NULL, 0}, {"#!", NULL, NULL, 0}, {"#!/bin/sh", NULL, NULL, 0},
        {"x", NULL, NULL, -PC_E_BAD}, {"\177ELF", NULL, NULL, -PC_E_BAD}, {"# !/bin/sh\n", NULL, NULL, -PC_E_BAD},
        {"#!\n", NULL, NULL, -PC_E_BAD}, {"#!  \n", NULL, NULL, -PC_E_BAD}, {"#!sh\n", NULL, NULL, -PC_E_BAD},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pc_slice raw = CHECK_SLICE(rows[i].raw), interpreter = {NULL, 0}, argument = {NULL, 0};
        int status = pc_exec_parse_hashbang(raw.base, raw.len, &interpreter, &argument);
        CHECK_EQ_FOR(rows[i].raw, status, rows[i].status);
        if (status > 0) {
            CHECK_EQ_FOR(rows[i].raw, interpreter.len, strlen(rows[i].interpreter));
            CHECK_FOR(rows[i].raw, memcmp(interpreter.base, rows[i].interpreter, interpreter.len) == 0);
            CHECK_EQ_FOR(rows[i].raw, argument.len, strlen(rows[i].argument));
            CHECK_FOR(rows[i].raw, memcmp(argument.base, rows[i].argument, argument.len) == 0);
        }
        free((void *)raw.base);
    }
}

static void
test_a_first_line_without_end_is_refused_at_its_bound(void)
{
    char raw[PC_EXEC_LINE_BYTES];
    struct pc_slice interpreter, argument;
    memset(raw, 'x', sizeof raw);
    memcpy(raw, "#!/", 3);
    CHECK_EQ(pc_exec_parse_hashbang(raw, sizeof raw - 1, &interpreter, &argument), 0);
    CHECK_EQ(pc_exec_parse_hashbang(raw, sizeof raw, &interpreter, &argument), -PC_E_BAD);
    raw[sizeof raw - 1] = '\n';
    CHECK_EQ(pc_exec_parse_hashbang(raw, sizeof raw, &interpreter, &argument), (int)sizeof raw);
    raw[9] = '\0';
    CHECK_EQ(pc_exec_parse_hashbang(raw, sizeof raw, &interpreter, &argument), -PC_E_BAD);
}

static void
test_variables_that_steer_others_do_not_pass(void)
{
    static const struct { const char *variable; bool passes; } rows[] = {
        {"HTTP_HOST=a", true}, {"HTTP_PROXY=x", false}, {"HTTP_PROXYX=x", true}, {"REQUEST_METHOD=GET", true}, {"app_env=1", true},
        {"_=1", true}, {"A=", true}, {"LD_PRELOAD=x", false}, {"LD_=x", false}, {"LD=x", true}, {"PATH=x", false}, {"PATH_INFO=/x", true},
        {"PYTHONPATH=x", false}, {"PERL5OPT=x", false}, {"ENV=x", false}, {"ENVX=x", true}, {"IFS=x", false}, {"=x", false}, {"A", false},
        {"", false}, {"1A=x", false}, {"A1=x", true}, {"A-B=x", false}, {"A B=x", false}, {"\303\244=x", false}, {"BASH_FUNC_x%%=() { x; }", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct pc_slice raw = CHECK_SLICE(rows[i].variable);
        CHECK_EQ_FOR(rows[i].variable, pc_exec_may_pass(raw), rows[i].passes);
        free((void *)raw.base);
    }
}

static int
check_facts(uint32_t dir_uid, uint32_t dir_gid, mode_t dir_mode, uint32_t uid, uint32_t gid, mode_t mode)
{
    struct stat directory = {.st_uid = dir_uid, .st_gid = dir_gid, .st_mode = S_IFDIR | dir_mode};
    struct stat file = {.st_uid = uid, .st_gid = gid, .st_mode = mode};
    return pc_exec_check_facts(&directory, &file, UID, GID);
}

static void
test_each_condition_on_owner_and_mode_counts_by_itself(void)
{
    const mode_t x = S_IFREG | 0700;
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, x), PC_EXEC_OK);
    CHECK_EQ(check_facts(UID, GID, 0755, UID, GID, S_IFREG | 0755), PC_EXEC_OK);
    CHECK_EQ(check_facts(0, 0, 0755, 0, 0, S_IFREG | 0755), PC_EXEC_OK);
    CHECK_EQ(check_facts(OTHER, GID, 0700, UID, GID, x), PC_EXEC_DIRECTORY_OWNER);
    CHECK_EQ(check_facts(UID, OTHER, 0700, UID, GID, x), PC_EXEC_DIRECTORY_OWNER);
    CHECK_EQ(check_facts(UID, GID, 0720, UID, GID, x), PC_EXEC_DIRECTORY_WRITABLE);
    CHECK_EQ(check_facts(UID, GID, 0702, UID, GID, x), PC_EXEC_DIRECTORY_WRITABLE);
    CHECK_EQ(check_facts(0, 0, 01777, 0, 0, x), PC_EXEC_DIRECTORY_WRITABLE);
    CHECK_EQ(check_facts(UID, GID, 0700, OTHER, GID, x), PC_EXEC_OWNER);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, OTHER, x), PC_EXEC_OWNER);
    CHECK_EQ(check_facts(UID, GID, 0700, 0, 0, S_IFREG | 0755), PC_EXEC_OWNER);
    CHECK_EQ(check_facts(0, 0, 0755, UID, GID, x), PC_EXEC_OWNER);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, S_IFDIR | 0700), PC_EXEC_KIND);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, S_IFIFO | 0700), PC_EXEC_KIND);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, x | S_ISUID), PC_EXEC_SETID);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, x | S_ISGID), PC_EXEC_SETID);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, x | S_IWGRP), PC_EXEC_WRITABLE);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, x | S_IWOTH), PC_EXEC_WRITABLE);
    CHECK_EQ(check_facts(UID, GID, 0700, UID, GID, S_IFREG | 0655), PC_EXEC_MODE);
    CHECK_EQ(check_facts(0, 0, 0755, 0, 0, S_IFREG | 0750), PC_EXEC_MODE);
}

static void
test_every_reason_has_its_own_words(void)
{
    for (int i = 0; i < PC_EXEC_REFUSALS; i++)
        for (int j = 0; j < i; j++)
            CHECK(strcmp(pc_exec_reason(i), pc_exec_reason(j)) != 0);
    CHECK(strcmp(pc_exec_reason(-1), pc_exec_reason(PC_EXEC_REFUSALS)) == 0);
}

int
main(void)
{
    RUN(test_the_first_line_is_parsed_as_the_kernel_does);
    RUN(test_a_first_line_without_end_is_refused_at_its_bound);
    RUN(test_variables_that_steer_others_do_not_pass);
    RUN(test_each_condition_on_owner_and_mode_counts_by_itself);
    RUN(test_every_reason_has_its_own_words);
    return check_end();
}
