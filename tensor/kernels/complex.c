/* The elementwise loops for AG_C128: the template of the real types with T = double complex.
 * They serve gradient checks, which need no speed, so there is one table for all processors. */
#include <string.h>

#include "complex_functions.h"
#include "kernels.h"

#define INDEPENDENT
#define T double complex
#define T_IS_F32 0
#define T_IS_COMPLEX 1
#define NAME(name) name##_c128
#include "elementwise.inc"
