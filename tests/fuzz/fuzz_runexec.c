/* Invariant: a first line is wanted whole or refused at its bound; interpreter and argument lie in it, the interpreter is an
 * absolute path without a blank; more bytes behind the line change nothing. A variable that passes has a plain name. */
/* sources: runexec.c */
/* max_len: 1200 */
/* flags: -D_GNU_SOURCE */
#include "child.h"
#include "runexec.h"

#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *raw = fuzz_copy(data, size);
    struct pc_slice interpreter = {NULL, 0}, argument = {NULL, 0};
    int status = pc_exec_parse_hashbang(raw, size, &interpreter, &argument);

    MUST(status <= PC_EXEC_LINE_BYTES && (status >= 0 || status == -PC_E_BAD));
    if (status > 0) {
        MUST(raw[status - 1] == '\n' && raw[0] == '#' && raw[1] == '!');
        MUST(interpreter.base >= raw + 2 && interpreter.base + interpreter.len <= raw + status - 1);
        MUST(argument.len == 0 || (argument.base > interpreter.base && argument.base + argument.len <= raw + status - 1));
        MUST(interpreter.len > 0 && interpreter.base[0] == '/');
        for (size_t i = 0; i < interpreter.len; i++)
            MUST(interpreter.base[i] != ' ' && interpreter.base[i] != '\t' && interpreter.base[i] != '\0' && interpreter.base[i] != '\n');
        MUST(pc_exec_parse_hashbang(raw, (size_t)status, &interpreter, &argument) == status);
    } else if (status == 0) {
        MUST(size < PC_EXEC_LINE_BYTES && memchr(raw, '\n', size) == NULL);
    }
    if (pc_exec_may_pass((struct pc_slice){raw, size}))
        MUST(size > 1 && memchr(raw, '=', size) != NULL && raw[0] != '=' && (raw[0] < '0' || raw[0] > '9'));
    free(raw);
    return 0;
}
