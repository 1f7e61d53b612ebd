/* Measuring a V curve.
 *
 * The same function runs in f32 and in f64, at the same numbers: the f64 inputs are rounded to
 * f32 first. y is reduced to L = sum_i c_i y_i in f64, differences first, as the gradient
 * checker does it, so that all rounding is the function's own. The quotient of order 2 m is
 *
 *   D = sum_(i = 1 .. m) weight_i (L(x + i h) - L(x - i h)) / h
 */
#include "cases.h"
#include "vcurve.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

const char *const ag_v_dtypes[AG_V_DTYPES] = { "f32", "f64" };
static const ag_dtype dtypes[AG_V_DTYPES] = { AG_F32, AG_F64 };
enum { F32, F64 };

static const double weights[AG_V_ORDERS][AG_V_ORDERS] = {
    { 1. / 2 },
    { 2. / 3, -1. / 12 },
    { 3. / 4, -3. / 20, 1. / 60 },
    { 4. / 5, -1. / 5, 4. / 105, -1. / 280 },
};

typedef struct measurement {
    ag_case_setup setups[AG_V_DTYPES];
    double *y[AG_V_DTYPES]; /* at x */
    double *cotangent;      /* c */
    int64_t results, entries;
    double *gradient; /* of L by each entry, from backward in f64 */
} measurement;

double ag_vcurve_error(const ag_vcurve *curve, double quotient)
{
    double error = fabs(quotient - curve->gradient);
    return curve->relative ? error / fabs(curve->gradient) : error;
}

/* ---- The function ---- */

static ag_var call(const ag_case_setup *setup)
{
    return setup->f(setup->context, setup->inputs, setup->n, setup->user);
}

/* The input that an entry belongs to; *k becomes its place there. */
static ag_var input_of(const ag_case_setup *setup, int64_t *k)
{
    int i = 0;
    while (*k >= ag_tensor_count(ag_value(setup->inputs[i])))
        *k -= ag_tensor_count(ag_value(setup->inputs[i++]));
    return setup->inputs[i];
}

/* L(x + t e) - L(x), e the unit vector of an entry; NaN if the function failed. What this
 * leaves on the tape goes with the context. */
static double change(const measurement *m, int dtype, int64_t entry, double t)
{
    const ag_case_setup *setup = &m->setups[dtype];
    int64_t k = entry;
    ag_var input = input_of(setup, &k);
    double before = ag_tensor_at(ag_value(input), k), sum = 0.0;
    ag_tensor_put(ag_value_mutable(input), k, before + t);
    const ag_tensor *y = ag_value(call(setup));
    if (!y)
        return NAN;
    for (int64_t i = 0; i < m->results; i++)
        sum += m->cotangent[i] * (ag_tensor_at(y, i) - m->y[dtype][i]);
    ag_tensor_put(ag_value_mutable(input), k, before);
    return sum;
}

/* ---- Setting up ---- */

static double *numbers(measurement *m, int64_t count)
{
    double *x = calloc((size_t)count + 1, sizeof *x);
    if (!x)
        ag_fail(m->setups[F64].context, AG_ERR_MEMORY, "no memory for %" PRId64 " numbers", count);
    return x;
}

static double *copy_of(measurement *m, const ag_tensor *tensor)
{
    double *x = tensor ? numbers(m, ag_tensor_count(tensor)) : NULL;
    for (int64_t k = 0; x && k < ag_tensor_count(tensor); k++)
        x[k] = ag_tensor_at(tensor, k);
    return x;
}

/* The numbers of the f64 inputs, rounded to f32, for both. Counts them. */
static void share_inputs(measurement *m)
{
    for (int i = 0; i < m->setups[F64].n; i++) {
        ag_tensor *exact = ag_value_mutable(m->setups[F64].inputs[i]);
        ag_tensor *single = ag_value_mutable(m->setups[F32].inputs[i]);
        for (int64_t k = 0; exact && single && k < ag_tensor_count(exact); k++) {
            double x = (double)(float)ag_tensor_at(exact, k);
            ag_tensor_put(exact, k, x);
            ag_tensor_put(single, k, x);
            m->entries++;
        }
    }
}

static bool differentiate(measurement *m)
{
    const ag_case_setup *setup = &m->setups[F64];
    ag_var y = call(setup), c = ag_gradcheck_cotangent(0, y), gradients[AG_SETUP_INPUTS];
    m->gradient = numbers(m, m->entries);
    m->cotangent = copy_of(m, ag_value(c));
    if (!m->gradient || !m->cotangent || !ag_grad_from(y, c, setup->inputs, setup->n, gradients, 0))
        return false;
    int64_t entry = 0;
    for (int i = 0; i < setup->n; i++)
        for (int64_t k = 0; k < ag_tensor_count(ag_value(gradients[i])); k++)
            m->gradient[entry++] = ag_tensor_at(ag_value(gradients[i]), k);
    m->results = ag_tensor_count(ag_value(y));
    return true;
}

