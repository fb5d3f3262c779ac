#include "base/yaml_scalar.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_one_of(const char *s, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(s, words[i]) == 0)
            return true;
    return false;
}
#define IS_ONE_OF(s, ...)                                                                          \
    is_one_of(s, (const char *const[]){__VA_ARGS__},                                               \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

#define DECIMALS "0123456789"

static const char *after_sign(const char *s)
{
    return s + (*s == '-' || *s == '+');
}

/* [-+]? [0-9]+ */
static bool is_decimal(const char *s)
{
    s = after_sign(s);
    return *s && s[strspn(s, DECIMALS)] == '\0';
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_float(const char *s)
{
    s = after_sign(s);

    const size_t whole = strspn(s, DECIMALS);
    const size_t fraction = s[whole] == '.' ? strspn(s + whole + 1, DECIMALS) : 0;

    if (whole + fraction == 0)
        return false;
    s += whole + (s[whole] == '.') + fraction;
    if (*s == 'e' || *s == 'E') {
        s = after_sign(s + 1);
        if (*s == '\0')
            return false;
        s += strspn(s, DECIMALS);
    }
    return *s == '\0';
}

static void set_integer(struct yaml_node *n, int64_t v)
{
    n->type = YAML_INT;
    n->integer = v;
    n->number = (double)v;
}

static void set_float(struct yaml_node *n, double v)
{
    n->type = YAML_FLOAT;
    n->number = v;
}

/* 0o17 and 0x1F have no sign in the core schema. */
static bool set_based(struct yaml_node *n, const char *digits, int base)
{
    const char *set = base == 8 ? "01234567" : "0123456789abcdefABCDEF";
    double wide = 0;

    if (*digits == '\0' || digits[strspn(digits, set)] != '\0')
        return false;
    errno = 0;

    const unsigned long long v = strtoull(digits, NULL, base);

    if (errno == 0 && v <= INT64_MAX) {
        set_integer(n, (int64_t)v);
        return true;
    }
    for (; *digits; digits++)
        wide = wide * base + (double)strtol((char[]){*digits, '\0'}, NULL, base);
    set_float(n, wide);
    return true;
}

static void set_decimal(struct yaml_node *n, const char *s)
{
    errno = 0;

    const long long v = strtoll(s, NULL, 10);

    if (errno == 0)
        set_integer(n, v);
    else
        set_float(n, strtod(s, NULL));
}

bool yaml_scalar_type(struct yaml_node *n)
{
    const char *s = n->text.p;

    n->type = YAML_STRING;
    if (IS_ONE_OF(s, "", "~", "null", "Null", "NULL")) {
        n->type = YAML_NULL;
    } else if (IS_ONE_OF(s, "true", "True", "TRUE", "false", "False", "FALSE")) {
        n->type = YAML_BOOL;
        n->boolean = s[0] == 't' || s[0] == 'T';
    } else if (IS_ONE_OF(after_sign(s), ".inf", ".Inf", ".INF")) {
        set_float(n, s[0] == '-' ? -INFINITY : INFINITY);
        return true;
    } else if (IS_ONE_OF(s, ".nan", ".NaN", ".NAN")) {
        set_float(n, NAN);
    } else if (s[0] == '0' && (s[1] == 'o' || s[1] == 'x')) {
        (void)set_based(n, s + 2, s[1] == 'o' ? 8 : 16);
    } else if (is_decimal(s)) {
        set_decimal(n, s);
    } else if (is_float(s)) {
        set_float(n, strtod(s, NULL));
    }
    return !(n->type == YAML_FLOAT && isinf(n->number));
}
