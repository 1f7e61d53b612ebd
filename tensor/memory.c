/* Memory: two arenas and no reference counts.
 *
 * An arena is a list of chunks and a place in it: memory is taken from that
 * place on, and all of it is freed at once by going back to the start. What
 * stays (parameters, optimiser state) is in the arena keep, which is never
 * rewound; everything of one training step is in the arena step, which
 * ag_tape_reset rewinds. The chunks stay, so from the second step on the
 * allocator is not called any more.
 *
 * Within a step, a buffer that nobody will read again can be recycled: it goes
 * into the free list of its size class, and the next request of that class
 * takes it from there.
 *
 * Under AddressSanitizer everything not handed out is poisoned, and a gap is
 * left behind each buffer, so that overruns are found within an arena too.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define AG_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define AG_ASAN 1
#endif
#endif

#ifdef AG_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(memory, bytes) ASAN_POISON_MEMORY_REGION(memory, bytes)
#define UNPOISON(memory, bytes) ASAN_UNPOISON_MEMORY_REGION(memory, bytes)
#define GAP ((size_t)AG_ALIGNMENT)
#else
#define POISON(memory, bytes) ((void)(memory), (void)(bytes))
#define UNPOISON(memory, bytes) ((void)(memory), (void)(bytes))
#define GAP ((size_t)0)
#endif

#define FIRST_CHUNK ((size_t)256 << 10)

typedef struct ag_chunk {
    struct ag_chunk *next;
    size_t size; /* bytes of data */
    char *data;  /* aligned */
} ag_chunk;

/* ---- Size classes: multiples of 64 bytes up to 1 KiB, then eight for each doubling ---- */

typedef struct size_class {
    int index;    /* AG_SIZE_CLASSES or more: too large to be recycled */
    size_t bytes; /* what a buffer of this class holds */
} size_class;

static size_class class_of(size_t bytes)
{
    size_t units = bytes == 0 ? 1 : (bytes - 1) / AG_ALIGNMENT + 1;
    int shift = 0;
    while ((units - 1) >> shift >= 16)
        shift++;
    size_t top = ((units - 1) >> shift) + 1; /* 1 to 16; 9 to 16 if shift > 0 */
    return (size_class){ 8 * shift + (int)top, (top << shift) * AG_ALIGNMENT };
}

static void clear_free_buffers(ag_context *context)
{
    if (context->any_free)
        memset(context->free_buffers, 0, sizeof context->free_buffers);
    context->any_free = false;
}

static void *take_free_buffer(ag_context *context, size_class class, size_t bytes)
{
    if (class.index >= AG_SIZE_CLASSES || !context->free_buffers[class.index])
        return NULL;
    ag_free_buffer *buffer = context->free_buffers[class.index];
    UNPOISON(buffer, bytes > sizeof *buffer ? bytes : sizeof *buffer);
    context->free_buffers[class.index] = buffer->next;
    return buffer;
}

void ag_memory_recycle(ag_context *context, void *memory, size_t bytes)
{
    size_class class = class_of(bytes);
    if (!memory || class.index >= AG_SIZE_CLASSES)
        return;
    ag_free_buffer *buffer = memory;
    UNPOISON(buffer, sizeof *buffer);
    buffer->next = context->free_buffers[class.index];
    context->free_buffers[class.index] = buffer;
    context->any_free = true;
    POISON(memory, class.bytes);
    UNPOISON(buffer, sizeof *buffer);
    context->step.in_use -= class.bytes;
}

/* ---- Chunks ---- */