static bool set_up(measurement *m, int i)
{
    *m = (measurement){ 0 };
    for (int d = 0; d < AG_V_DTYPES; d++)
        ag_case_open(i, 1, dtypes[d], &m->setups[d]);
    share_inputs(m);
    for (int d = 0; d < AG_V_DTYPES; d++)
        m->y[d] = copy_of(m, ag_value(call(&m->setups[d])));
    return m->y[F32] && m->y[F64] && differentiate(m);
}

static void take_down(measurement *m)
{
    for (int d = 0; d < AG_V_DTYPES; d++) {
        ag_case_close(&m->setups[d]);
        free(m->y[d]);
    }
    free(m->cotangent);
    free(m->gradient);
}

/* ---- The curves ---- */

/* D for all four orders, from eight values. */
static void measure_step(const measurement *m, ag_vcurve *curve, int dtype, int step)
{
    double h = curve->steps[step], differences[AG_V_ORDERS];
    for (int i = 0; i < AG_V_ORDERS; i++)
        differences[i] = change(m, dtype, curve->entry, (i + 1) * h) -
                         change(m, dtype, curve->entry, -(i + 1) * h);
    for (int order = 0; order < AG_V_ORDERS; order++) {
        double sum = 0.0;
        for (int i = 0; i <= order; i++)
            sum += weights[order][i] * differences[i];
        curve->quotients[dtype][order][step] = sum / h;
    }
}

/* The entry whose second-order quotient is worst at a large step: there is a bend to see. */
static int64_t most_bent(const measurement *m)
{
    const double h = 0.125;
    int64_t worst = 0;
    double largest = -1.0;
    for (int64_t k = 0; k < m->entries; k++) {
        double quotient = (change(m, F64, k, h) - change(m, F64, k, -h)) / (2.0 * h);
        double error = fabs(quotient - m->gradient[k]);
        if (m->gradient[k] != 0.0 && error > largest) {
            worst = k;
            largest = error;
        }
    }
    return worst;
}

/* 1, 3/4, 1/2, 3/8, 1/4, ..: few digits each, so that x + h is exact as long as can be. */
static void choose_steps(ag_vcurve *curve)
{
    for (int i = 0; i < AG_V_STEPS; i++)
        curve->steps[i] = ldexp(i % 2 ? 0.75 : 1.0, -(i / 2));
}

static ag_gradcheck_report check_entry(const measurement *m, const ag_vcurve *curve,
                                       const ag_gradcheck_options *options)
{
    const ag_case_setup *setup = &m->setups[F64];
    ag_gradcheck_report report;
    ag_gradcheck_entry(setup->context, setup->f, setup->user, setup->inputs, setup->n, curve->entry,
                       options, &report);
    return report;
}

/* Im L(x + i h) / h, as the checker takes it: there is no difference in it, and so no rounding that
 * grows as h gets smaller. Not where an operation has no complex form; and where h is
 * so large that it changes the real part, the checker refuses. */
static void measure_complex_step(const measurement *m, ag_vcurve *curve)
{
    for (int i = 0; i < AG_V_STEPS; i++) {
        ag_gradcheck_options options = { .method = AG_GRADCHECK_COMPLEX,
                                         .complex_h = curve->steps[i] };
        ag_gradcheck_report report = check_entry(m, curve, &options);
        bool taken = report.entries == 1 && report.method == AG_GRADCHECK_COMPLEX;
        curve->complex_quotients[i] = taken ? report.numeric : NAN;
        curve->has_complex = curve->has_complex || taken;
        if (ag_status(m->setups[F64].context) == AG_ERR_DTYPE)
            ag_error_clear(m->setups[F64].context);
    }
}

static void ask_checker(const measurement *m, ag_vcurve *curve)
{
    ag_gradcheck_report report =
        check_entry(m, curve, &(ag_gradcheck_options){ .method = AG_GRADCHECK_DIFFERENCES });
    curve->verdict = report.verdict;
    curve->numeric = report.numeric;
    curve->bound = report.bound;
    curve->step = report.step;
    int used = report.name[0] ? snprintf(curve->place, 64, "%s [", report.name)
                              : snprintf(curve->place, 64, "input %d [", report.input);
    for (int i = 0; i < report.rank; i++)
        used += snprintf(curve->place + used, sizeof curve->place - (size_t)used,
                         i ? ",%" PRId64 : "%" PRId64, report.index[i]);
    snprintf(curve->place + used, sizeof curve->place - (size_t)used, "]");
}

