/* Three tests that must fail: each plants a fault that the sanitizers have to find. A check that
 * has never been seen to fail proves nothing; .ci/run requires that these fail. */
#include <criterion/criterion.h>
#include <limits.h>
#include <stdlib.h>

static void *volatile memory;
static volatile int number;

Test(planted, leak)
{
    memory = malloc(24);
    memory = NULL;
}

Test(planted, heap_overflow)
{
    number = 24;
    char *bytes = malloc((size_t)number);
    bytes[number] = 1;
    memory = bytes;
    free(memory);
}

Test(planted, signed_overflow)
{
    number = INT_MAX;
    number = number + 1;
}
