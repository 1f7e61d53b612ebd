/* All entries one by one, or some directions and the entry that is to blame for one of them. */
#include "gradcheck.h"

#include <math.h>

void ag_check_entries(ag_check *check)
{
    ag_judgement judgement;
    int64_t from = check->only ? *check->only : 0;
    int64_t to = check->only ? *check->only + 1 : check->entries;
    for (int64_t k = from; k < to; k++) {
        ag_direction entry = { k, k + 1 };
        if (!ag_check_direction(check, &entry, &judgement))
            return;
        ag_check_note(check, &entry, &judgement);
        check->numeric[k] = judgement.numeric;
        check->bounds[k] = judgement.bound;
    }
}

static double badness(const ag_judgement *judgement)
{
    bool failed = judgement->verdict == AG_VERDICT_FAIL;
    return failed ? fabs(judgement->analytic - judgement->numeric) / judgement->bound : 0.0;
}

/* A direction that fails is cut in halves, down to one entry that fails by itself, or to the
 * shortest range that does. */
static bool find_guilty(ag_check *check, ag_direction direction, ag_judgement judgement)
{
    while (direction.to - direction.from > 1) {
        int64_t middle = direction.from + (direction.to - direction.from) / 2;
        ag_direction left = { direction.from, middle }, right = { middle, direction.to };
        ag_judgement of_left, of_right;
        if (!ag_check_direction(check, &left, &of_left) ||
            !ag_check_direction(check, &right, &of_right))
            return false;
        bool go_left = badness(&of_left) >= badness(&of_right);
        if ((go_left ? of_left : of_right).verdict != AG_VERDICT_FAIL)
            break;
        direction = go_left ? left : right;
        judgement = go_left ? of_left : of_right;
    }
    ag_check_blame(check, &direction, &judgement);
    return true;
}

void ag_check_directions(ag_check *check)
{
    ag_judgement judgement;
    for (int i = 0; i < check->options.directions && check->entries > 0; i++) {
        ag_direction all = { 0, check->entries };
        ag_check_draw_signs(check, (uint64_t)i);
        if (!ag_check_direction(check, &all, &judgement))
            return;
        bool first_failure = judgement.verdict == AG_VERDICT_FAIL && check->report->failures == 0;
        ag_check_note(check, &all, &judgement);
        if (first_failure && !find_guilty(check, all, judgement))
            return;
    }
}