/* A new chunk of at least bytes, put behind arena->current, or in front of all. */
static ag_chunk *new_chunk(ag_context *context, ag_arena *arena, size_t bytes)
{
    size_t size = arena->current ? 2 * arena->current->size : FIRST_CHUNK;
    if (size < bytes)
        size = bytes;
    size_t total = sizeof(ag_chunk) + AG_ALIGNMENT + size;
    if (total < size) {
        ag_fail(context, AG_ERR_MEMORY, "memory: a size of %zu bytes overflows", bytes);
        return NULL;
    }
    ag_chunk *chunk = context->allocator.allocate(total, context->allocator.user);
    if (!chunk && size > bytes) { /* then without room for more */
        size = bytes;
        total = sizeof(ag_chunk) + AG_ALIGNMENT + size;
        chunk = context->allocator.allocate(total, context->allocator.user);
    }
    if (!chunk) {
        ag_fail(context, AG_ERR_MEMORY, "memory: cannot get %zu bytes", bytes);
        return NULL;
    }
    context->allocations++;
    context->reserved += total;
    uintptr_t start = (uintptr_t)(chunk + 1);
    chunk->data = (char *)chunk + sizeof(ag_chunk) + (AG_ALIGNMENT - start % AG_ALIGNMENT);
    chunk->size = size;
    POISON(chunk->data, size);
    ag_chunk **link = arena->current ? &arena->current->next : &arena->first;
    chunk->next = *link;
    *link = chunk;
    return chunk;
}

/* To the chunk behind the current one if it is large enough, else to a new one between them. */
AG_SELDOM static bool next_chunk(ag_context *context, ag_arena *arena, size_t bytes)
{
    ag_chunk *next = arena->current ? arena->current->next : arena->first;
    if (!next || next->size < bytes)
        next = new_chunk(context, arena, bytes);
    if (!next)
        return false;
    arena->current = next;
    arena->next = next->data;
    arena->left = next->size;
    return true;
}

/* The next bytes of the arena. */
static void *bump(ag_context *context, ag_arena *arena, size_t bytes)
{
    if (arena->left < bytes && !next_chunk(context, arena, bytes))
        return NULL;
    char *memory = arena->next;
    arena->next += bytes;
    arena->left -= bytes;
    return memory;
}

/* ---- What the rest of the library calls ---- */

AG_SELDOM static void *refuse(ag_context *context, size_t bytes)
{
    ag_fail(context, AG_ERR_MEMORY, "memory: a size of %zu bytes overflows", bytes);
    return NULL;
}

void *ag_memory_new(ag_context *context, ag_lifetime lifetime, size_t bytes)
{
    if (bytes > PTRDIFF_MAX - (size_t)4096)
        return refuse(context, bytes);
    size_class class = class_of(bytes);
    ag_arena *arena = lifetime == AG_KEEP ? &context->keep : &context->step;
    void *memory = lifetime == AG_STEP ? take_free_buffer(context, class, bytes) : NULL;
    if (!memory) {
        memory = bump(context, arena, class.bytes + GAP);
        if (!memory)
            return NULL;
        UNPOISON(memory, bytes);
    }
    arena->in_use += class.bytes;
    if (context->step.in_use > context->step_peak)
        context->step_peak = context->step.in_use;
    return memory;
}

void ag_memory_reset_step(ag_context *context)
{
    ag_chunk *first = context->step.first;
    for (ag_chunk *chunk = first; chunk; chunk = chunk->next)
        POISON(chunk->data, chunk->size);
    context->step.current = first;
    context->step.next = first ? first->data : NULL;
    context->step.left = first ? first->size : 0;
    context->step.in_use = 0;
    clear_free_buffers(context);
}

ag_memory_mark ag_memory_mark_step(const ag_context *context)
{
    return (ag_memory_mark){ context->step.current, context->step.left, context->step.in_use };
}

/* Buffers recycled since the mark may lie behind it, so the free lists are dropped. */
void ag_memory_rewind_step(ag_context *context, ag_memory_mark mark)
{
    char *next = mark.chunk ? mark.chunk->data + (mark.chunk->size - mark.left) : NULL;
    if (mark.left > 0)
        POISON(next, mark.left);
    for (ag_chunk *c = mark.chunk ? mark.chunk->next : context->step.first; c; c = c->next)
        POISON(c->data, c->size);
    context->step.current = mark.chunk;
    context->step.next = next;
    context->step.left = mark.left;
    context->step.in_use = mark.in_use;
    clear_free_buffers(context);
}

static void free_arena(ag_context *context, ag_arena *arena)
{
    for (ag_chunk *chunk = arena->first, *next; chunk; chunk = next) {
        next = chunk->next;
        UNPOISON(chunk->data, chunk->size);
        context->allocator.release(chunk, context->allocator.user);
    }
    *arena = (ag_arena){ 0 };
}

void ag_memory_free_all(ag_context *context)
{
    free_arena(context, &context->step);
    free_arena(context, &context->keep);
}
