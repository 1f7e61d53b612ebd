/* Each function reads one thing and returns the place behind it; NULL if it is not there. */
#include "json.h"

#include <stdbool.h>
#include <string.h>

static const char *space_end(const char *c)
{
    return c ? c + strspn(c, " \t\r\n") : NULL;
}

static const char *string_end(const char *c)
{
    if (*c++ != '"')
        return NULL;
    for (; *c != '"'; c++) {
        if ((unsigned char)*c < 0x20)
            return NULL;
        if (*c != '\\')
            continue;
        c++;
        if (!*c || !strchr("\"\\/bfnrtu", *c) ||
            (*c == 'u' && strspn(c + 1, "0123456789abcdefABCDEF") < 4))
            return NULL;
    }
    return c + 1;
}

static const char *digits_end(const char *c)
{
    size_t n = strspn(c, "0123456789");
    return n > 0 ? c + n : NULL;
}

static const char *number_end(const char *c)
{
    c += *c == '-';
    bool zero = *c == '0';
    const char *end = digits_end(c);
    if (!end || (zero && end > c + 1))
        return NULL;
    if (*end == '.')
        end = digits_end(end + 1);
    if (end && (*end == 'e' || *end == 'E'))
        end = digits_end(end + 1 + (end[1] == '-' || end[1] == '+'));
    return end;
}

/* An object, or else a list. */
static const char *members_end(const char *c, bool object)
{
    char close = object ? '}' : ']';
    c = space_end(c + 1);
    if (*c == close)
        return c + 1;
    for (;; c++) {
        if (object) {
            c = space_end(string_end(space_end(c)));
            if (!c || *c++ != ':')
                return NULL;
        }
        c = ag_test_json_end(c);
        if (!c || *c == close)
            return c ? c + 1 : NULL;
        if (*c != ',')
            return NULL;
    }
}

static const char *value_end(const char *c)
{
    static const char *const words[] = { "true", "false", "null" };
    for (int i = 0; i < 3; i++)
        if (!strncmp(c, words[i], strlen(words[i])))
            return c + strlen(words[i]);
    return *c == '{'   ? members_end(c, true)
           : *c == '[' ? members_end(c, false)
           : *c == '"' ? string_end(c)
                       : number_end(c);
}

const char *ag_test_json_end(const char *text)
{
    return space_end(value_end(space_end(text)));
}