/* ---- What dominates where ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n > 0 ? x[n / 2] : 0.0;
}

static double error_at(const ag_vcurve *curve, int step)
{
    return ag_vcurve_error(curve, curve->quotients[F64][AG_V_ORDERS - 1][step]);
}

/* error h, for steps so small that it is all rounding. */
static double typical_rounding(const ag_vcurve *curve)
{
    double products[AG_V_STEPS];
    int n = 0;
    for (int i = 0; i < AG_V_STEPS; i++)
        if (curve->steps[i] < 1e-6 && isfinite(error_at(curve, i)))
            products[n++] = error_at(curve, i) * curve->steps[i];
    return median(products, n);
}

/* Whether the error at a step has nothing to do with a kink. */
static bool is_smooth(const ag_vcurve *curve, int step)
{
    return isfinite(error_at(curve, step)) &&
           !(curve->kink > 0.0 && curve->steps[step] >= curve->kink);
}

/* Of five neighbours: a curve that changes its sign has an error of 0 on the way. */
static double smooth_error(const ag_vcurve *curve, int step)
{
    double errors[5];
    int n = 0;
    for (int i = step - 2; i <= step + 2; i++)
        if (i >= 0 && i < AG_V_STEPS && is_smooth(curve, i))
            errors[n++] = error_at(curve, i);
    return median(errors, n);
}

/* Whether the error comes from bends: it is far above what rounding explains, that of the
 * gradient included, and order 2 is off by something else. */
static bool is_truncation(const ag_vcurve *curve, int step)
{
    const double *low = curve->quotients[F64][0], *high = curve->quotients[F64][AG_V_ORDERS - 1];
    double error = smooth_error(curve, step), scale = curve->relative ? 1.0 : fabs(high[step]);
    double rounding = fmax(4.0 * curve->rounding / curve->steps[step], 1e-14 * scale);
    double unit = curve->relative ? fabs(curve->gradient) : 1.0;
    return error > rounding && fabs(high[step] - low[step]) > 1e-3 * unit * error;
}

/* From the largest step down. */
static void find_border(ag_vcurve *curve)
{
    int last = -1;
    curve->rounding = typical_rounding(curve);
    for (int i = 0; i < AG_V_STEPS; i++) {
        if (!is_smooth(curve, i))
            continue;
        if (!is_truncation(curve, i))
            break;
        last = i;
    }
    curve->border = last >= 0 && last + 1 < AG_V_STEPS
                        ? sqrt(curve->steps[last] * curve->steps[last + 1])
                        : 0.0;
}

int ag_vcurve_bands(const ag_vcurve *curve, ag_v_band bands[3])
{
    const double starts[] = { [AG_V_TRUNCATION] = curve->border, [AG_V_KINK] = curve->kink };
    int n = 1;
    bands[0] = (ag_v_band){ AG_V_ROUNDING, 0.0, INFINITY };
    for (int cause = AG_V_TRUNCATION; cause <= AG_V_KINK; cause++)
        if (starts[cause] > 0.0) {
            bands[n - 1].to = starts[cause];
            bands[n++] = (ag_v_band){ (ag_v_cause)cause, starts[cause], INFINITY };
        }
    return n;
}

/* ---- The whole ---- */

static bool measure(measurement *m, ag_vcurve *curve, int64_t entry)
{
    curve->entry = entry == AG_V_MOST_BENT ? most_bent(m) : entry;
    curve->gradient = m->gradient[curve->entry];
    curve->relative = curve->gradient != 0.0;
    choose_steps(curve);
    for (int d = 0; d < AG_V_DTYPES; d++)
        for (int i = 0; i < AG_V_STEPS; i++)
            measure_step(m, curve, d, i);
    measure_complex_step(m, curve);
    ask_checker(m, curve);
    int64_t k = curve->entry;
    ag_var input = input_of(&m->setups[F64], &k);
    curve->kink = ag_vcurve_kink(curve, &m->setups[F64], input, k);
    find_border(curve);
    return true;
}

bool ag_vcurve_measure(ag_vcurve *curve, int i, int64_t entry, int *status)
{
    measurement m;
    *curve = (ag_vcurve){ .name = ag_case_name(i) };
    bool good = set_up(&m, i);
    curve->entries = m.entries;
    *status = 1;
    if (good && entry != AG_V_MOST_BENT && (entry < 0 || entry >= m.entries)) {
        fprintf(stderr,
                "attograd vcurve: --entry %" PRId64 " is out of range; valid: 0 to %" PRId64
                ", the entries of the inputs of %s\n",
                entry, m.entries - 1, curve->name);
        *status = 2;
        good = false;
    } else if (good) {
        good = measure(&m, curve, entry);
    }
    for (int d = 0; d < AG_V_DTYPES; d++)
        if (!m.setups[d].context || ag_status(m.setups[d].context) != AG_OK) {
            fprintf(stderr, "attograd vcurve: %s\n",
                    m.setups[d].context ? ag_error_message(m.setups[d].context) : "no memory");
            good = false;
            break;
        }
    take_down(&m);
    return good;
}
