/* Invariant: what is read as a date is written as the same second, and read again; any number is
 * written as a date that is read back, clamped to years 0..9999; a refusal writes nothing. */
/* sources: date.c util.c */
/* seeds: date */
#include "pc.h"

#include "fuzz.h"

static void
check_round(int64_t unix_s, int64_t want)
{
    char *out = malloc(29);
    int64_t again = 0;

    pc_date_format(unix_s, out);
    MUST(pc_date_parse((struct pc_slice){.base = out, .len = 29}, &again) == 0 && again == want);
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pc_slice text = {.base = fuzz_copy(data, size), .len = size};
    int64_t unix_s = 42, number;
    int status = pc_date_parse(text, &unix_s);

    MUST(status == 0 || (status == -PC_E_BAD && unix_s == 42));
    if (status == 0)
        check_round(unix_s, unix_s <= 253402300799
                                ? unix_s
                                : 253402300799); /* a leap second at the very end */
    if (size >= 8) {
        memcpy(&number, data, 8);
        check_round(number, number < -62167219200   ? -62167219200
                            : number > 253402300799 ? 253402300799
                                                    : number);
        number %= 253402300800;
        check_round(number < 0 ? -number : number, number < 0 ? -number : number);
    }
    free((void *)text.base);
    return 0;
}
