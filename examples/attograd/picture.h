/* From what a model attends to in one sequence to a heat map. */
#ifndef AG_EXAMPLES_PICTURE_H
#define AG_EXAMPLES_PICTURE_H

#include "heatmap.h"
#include "model.h"

/* An empty map for a task's sequences. False if there is no memory; it must be
 * freed then as well. */
bool ag_picture_new(ag_heatmap *map, const ag_task *task);
void ag_picture_free(ag_heatmap *map);

/* look is at the first sequence of the batch. */
void ag_picture_fill(ag_heatmap *map, const ag_batch *batch, const ag_look *look);

#endif
