// The same from C++: shapes, options and variables as a C++ program writes them.
#include <attograd.h>

#include <cstdio>
#include <vector>

int main()
{
    ag_context_options options = {};
    options.dtype = AG_F64;
    ag_context *context = ag_context_new(&options);
    const std::vector<double> values = { 1, 2, 3, 4, 5, 6 };
    int64_t rows = 2;
    ag_var x = ag_require_gradient(ag_constant(context, AG_SHAPE(rows, 3), values.data()));
    ag_var nothing = AG_NONE;
    ag_backward(ag_sum(ag_square(x), AG_ALL, 0));
    double gradient = ag_tensor_at(ag_gradient(x), 5);
    std::printf("%g\n", gradient);
    return ag_context_finish(context) != 0 || gradient != 12.0 || !ag_is_none(nothing);
}
