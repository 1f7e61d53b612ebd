"""The rows of kill_table that PyTorch itself can be asked about: torch.autograd.gradcheck with its
defaults, slow and fast, at ten random points. Prints how often it refuses."""

import warnings

import torch

torch.set_num_threads(1)
POINTS = 10
WIDTH = 8


class Fault(torch.autograd.Function):
    """y = x, with a backward rule that is wrong."""

    @staticmethod
    def forward(ctx, x, spoil):
        ctx.spoil = spoil
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return ctx.spoil(dy), None


class ErfForwardTanhBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.nn.functional.gelu(x)

    @staticmethod
    def backward(ctx, dy):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            y = torch.nn.functional.gelu(x, approximate="tanh")
            return torch.autograd.grad(y, x, dy)[0]


def normal(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def attention(seed, spoil, scale, dtype):
    x, w_k, w_v, c = (normal(1000 * seed + i, WIDTH, WIDTH).to(dtype) for i in range(4))

    def loss(w_q):
        q = x @ Fault.apply(w_q, spoil)
        p = torch.softmax(q @ (x @ w_k / WIDTH**0.5).T / WIDTH**0.5, -1)
        return scale * (c * (p @ (x @ w_v / WIDTH**0.5))).sum()

    return loss


def times(factor):
    return lambda dy: factor * dy


def one_entry(factor):
    def spoil(dy):
        dx = dy.clone()
        dx.view(-1)[3] *= factor
        return dx

    return spoil


def refused(function, x, fast):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return not torch.autograd.gradcheck(function, x, fast_mode=fast, raise_exception=False)


def of_attention(spoil, scale=1.0, enlarge=1.0, dtype=torch.float64):
    def judge(seed, fast):
        w_q = (enlarge * normal(1000 * seed + 9, WIDTH, WIDTH)).to(dtype).requires_grad_()
        return refused(attention(seed, spoil, scale, dtype), w_q, fast)

    return judge


def of_large(seed, fast):
    x, c = normal(seed, 64, 64).requires_grad_(), normal(seed + 100, 64, 64)
    return refused(lambda x: (c * torch.tanh(Fault.apply(x, one_entry(1.03)))).sum(), x, fast)


def of_gelu(seed, fast):
    x, c = normal(seed, WIDTH, WIDTH).requires_grad_(), normal(seed + 100, WIDTH, WIDTH)
    return refused(lambda x: (c * ErfForwardTanhBackward.apply(x)).sum(), x, fast)


ROWS = [
    ("a right gradient", of_attention(times(1.0))),
    ("a right gradient, all in f32", of_attention(times(1.0), dtype=torch.float32)),
    ("dW_q times 1 + 9e-4", of_attention(times(1 + 9e-4))),
    ("dW_q zero", of_attention(times(0.0))),
    ("dW_q zero, loss times 1e-5", of_attention(times(0.0), 1e-5)),
    ("dW_q zero, loss times 4e-6", of_attention(times(0.0), 4e-6)),
    ("dW_q zero, loss times 1e-6", of_attention(times(0.0), 1e-6)),
    ("dW_q negated, loss times 1e-5", of_attention(times(-1.0), 1e-5)),
    ("dW_q negated, loss times 1e-6", of_attention(times(-1.0), 1e-6)),
    ("dW_q zero, W_q times 100", of_attention(times(0.0), 1.0, 100.0)),
    ("1 entry of 64 off by 1 %", of_attention(one_entry(1.01))),
    ("1 entry of 64 doubled", of_attention(one_entry(2.0))),
    ("1 entry of 4,096 off by 3 %", of_large),
    ("gelu with the slope of gelu_tanh", of_gelu),
]

print(f"\nPyTorch {torch.__version__} itself, in how many of {POINTS} points it refuses:\n")
print(f"| {'':35} | gradcheck | fast mode |\n|{'-' * 37}|----------:|----------:|")
for name, judge in ROWS:
    slow, fast = (sum(judge(seed, mode) for seed in range(POINTS)) for mode in (False, True))
    print(f"| {name:35} | {slow:9} | {fast:9} |", flush=True)
