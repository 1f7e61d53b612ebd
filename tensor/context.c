/* The context: options, the first error, the beginning and the end. */
#include "internal.h"
#include "kernels/kernels.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 256

static void *default_allocate(size_t bytes, void *user)
{
    (void)user;
    return malloc(bytes);
}

static void default_release(void *memory, void *user)
{
    (void)user;
    free(memory);
}

/* Takes over the options one by one; a wrong one leaves the default in place
 * and the error recorded. */
static void apply_options(ag_context *context, const ag_context_options *options)
{
    context->dtype = AG_F32;
    context->threads = 1;
    context->seed = options->seed;
    context->on_error = options->on_error;
    context->on_error_user = options->on_error_user;
    if (!options->allocator.allocate != !options->allocator.release)
        ag_fail(context, AG_ERR_ARGUMENT, "context: an allocator needs both allocate and release");
    if (options->dtype == AG_F64)
        context->dtype = AG_F64;
    else if (options->dtype != AG_DEFAULT_DTYPE && options->dtype != AG_F32)
        ag_fail(context, AG_ERR_DTYPE, "context: the dtype must be f32 or f64");
    if (options->threads < 0 || options->threads > MAX_THREADS)
        ag_fail(context, AG_ERR_ARGUMENT, "context: %d threads asked for; 1 to %d are possible",
                options->threads, MAX_THREADS);
    else if (options->threads > 0)
        context->threads = options->threads;
}

ag_context *ag_context_new(const ag_context_options *options)
{
    const ag_context_options defaults = { 0 };
    if (!options)
        options = &defaults;
    ag_allocator allocator = { default_allocate, default_release, NULL };
    if (options->allocator.allocate && options->allocator.release)
        allocator = options->allocator;

    ag_context *context = allocator.allocate(sizeof *context, allocator.user);
    if (!context)
        return NULL;
    memset(context, 0, sizeof *context);
    context->allocator = allocator;
    context->allocations = 1;
    context->reserved = sizeof *context;
    apply_options(context, options);

    context->kernels = ag_kernels_choose(context);
    if (!context->kernels)
        context->kernels = &ag_kernels_generic;
    if (!ag_pool_start(context))
        context->threads = 1;
    return context;
}

void ag_context_free(ag_context *context)
{
    if (!context)
        return;
    ag_pool_stop(context);
    ag_memory_free_all(context);
    ag_allocator allocator = context->allocator;
    allocator.release(context, allocator.user);
}

int ag_context_finish(ag_context *context)
{
    if (!context) {
        fprintf(stderr, "error: there was no memory for a context\n");
        return 1;
    }
    int failed = context->error != AG_OK;
    if (failed)
        fprintf(stderr, "error: %s\n", context->message);
    ag_context_free(context);
    return failed;
}

ag_dtype ag_context_dtype(const ag_context *context)
{
    return context ? context->dtype : AG_F32;
}

uint64_t ag_context_seed(const ag_context *context)
{
    return context ? context->seed : 0;
}

int ag_context_threads(const ag_context *context)
{
    return context ? context->threads : 1;
}

const char *ag_context_isa(const ag_context *context)
{
    return context ? context->kernels->isa : "none";
}

ag_memory_usage ag_context_memory(const ag_context *context)
{
    if (!context)
        return (ag_memory_usage){ 0 };
    return (ag_memory_usage){
        .kept = context->keep.in_use,
        .step = context->step.in_use,
        .step_peak = context->step_peak,
        .reserved = context->reserved,
        .allocations = context->allocations,
    };
}

const char *ag_version(void)
{
    return AG_VERSION;
}

/* ---- Errors ---- */

ag_error ag_status(const ag_context *context)
{
    return context ? context->error : AG_ERR_ARGUMENT;
}

const char *ag_error_message(const ag_context *context)
{
    return context ? context->message : "there is no context";
}

void ag_error_clear(ag_context *context)
{
    if (!context || context->in_callback)
        return;
    context->error = AG_OK;
    context->message[0] = '\0';
}

const char *ag_error_name(ag_error error)
{
    switch (error) {
    case AG_OK:
        return "AG_OK";
    case AG_ERR_MEMORY:
        return "AG_ERR_MEMORY";
    case AG_ERR_SHAPE:
        return "AG_ERR_SHAPE";
    case AG_ERR_DTYPE:
        return "AG_ERR_DTYPE";
    case AG_ERR_INDEX:
        return "AG_ERR_INDEX";
    case AG_ERR_ARGUMENT:
        return "AG_ERR_ARGUMENT";
    case AG_ERR_STATE:
        return "AG_ERR_STATE";
    case AG_ERR_IO:
        return "AG_ERR_IO";
    case AG_ERR_FORMAT:
        return "AG_ERR_FORMAT";
    case AG_ERR_THREAD:
        return "AG_ERR_THREAD";
    }
    return "unknown error";
}

bool ag_fail(ag_context *context, ag_error error, const char *format, ...)
{
    if (!context || context->error != AG_OK || error == AG_OK)
        return false;
    context->error = error;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context->message, sizeof context->message, format, arguments);
    va_end(arguments);
    if (context->on_error) {
        context->in_callback = true;
        context->on_error(error, context->message, context->on_error_user);
        context->in_callback = false;
    }
    return false;
}

void ag_error_append(ag_context *context, const char *format, ...)
{
    size_t used = strlen(context->message);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context->message + used, sizeof context->message - used, format, arguments);
    va_end(arguments);
}
