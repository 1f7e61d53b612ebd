/* A program of somebody else's, to see that an installed attograd can be used: it takes one
 * function from each floor and prints d/dx sum x^2 at x = 3, which is 6. */
#include <attograd.h>

int main(void)
{
    ag_context *context = ag_context_new(&(ag_context_options){ .dtype = AG_F64 });
    ag_params *params = ag_params_new(context);
    ag_var x = ag_params_add(params, NULL, "x", AG_SHAPE(2),
                             (ag_init){ .kind = AG_INIT_CONSTANT, .value = 3.0 });
    ag_backward(ag_sum(ag_square(x), AG_ALL, 0));
    double gradient = ag_tensor_at(ag_gradient(x), 0);
    printf("%g\n", gradient);
    return ag_context_finish(context) != 0 || gradient != 6.0;
}
