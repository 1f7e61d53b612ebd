/* All entries one by one, or some directions and the entry that is to blame for one of them. */
#include "gradcheck.h"

void ag_check_entries(ag_check *check)
{
    ag_judgement judgement, worst;
    int64_t from = check->only ? *check->only : 0;
    int64_t to = check->only ? *check->only + 1 : check->entries;
    for (int64_t k = from; k < to; k++) {
        ag_direction entry = { k, k + 1 };
        if (!ag_check_direction(check, &entry, &judgement))
            return;
        ag_check_note(check, &entry, &judgement);
        if (k == from || ag_check_is_worse(&judgement, &worst)) {
            ag_check_blame(check, &entry, &judgement);
            worst = judgement;
        }
        check->numeric[k] = judgement.numeric;
        check->bounds[k] = judgement.bound;
    }
}

/* A direction that fails is cut in halves, down to one entry that fails by itself, or to the
 * shortest range that does. False if the check has stopped. */
static bool find_guilty(ag_check *check, ag_direction *direction, ag_judgement *judgement)
{
    while (direction->to - direction->from > 1) {
        int64_t middle = direction->from + (direction->to - direction->from) / 2;
        ag_direction left = { direction->from, middle }, right = { middle, direction->to };
        ag_judgement of_left, of_right;
        if (!ag_check_direction(check, &left, &of_left) ||
            !ag_check_direction(check, &right, &of_right))
            return false;
        bool go_left = !ag_check_is_worse(&of_right, &of_left);
        if ((go_left ? of_left : of_right).verdict != AG_VERDICT_FAIL)
            break;
        *direction = go_left ? left : right;
        *judgement = go_left ? of_left : of_right;
    }
    return true;
}

/* A failure that was found in fewer entries than all stays in the report. */
void ag_check_directions(ag_check *check)
{
    ag_judgement judgement, worst;
    bool located = false;
    for (int i = 0; i < check->options.directions && check->entries > 0; i++) {
        ag_direction all = { 0, check->entries }, guilty = all;
        ag_check_draw_signs(check, (uint64_t)i);
        if (!ag_check_direction(check, &all, &judgement))
            return;
        ag_check_note(check, &all, &judgement);
        if (!located && (i == 0 || ag_check_is_worse(&judgement, &worst))) {
            ag_check_blame(check, &all, &judgement);
            worst = judgement;
        }
        if (located || judgement.verdict != AG_VERDICT_FAIL)
            continue;
        if (!find_guilty(check, &guilty, &judgement))
            return;
        located = guilty.to - guilty.from < check->entries;
        if (located)
            ag_check_blame(check, &guilty, &judgement);
    }
}
