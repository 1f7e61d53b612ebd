/* Makes a memory leak fail the test in which it happens. Part of sanitized builds only.
 *
 * Criterion runs each test in a process of its own and takes the verdict before that process
 * ends. LeakSanitizer looks for leaks when the process ends: too late, the test has passed. So
 * the linker (--wrap, see meson.build) lets Criterion's call of a test pass through here, where
 * the search follows the test's last line.
 */
#include <criterion/criterion.h>
#include <sanitizer/lsan_interface.h>

void __real_criterion_internal_test_main(void (*test)(void));
void __wrap_criterion_internal_test_main(void (*test)(void));

/* A parameterized test is in truth called with one pointer, which others ignore. */
typedef void test_function(void *parameter);
static test_function *current;

static void run_and_search(void *parameter)
{
    current(parameter);
    cr_assert(!__lsan_do_recoverable_leak_check(), "the test leaks memory, see above");
}

void __wrap_criterion_internal_test_main(void (*test)(void))
{
    current = (test_function *)test;
    __real_criterion_internal_test_main((void (*)(void))run_and_search);
}
