/* attograd: tensors, reverse-mode autograd, self-attention. The one header to include. */
#ifndef ATTOGRAD_H
#define ATTOGRAD_H

#include "tensor/tensor.h"
#include "autograd/autograd.h"
#include "layers/layers.h"

#endif
