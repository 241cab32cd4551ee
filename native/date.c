/* date.c - HTTP dates (RFC 9110 5.6.7).
 * Runs as:  child (User, or a tenant's uid).   Sees: client bytes, file times.
 * Trusts:   nothing.   Distrusts: the text; a file's time may be any number.
 * Before:   cond.c, respond.c   After: -
 *
 * No libc: strftime and strptime know locales and take locks. The weekday of a date we read must be
 * a weekday's name but need not be that day's. The two-digit year of RFC 850 is 1970..2069, as
 * httpd reads it. */
#include <string.h>

#include "pc.h"

#define DAY_S 86400
#define MIN_UNIX_S (-62167219200) /* 0000-01-01 00:00:00 */
#define MAX_UNIX_S 253402300799   /* 9999-12-31 23:59:59 */

static const char day_names[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct civil {
    int64_t year;
    int month, day; /* 1..12, 1..31 */
    int hour, minute, second;
};

/* Days since 1970-01-01 in the Gregorian calendar; years start in March so that leap days come
 * last. */
static int64_t
days_of_civil(int64_t year, int month, int day)
{
    int64_t era, year_of_era, day_of_year;

    year -= month <= 2;
    era = (year >= 0 ? year : year - 399) / 400;
    year_of_era = year - era * 400;
    day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static struct civil
civil_of_days(int64_t days)
{
    struct civil civil = {0};
    int64_t era, day_of_era, year_of_era, day_of_year, march_month;

    days += 719468;
    era = (days >= 0 ? days : days - 146096) / 146097;
    day_of_era = days - era * 146097;
    year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    march_month = (5 * day_of_year + 2) / 153;
    civil.day = (int)(day_of_year - (153 * march_month + 2) / 5 + 1);
    civil.month = (int)(march_month < 10 ? march_month + 3 : march_month - 9);
    civil.year = year_of_era + era * 400 + (civil.month <= 2);
    return civil;
}

static void
write_digits(char *out, int64_t number, int count)
{
    while (count > 0) {
        out[--count] = (char)('0' + number % 10);
        number /= 10;
    }
}

void
pc_date_format(int64_t unix_s, char out[29])
{
    static const char shape[] = "Sun, 00 Jan 0000 00:00:00 GMT";
    struct civil civil;
    int64_t days, second;

    if (unix_s < MIN_UNIX_S)
        unix_s = MIN_UNIX_S;
    if (unix_s > MAX_UNIX_S)
        unix_s = MAX_UNIX_S;
    days = (unix_s >= 0 ? unix_s : unix_s - (DAY_S - 1)) / DAY_S;
    second = unix_s - days * DAY_S;
    civil = civil_of_days(days);
    memcpy(out, shape, 29);
    memcpy(out, day_names[((days % 7) + 7 + 4) % 7], 3); /* 1970-01-01 was a Thursday */
    write_digits(out + 5, civil.day, 2);
    memcpy(out + 8, month_names[civil.month - 1], 3);
    write_digits(out + 12, civil.year, 4);
    write_digits(out + 17, second / 3600, 2);
    write_digits(out + 20, second / 60 % 60, 2);
    write_digits(out + 23, second % 60, 2);
}

/* Read `s` as `shape` says, byte by byte: Y M D h m s are digits of these, N the month's name
 * (three times), d any letter of the weekday (checked apart), '_' a digit of the day or a blank,
 * anything else itself. The lengths are equal. */
static int
scan(struct pc_slice s, const char *shape, struct civil *civil)
{
    int64_t *year = &civil->year;
    size_t i;

    for (i = 0; i < s.len; i++) {
        char c = s.base[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : -1;
        int *into = NULL;

        switch (shape[i]) {
        case 'Y':
            if (digit < 0)
                return -PC_E_BAD;
            *year = *year * 10 + digit;
            continue;
        case 'N':
        case 'd':
            continue;
        case '_':
            if (c == ' ')
                continue;
            into = &civil->day;
            break;
        case 'D':
            into = &civil->day;
            break;
        case 'h':
            into = &civil->hour;
            break;
        case 'm':
            into = &civil->minute;
            break;
        case 's':
            into = &civil->second;
            break;
        default:
            if (c != shape[i])
                return -PC_E_BAD;
            continue;
        }
        if (digit < 0)
            return -PC_E_BAD;
        *into = *into * 10 + digit;
    }
    return 0;
}

static int
find_name(const char names[][4], int count, const char *name)
{
    int i;

    for (i = 0; i < count; i++) {
        if (memcmp(names[i], name, 3) == 0)
            return i;
    }
    return -1;
}

static int
check_civil(const struct civil *civil)
{
    static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = civil->year % 4 == 0 && (civil->year % 100 != 0 || civil->year % 400 == 0);
    int most = month_days[civil->month - 1] + (civil->month == 2 && is_leap ? 1 : 0);

    if (civil->day < 1 || civil->day > most)
        return -PC_E_BAD;
    return civil->hour > 23 || civil->minute > 59 || civil->second > 60 ? -PC_E_BAD
                                                                        : 0; /* 60: a leap second */
}

/* RFC 850 writes the weekday in full: "Sunday, 06-Nov-94 08:49:37 GMT". Returns the bytes before
 * the comma, 0 = none. */
static size_t
measure_long_day(struct pc_slice s)
{
    static const char *const names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                        "Thursday", "Friday", "Saturday"};
    size_t i;

    for (i = 0; i < 7; i++) {
        size_t len = strlen(names[i]);

        if (s.len > len && memcmp(s.base, names[i], len) == 0 && s.base[len] == ',')
            return len;
    }
    return 0;
}

int
pc_date_parse(struct pc_slice s, int64_t *ret_unix_s)
{
    struct civil civil = {0};
    size_t month_at = 8, long_day;
    const char *shape = "ddd, DD NNN YYYY hh:mm:ss GMT";
    int month;

    if (s.len < 24)
        return -PC_E_BAD;
    long_day = measure_long_day(s);
    if (long_day > 0) {
        s = (struct pc_slice){.base = s.base + long_day, .len = s.len - long_day};
        shape = ", DD-NNN-YY hh:mm:ss GMT";
        month_at = 5;
    } else if (find_name(day_names, 7, s.base) < 0) {
        return -PC_E_BAD;
    } else if (s.base[3] == ' ') {
        shape = "ddd NNN _D hh:mm:ss YYYY";
        month_at = 4;
    }
    if (s.len != strlen(shape) || scan(s, shape, &civil) < 0)
        return -PC_E_BAD;
    month = find_name(month_names, 12, s.base + month_at);
    if (month < 0)
        return -PC_E_BAD;
    civil.month = month + 1;
    if (long_day > 0)
        civil.year += civil.year < 70 ? 2000 : 1900;
    if (check_civil(&civil) < 0)
        return -PC_E_BAD;
    *ret_unix_s = days_of_civil(civil.year, civil.month, civil.day) * DAY_S + civil.hour * 3600 +
                  civil.minute * 60 + civil.second;
    return 0;
}
