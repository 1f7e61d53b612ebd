/* Computations on AG_C128, as plain as their formulas.
 *
 * They are for the derivative by a complex step, f'(x) = Im f(x + i h) / h with h = 1e-30
 * (Squire, Trapp 1998): so they are the real computations continued to complex numbers. Nothing is
 * conjugated, x^2 is not |x|^2, and what the real computation decides by comparing, the real
 * parts decide. The gradient check calls them for small tensors, and what they are
 * compared with is fast, so they need not be: one thread, no blocks, no vectors. */
#include "compute_complex.h"
#include "kernels/complex_functions.h"

typedef double complex number;

static number *numbers_of(const ag_tensor *x)
{
    return x->data;
}

/* The k-th index, in row-major order, into the first rank axes of y. */
static void index_of(const ag_tensor *y, int rank, int64_t k, int64_t *index)
{
    for (int axis = rank - 1; axis >= 0; axis--) {
        index[axis] = k % y->dims[axis];
        k /= y->dims[axis];
    }
}

/* Where x, whose axes broadcast, has its element at the first rank of the indices. */
static number *place_at(const ag_tensor *x, int rank, const int64_t *index)
{
    number *at = numbers_of(x);
    for (int axis = 0; axis < rank; axis++)
        at += x->dims[axis] == 1 ? 0 : index[axis] * x->strides[axis];
    return at;
}

static int64_t product_of(const int64_t *dims, int n)
{
    int64_t product = 1;
    for (int i = 0; i < n; i++)
        product *= dims[i];
    return product;
}

/* ---- Matrix products ---- */

/* y_ij = sum_p a_ip b_pj + row_j + matrix_ij */
bool ag_complex_matmul(const ag_tensor *a, const ag_tensor *b, const ag_matmul_start *start,
                       ag_tensor *y)
{
    const int i = y->rank - 2, j = y->rank - 1;
    const ag_tensor *row = start ? start->row : NULL, *matrix = start ? start->matrix : NULL;
    for (int64_t k = 0; k < ag_tensor_count(y); k++) {
        int64_t index[AG_MAX_RANK];
        index_of(y, y->rank, k, index);
        const number *x = place_at(a, i, index) + index[i] * a->strides[i];
        const number *w = place_at(b, i, index) + index[j] * b->strides[j];
        number sum = 0;
        for (int64_t p = 0; p < a->dims[j]; p++)
            sum += x[p * a->strides[j]] * w[p * b->strides[i]];
        sum += row ? numbers_of(row)[index[j] * row->strides[0]] : 0;
        sum += matrix ? *place_at(matrix, y->rank, index) : 0;
        *place_at(y, y->rank, index) = sum;
    }
    return true;
}

/* ---- Along axes ---- */

/* Number i of those that are reduced to the one at a place of the result. */
static number reduced_number(const ag_tensor *x, unsigned axes, int64_t place, int64_t i)
{
    int64_t offset = 0;
    for (int axis = x->rank - 1; axis >= 0; axis--) {
        int64_t *left = axes >> axis & 1 ? &i : &place;
        offset += *left % x->dims[axis] * x->strides[axis];
        *left /= x->dims[axis];
    }
    return numbers_of(x)[offset];
}

/* Whether x is a new maximum; a NaN counts as larger than anything. */
static bool is_larger(number x, number best)
{
    return creal(x) > creal(best) || (isnan(creal(x)) && !isnan(creal(best)));
}

/* Equal winners share: the imaginary part is the mean of theirs. */
static number maximum_at(const ag_tensor *x, unsigned axes, int64_t place, int64_t count)
{
    number best = -INFINITY;
    double sum = 0, winners = 0;
    for (int64_t i = 0; i < count; i++) {
        number value = reduced_number(x, axes, place, i);
        if (is_larger(value, best)) {
            best = value;
            sum = winners = 0;
        }
        if (creal(value) == creal(best)) {
            sum += cimag(value);
            winners++;
        }
    }
    return winners > 0 ? complex_of(creal(best), sum / winners) : best;
}

static number sum_at(const ag_tensor *x, unsigned axes, int64_t place, int64_t count)
{
    number sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += reduced_number(x, axes, place, i);
    return sum;
}

bool ag_complex_reduce(ag_reduce kind, const ag_tensor *x, unsigned axes, ag_tensor *y)
{
    int64_t count = 1;
    for (int axis = 0; axis < x->rank; axis++)
        count *= axes >> axis & 1 ? x->dims[axis] : 1;
    for (int64_t place = 0; place < ag_tensor_count(y); place++)
        numbers_of(y)[place] = kind == AG_REDUCE_SUM ? sum_at(x, axes, place, count)
                                                     : maximum_at(x, axes, place, count);
    return true;
}

