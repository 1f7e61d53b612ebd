/* Pictures of a training: its loss as a curve, its attention as a heat map; and what all
 * pictures are made with. */
#ifndef AG_EXAMPLES_SVG_H
#define AG_EXAMPLES_SVG_H

#include "heatmap.h"

#define AG_CURVE_POINTS 1024

/* A curve of any length in a fixed number of points: when they are full every
 * second one is dropped, and from then on half as many are taken. */
typedef struct ag_curve {
    int64_t seen, stride;
    int count;
    double x[AG_CURVE_POINTS], y[AG_CURVE_POINTS];
} ag_curve;

void ag_curve_add(ag_curve *curve, double x, double y);

typedef struct ag_loss_picture {
    const char *title;
    const ag_curve *training, *fresh; /* of each step; of the evaluations */
    const char *evaluated;            /* on what those were: "fresh sequences" */
    double known_loss;                /* a line to compare with; none if 0 */
    const char *known;
    bool logarithmic;
} ag_loss_picture;

/* What every picture begins and ends with, and a line; style: further attributes. */
void ag_svg_begin(FILE *file, double width, double height, const char *title);
bool ag_svg_end(FILE *file);
void ag_svg_line(FILE *file, double x1, double y1, double x2, double y2, const char *style);

#define AG_SVG_INK "#1f2328"
#define AG_SVG_QUIET "#656d76"
#define AG_SVG_GRID "#e4e7eb"

/* False if the file could not be written. */
bool ag_svg_loss(FILE *file, const ag_loss_picture *picture);
bool ag_svg_heatmap(FILE *file, const ag_heatmap *map, const char *title);

#endif
