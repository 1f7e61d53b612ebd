/* Where there are several answers, the picture has only the rows that give them;
 * where there is one, it is read from the last row of all. */
#include "picture.h"

#include <stdlib.h>

bool ag_picture_new(ag_heatmap *map, const ag_task *task)
{
    const size_t tokens = (size_t)task->tokens;
    *map = (ag_heatmap){ .tokens = task->tokens,
                         .weights = malloc(tokens * tokens * sizeof *map->weights),
                         .rows = malloc(tokens * sizeof *map->rows),
                         .columns = malloc(tokens * sizeof *map->columns),
                         .first_row = task->answers > 1 ? task->tokens - task->answers : 0,
                         .last_row_answers = task->answers == 1 };
    return map->weights && map->rows && map->columns;
}

void ag_picture_free(ag_heatmap *map)
{
    free(map->weights);
    free(map->rows);
    free(map->columns);
    *map = (ag_heatmap){ 0 };
}

/* A row is called like its token; in a task that generates, "2>0" is the token 2
 * after which comes the answer 0. */
static void name_row(ag_heatmap *map, const ag_task *task, const ag_sequence *sequence, int64_t i)
{
    char name[AG_TOKEN_NAME];
    task->token_name(sequence, i, name, sizeof name);
    if (task->metric == AG_EXACT && i >= map->first_row)
        snprintf(map->rows[i], AG_TOKEN_NAME, "%.6s>%d", name,
                 (int)sequence->labels[i - map->first_row]);
    else
        snprintf(map->rows[i], AG_TOKEN_NAME, "%s", name);
}

/* The token j of the sequence becomes this column. */
static void fill_column(ag_heatmap *map, const ag_batch *batch, const ag_look *look, int64_t column,
                        int64_t j)
{
    const ag_sequence sequence = ag_batch_sequence(batch, 0);
    batch->task->token_name(&sequence, j, map->columns[column], AG_TOKEN_NAME);
    for (int64_t i = 0; i < map->tokens; i++)
        map->weights[i * map->tokens + column] =
            ag_tensor_at(ag_value(look->weights), i * map->tokens + j);
}

void ag_picture_fill(ag_heatmap *map, const ag_batch *batch, const ag_look *look)
{
    const ag_task *task = batch->task;
    const ag_sequence sequence = ag_batch_sequence(batch, 0);
    int64_t order[AG_MOST_TOKENS];
    for (int64_t j = 0; j < map->tokens; j++)
        order[j] = j;
    if (task->column_order)
        task->column_order(&sequence, order);
    for (int64_t t = 0; t < map->tokens; t++) {
        name_row(map, task, &sequence, t);
        fill_column(map, batch, look, t, order[t]);
    }
    if (look->block >= 0)
        snprintf(map->note, sizeof map->note, "block %lld, head %lld%s", (long long)look->block,
                 (long long)look->head,
                 task->column_order ? "; the input's columns are sorted" : "");
}
