/* The table of operations. What stands in AG_OPERATIONS (internal.h) is found
 * here by every tool that walks the operations: the gradient-check of all of
 * them fails for one that has no check case. */
#include "internal.h"

#include <string.h>

#define TABLE_ENTRY(name) &ag_op_##name,

static const ag_op *const operations[] = { AG_OPERATIONS(TABLE_ENTRY) };

int ag_op_count(void)
{
    return (int)(sizeof operations / sizeof operations[0]);
}

const ag_op *ag_op_at(int i)
{
    return i >= 0 && i < ag_op_count() ? operations[i] : NULL;
}

const ag_op *ag_op_find(const char *name)
{
    for (int i = 0; name && i < ag_op_count(); i++)
        if (!strcmp(operations[i]->name, name))
            return operations[i];
    return NULL;
}