bool ag_complex_argmax(const ag_tensor *x, int axis, ag_tensor *y)
{
    int64_t inner = product_of(x->dims + axis + 1, x->rank - axis - 1), *results = y->data;
    for (int64_t k = 0; k < ag_tensor_count(y); k++) {
        int64_t index[AG_MAX_RANK];
        index_of(x, x->rank, k / inner * inner * x->dims[axis] + k % inner, index);
        const number *values = place_at(x, x->rank, index);
        results[k] = 0;
        for (int64_t i = 1; i < x->dims[axis]; i++)
            if (is_larger(values[i * x->strides[axis]], values[results[k] * x->strides[axis]]))
                results[k] = i;
    }
    return true;
}

/* y_i = y_(i - 1) + x_i */
bool ag_complex_cumsum(const ag_tensor *x, int axis, ag_tensor *y)
{
    int64_t step = product_of(x->dims + axis + 1, x->rank - axis - 1);
    number *sums = numbers_of(y);
    for (int64_t k = 0; k < ag_tensor_count(x); k++) {
        int64_t index[AG_MAX_RANK];
        index_of(x, x->rank, k, index);
        sums[k] = *place_at(x, x->rank, index) + (index[axis] > 0 ? sums[k - step] : 0);
    }
    return true;
}

/* ---- Softmax and its relatives, row by row ---- */

/* Where a row has its largest real part, and the sum over all others of exp(x_i - x_largest).
 * The whole complex number is subtracted, not its real part alone: the result is the same, and
 * where one x outweighs all others, the little that its imaginary part does is not lost. */
static int64_t row_sum(int64_t n, const number *x, number *others)
{
    int64_t largest = 0;
    for (int64_t i = 1; i < n; i++)
        if (is_larger(x[i], x[largest]))
            largest = i;
    *others = 0;
    for (int64_t i = 0; i < n; i++)
        if (i != largest)
            *others += exponential_c128(x[i] - x[largest]);
    return largest;
}

/* p_i = exp(x_i - x_largest) / (1 + others); p may be x. All 0 if there is nothing but -inf. */
static void softmax_row(int64_t n, const number *x, number *p)
{
    number others;
    int64_t at = row_sum(n, x, &others);
    number largest = n > 0 ? x[at] : 0;
    for (int64_t i = 0; i < n; i++)
        p[i] = creal(largest) == -INFINITY
                   ? 0
                   : (i == at ? 1 : exponential_c128(x[i] - largest)) / (1 + others);
}

/* y_i = x_i - x_largest - log(1 + others) */
static void log_softmax_row(int64_t n, const number *x, number *y)
{
    number others;
    int64_t at = row_sum(n, x, &others);
    number largest = n > 0 ? x[at] : 0, rest = log_of_one_plus_c128(others);
    for (int64_t i = 0; i < n; i++)
        y[i] = creal(x[i]) == -INFINITY ? -INFINITY : (i == at ? 0 : x[i] - largest) - rest;
}

static number logsumexp_of(int64_t n, const number *x)
{
    number others;
    int64_t at = row_sum(n, x, &others);
    if (n == 0 || creal(x[at]) == -INFINITY)
        return -INFINITY;
    return x[at] + log_of_one_plus_c128(others);
}

bool ag_complex_softmax(ag_softmax_kind kind, const ag_tensor *x, ag_tensor *y)
{
    int64_t n = x->rank > 0 ? x->dims[x->rank - 1] : 1;
    int64_t rows = x->rank > 0 ? product_of(x->dims, x->rank - 1) : 1;
    const number *row = numbers_of(x);
    for (int64_t i = 0; i < rows; i++, row += n) {
        if (kind == AG_ROWS_LOGSUMEXP)
            numbers_of(y)[i] = logsumexp_of(n, row);
        else if (kind == AG_ROWS_SOFTMAX)
            softmax_row(n, row, numbers_of(y) + i * n);
        else
            log_softmax_row(n, row, numbers_of(y) + i * n);
    }
    return true;
}

/* loss = log(1 + others) - (x_label - x_largest) */
bool ag_complex_cross_entropy(const ag_tensor *logits, const int64_t *labels, const int64_t *ignore,
                              ag_tensor *losses)
{
    const int64_t rows = logits->dims[0], n = logits->dims[1];
    const number *x = numbers_of(logits);
    for (int64_t i = 0; i < rows; i++, x += n) {
        number others;
        bool ignored = ignore && labels[i] == *ignore;
        int64_t at = ignored ? 0 : row_sum(n, x, &others);
        if (ignored)
            numbers_of(losses)[i] = 0;
        else if (labels[i] == at)
            numbers_of(losses)[i] = log_of_one_plus_c128(others);
        else
            numbers_of(losses)[i] = log_of_one_plus_c128(others) - (x[labels[i]] - x[at]);
    }
    return true;
}

/* ---- Norms ---- */

