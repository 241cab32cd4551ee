/* test_date.c - claims about native/date.c. */
/* sources: date.c util.c */
#include "pc.h"

#include "check.h"

#define UNTOUCHED 12345

static int64_t
parse(const char *text)
{
    struct pc_slice s = CHECK_SLICE(text);
    int64_t unix_s = UNTOUCHED;
    int status = pc_date_parse(s, &unix_s);

    CHECK_FOR(text, status == 0 || (status == -PC_E_BAD && unix_s == UNTOUCHED));
    free((void *)s.base);
    return unix_s;
}

/* The three forms of RFC 9110's example are the same second. */
static void
test_date_parse_reads_three_forms(void)
{
    CHECK_EQ(parse("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
    CHECK_EQ(parse("Sunday, 06-Nov-94 08:49:37 GMT"), 784111777);
    CHECK_EQ(parse("Sun Nov  6 08:49:37 1994"), 784111777);
    CHECK_EQ(parse("Wed Nov 16 08:49:37 1994"), 784975777);
    CHECK_EQ(parse("Thu, 01 Jan 1970 00:00:00 GMT"), 0);
    CHECK_EQ(parse("Wed, 31 Dec 1969 23:59:59 GMT"), -1);
    CHECK_EQ(parse("Thursday, 01-Jan-70 00:00:00 GMT"), 0);
    CHECK_EQ(parse("Tuesday, 31-Dec-69 23:59:59 GMT"), 3155759999);
    CHECK_EQ(parse("Thu, 29 Feb 2024 00:00:00 GMT"), 1709164800);
    CHECK_EQ(parse("Sat, 31 Dec 2016 23:59:60 GMT"), 1483228800);
}

/* Anything else is no date. */
static void
test_date_parse_refuses_everything_else(void)
{
    static const char *const texts[] = {
        "",
        "0",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sux, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nox 1994 08:49:37 GMT",
        "Sun, 32 Jan 1994 08:49:37 GMT",
        "Sun, 00 Jan 1994 08:49:37 GMT",
        "Sun, 29 Feb 2023 00:00:00 GMT",
        "Sun, 29 Feb 1900 00:00:00 GMT",
        "Sun, 31 Apr 2023 00:00:00 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08-49-37 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sun Nov 06 08:49:37 94  ",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sunday; 06-Nov-94 08:49:37 GMT",
        "Sun, 06 Nov -994 08:49:37 GMT",
        "Sun Nov    08:49:37 1994",
        "784111777784111777784111777784",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        CHECK_EQ_FOR(texts[i], parse(texts[i]), UNTOUCHED);
}

/* What is written is read back, over leap years, centuries and both ends. */
static void
test_date_format_and_parse_agree(void)
{
    for (int64_t unix_s = -62167219200; unix_s <= 253402300799; unix_s += 86399 * 11) {
        char text[30] = {0};

        pc_date_format(unix_s, text);
        CHECK_EQ_FOR(text, parse(text), unix_s);
    }
}

/* The weekday and the shape are right; times outside years 0 to 9999 are clamped. */
static void
test_date_format_writes_imf_fixdate(void)
{
    static const struct {
        int64_t unix_s;
        const char *text;
    } rows[] = {
        {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"}, {0, "Thu, 01 Jan 1970 00:00:00 GMT"},
        {-1, "Wed, 31 Dec 1969 23:59:59 GMT"},        {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
        {INT64_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"}, {INT64_MIN, "Sat, 01 Jan 0000 00:00:00 GMT"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char out[30] = {0};

        pc_date_format(rows[i].unix_s, out);
        CHECK_FOR(rows[i].text, strcmp(out, rows[i].text) == 0);
    }
}

int
main(void)
{
    RUN(test_date_parse_reads_three_forms);
    RUN(test_date_parse_refuses_everything_else);
    RUN(test_date_format_and_parse_agree);
    RUN(test_date_format_writes_imf_fixdate);
    return check_end();
}
