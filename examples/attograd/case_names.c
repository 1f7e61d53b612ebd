/* The names of the cases: matching, suggesting, listing. */
#include "case_names.h"
#include "cases.h"

#include <string.h>

char *ag_case_full_name(int i, char text[AG_CASE_NAME_SIZE])
{
    snprintf(text, AG_CASE_NAME_SIZE, "%s%s", ag_case_name(i), ag_case_suffix(i));
    return text;
}

bool ag_case_asked_for(int i, const char *asked)
{
    char name[AG_CASE_NAME_SIZE];
    size_t length = strlen(asked);
    if (asked[0] == '/')
        return !strcmp(asked, ag_case_suffix(i));
    ag_case_full_name(i, name);
    return !strncmp(asked, name, length) && (name[length] == '\0' || name[length] == '/');
}

/* ---- What was meant ---- */

static int smallest(int a, int b, int c)
{
    int least = a < b ? a : b;
    return least < c ? least : c;
}

/* row[k]: from the letters of a that were seen to the first k letters of b (Levenshtein). */
int ag_edit_distance(const char *a, const char *b)
{
    int row[AG_CASE_NAME_SIZE], length = 0;
    for (; length < AG_CASE_NAME_SIZE && (length == 0 || b[length - 1]); length++)
        row[length] = length;
    for (int seen = 1; *a; a++, seen++) {
        int diagonal = row[0];
        row[0] = seen;
        for (int k = 1; k < length; k++) {
            int above = row[k];
            row[k] = smallest(row[k - 1] + 1, above + 1, diagonal + (*a != b[k - 1]));
            diagonal = above;
        }
    }
    return row[length - 1];
}

enum { SUGGESTIONS = 3 };

typedef struct nearest {
    int count, distances[SUGGESTIONS];
    char names[SUGGESTIONS][AG_CASE_NAME_SIZE];
} nearest;

/* Keeps the nearest ones, in order; of those that are equally near the first. */
static void offer(nearest *n, const char *name, int distance)
{
    for (int k = 0; k < n->count; k++)
        if (!strcmp(n->names[k], name))
            return;
    int place = n->count;
    while (place > 0 && n->distances[place - 1] > distance)
        place--;
    if (place == SUGGESTIONS)
        return;
    n->count += n->count < SUGGESTIONS;
    for (int k = n->count - 1; k > place; k--) {
        n->distances[k] = n->distances[k - 1];
        memcpy(n->names[k], n->names[k - 1], AG_CASE_NAME_SIZE);
    }
    n->distances[place] = distance;
    snprintf(n->names[place], AG_CASE_NAME_SIZE, "%s", name);
}

char *ag_case_suggest(const char *asked, bool in_first_order, char *text, size_t size)
{
    nearest found = { 0 };
    size_t used = 0;
    for (int i = 0; i < (in_first_order ? ag_case_first_count() : ag_case_count()); i++) {
        char name[AG_CASE_NAME_SIZE];
        if (asked[0] == '/' && !in_first_order)
            snprintf(name, sizeof name, "%s", ag_case_suffix(i));
        else
            ag_case_full_name(i, name);
        if (name[0] && (!in_first_order || ag_case_has_gradient(i)))
            offer(&found, name, ag_edit_distance(asked, name));
    }
    text[0] = '\0';
    for (int k = 0; k < found.count && used < size; k++)
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 k == 0                 ? ""
                                 : k == found.count - 1 ? " or "
                                                        : ", ",
                                 found.names[k]);
    return text;
}

/* ---- The list ---- */

static void print_case(int i, bool json, FILE *file)
{
    char name[AG_CASE_NAME_SIZE];
    const char *kind = ag_case_kind(i), *suffix = ag_case_suffix(i);
    ag_case_full_name(i, name);
    if (json)
        fprintf(file, "{\"case\":\"%s\",\"kind\":\"%s\",\"suffix\":\"%s\"}\n", name, kind, suffix);
    else if (suffix[0])
        fprintf(file, "%-39s %-6s %s\n", name, kind, suffix);
    else
        fprintf(file, "%-39s %s\n", name, kind);
}

int ag_case_print_list(const char *asked, bool json, FILE *file)
{
    int count = 0;
    for (int i = 0; i < ag_case_count(); i++)
        if (!asked || ag_case_asked_for(i, asked)) {
            print_case(i, json, file);
            count++;
        }
    return count;
}