/* h = (x - mean) / sqrt(mean of (x - mean)^2 + epsilon), without a mean for RMS norm */
bool ag_complex_norm(ag_norm_rows kind, double epsilon, const ag_tensor *x, const ag_tensor *gain,
                     const ag_tensor *bias, ag_tensor *y)
{
    const int64_t n = x->dims[x->rank - 1], rows = product_of(x->dims, x->rank - 1);
    const double count = (double)n;
    for (int64_t row = 0; row < rows; row++) {
        const number *from = numbers_of(x) + row * n;
        number *to = numbers_of(y) + row * n, mean = 0, squares = 0;
        for (int64_t i = 0; i < n && kind == AG_ROWS_LAYER_NORM; i++)
            mean += from[i] / count;
        for (int64_t i = 0; i < n; i++)
            squares += (from[i] - mean) * (from[i] - mean);
        number spread = complex_sqrt(squares / count + epsilon);
        for (int64_t i = 0; i < n; i++)
            to[i] = (from[i] - mean) / spread * (gain ? numbers_of(gain)[i] : 1) +
                    (bias ? numbers_of(bias)[i] : 0);
    }
    return true;
}

/* ---- Attention ---- */

/* One query of one head: S_j = scale q . k_j over the first keys, P = softmax S, y = sum_j P_j v_j.
 * q, k and v point to that head's first row of keys and values; weights is room for S and P. */
typedef struct attention_query {
    const ag_attention_call *call;
    const number *q, *k, *v;
    int64_t keys, d, d_v;
    number *weights, *y;
} attention_query;

static void attend(const attention_query *query)
{
    const ag_tensor *q = query->call->q, *k = query->call->k, *v = query->call->v;
    const int row = q->rank - 2, column = q->rank - 1;
    for (int64_t j = 0; j < query->keys; j++) {
        number score = 0;
        for (int64_t c = 0; c < query->d; c++)
            score += query->q[c * q->strides[column]] *
                     query->k[j * k->strides[row] + c * k->strides[column]];
        query->weights[j] = score * query->call->scale;
    }
    softmax_row(query->keys, query->weights, query->weights);
    for (int64_t c = 0; c < query->d_v; c++) {
        query->y[c] = 0;
        for (int64_t j = 0; j < query->keys; j++)
            query->y[c] +=
                query->weights[j] * query->v[j * v->strides[row] + c * v->strides[column]];
    }
}

/* All queries of one head of one sequence. */
static void attend_head(const ag_attention_call *call, int64_t sequence, int64_t head,
                        number *weights, ag_tensor *y)
{
    const ag_tensor *q = call->q, *k = call->k, *v = call->v;
    const int row = q->rank - 2, column = q->rank - 1;
    const int64_t s = q->dims[row], t = k->dims[row],
                  length = call->lengths ? call->lengths[sequence] : t;
    int64_t index[AG_MAX_RANK];
    attention_query query = { .call = call, .weights = weights };
    index_of(q, row, sequence, index);
    query.d = q->dims[column] / call->heads;
    query.d_v = v->dims[column] / call->heads;
    query.k = place_at(k, row, index) + head * query.d * k->strides[column];
    query.v = place_at(v, row, index) + head * query.d_v * v->strides[column];
    for (int64_t i = 0; i < s; i++) {
        int64_t seen = call->causal ? i + t - s + 1 : t;
        query.keys = seen < 0 ? 0 : seen < length ? seen : length;
        query.q =
            place_at(q, row, index) + i * q->strides[row] + head * query.d * q->strides[column];
        query.y = numbers_of(y) + (sequence * s + i) * y->dims[column] + head * query.d_v;
        attend(&query);
    }
}

bool ag_complex_attention(ag_context *context, const ag_attention_call *call, ag_tensor *y)
{
    const ag_tensor *q = call->q;
    int64_t sequences = product_of(q->dims, q->rank - 2), t = call->k->dims[q->rank - 2];
    ag_tensor weights;
    if (!ag_tensor_allocate(context, AG_STEP, AG_C128, AG_SHAPE(t), &weights))
        return false;
    for (int64_t sequence = 0; sequence < sequences; sequence++)
        for (int64_t head = 0; head < call->heads; head++)
            attend_head(call, sequence, head, numbers_of(&weights), y);
    ag_memory_recycle(context, weights.data, ag_tensor_bytes(&weights));
    return true;
}

/* ---- Rows of a table ---- */

bool ag_complex_scatter_add_rows(const ag_tensor *rows, const int64_t *indices, int64_t count,
                                 ag_tensor *y)
{
    int64_t n = product_of(y->dims + 1, y->rank - 1);
    number *sums = numbers_of(y);
    for (int64_t i = 0; i < ag_tensor_count(y); i++)
        sums[i] = 0;
    for (int64_t k = 0; k < count * n; k++) {
        int64_t index[AG_MAX_RANK];
        index_of(rows, rows->rank, k, index);
        sums[indices[k / n] * n + k % n] += *place_at(rows, rows->rank, index);
    }
    return true;
}

bool ag_complex_all_finite(const ag_tensor *x)
{
    for (int64_t k = 0; k < ag_tensor_count(x); k++)
        if (!isfinite(ag_tensor_at(x, k)) || !isfinite(ag_tensor_imaginary_at(x, k)))
            return false;
    return true;
}
