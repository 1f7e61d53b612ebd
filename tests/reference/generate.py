"""Writes the numbers that the C tests compare attograd with.

Everything is computed in f64 by JAX from the formulas in layers.h and
autograd.h, in plain array operations; the optimisers are those of Optax.
Gradients come from JAX's automatic differentiation, and each is checked here
against a finite difference before it is written. One tensor is one file.

    python3 tests/reference/generate.py          writes tests/data/reference/
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "data" / "reference"
INF = np.inf


def save(name, array):
    np.save(FOLDER / f"{name}.npy", np.asarray(array, order="C"))


def check_directional(f, args, cotangent, gradients, rng, h):
    """sum_i <gradient_i, direction_i> against a difference of fourth order.
    Entries of -inf stay where they are."""
    directions = [np.where(np.isfinite(a), rng.normal(size=np.shape(a)), 0) for a in args]
    gradients = [np.where(np.isfinite(a), g, 0) for a, g in zip(args, gradients)]
    weight = np.asarray(cotangent)

    def along(t):
        y = np.asarray(f(*[a + t * d for a, d in zip(args, directions)]))
        return np.sum(np.where(np.isfinite(y), y, 0) * weight)

    numeric = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    analytic = sum(np.sum(g * d) for g, d in zip(gradients, directions))
    scale = sum(np.sum(np.abs(g * d)) for g, d in zip(gradients, directions))
    assert abs(analytic - numeric) <= 1e-7 * (scale + 1), (analytic, numeric)


def differentiate(f, args, cotangent, rng, smooth=True, h=1e-3):
    """The value of f and the gradients of sum(cotangent * f) by each argument."""
    value, vjp = jax.vjp(f, *[jnp.asarray(a) for a in args])
    gradients = [np.asarray(g) for g in vjp(jnp.asarray(cotangent))]
    assert all(np.all(np.isfinite(g)) for g in gradients)
    if smooth:
        check_directional(f, args, cotangent, gradients, rng, h)
    return np.asarray(value), gradients


# ---- Softmax and its relatives ----------------------------------------------


def softmax(x, axis, allowed=None):
    """exp(x - max) / sum, 0 where not allowed; a line without any entry is 0."""
    allowed = jnp.isfinite(x) if allowed is None else allowed
    x = jnp.where(allowed, x, 0)
    top = jnp.max(jnp.where(allowed, x, -INF), axis=axis, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    e = jnp.where(allowed, jnp.exp(jnp.where(allowed, x - top, 0)), 0)
    total = jnp.sum(e, axis=axis, keepdims=True)
    return e / jnp.where(total > 0, total, 1)


def logsumexp(x, axis):
    """log sum exp; -inf (and gradient 0) for a line of -infs."""
    allowed = jnp.isfinite(x)
    finite = jnp.where(allowed, x, 0)
    top = jnp.max(x, axis=axis, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    total = jnp.sum(jnp.where(allowed, jnp.exp(finite - top), 0), axis=axis)
    some = total > 0
    return jnp.where(some, jnp.log(jnp.where(some, total, 1)) + jnp.squeeze(top, axis), -INF)


def write_softmax(rng):
    lines = rng.normal(size=(3, 4, 5)) * 2
    some = lines.copy()
    some[rng.random(some.shape) < 0.2] = -INF
    some[0, 0, :], some[:, 1, 1], some[2, :, 3] = lines[0, 0, :], lines[:, 1, 1], lines[2, :, 3]
    some[1, 2, :] = lines[1, 2, :]
    full = some.copy()
    full[0, 0, :], full[:, 1, 1], full[2, :, 3] = -INF, -INF, -INF
    huge = rng.normal(size=(3, 4, 5)) + 1e4 * rng.integers(-1, 2, size=(3, 4, 5))
    inputs = {"some": some, "full": full, "huge": huge}
    c = rng.normal(size=(3, 4, 5))
    save("softmax_cotangent", c)
    for name, x in inputs.items():
        save(f"softmax_{name}_x", x)
        write_axes(f"softmax_{name}", softmax, x, c, rng)
        write_reduction(f"logsumexp_{name}", logsumexp, x, c, rng)
        if name != "full":
            # an output of -inf moves with the others formally, no difference can show it
            write_axes(f"log_softmax_{name}", jax.nn.log_softmax, x, c, rng, name == "huge")


def write_axes(name, f, x, c, rng, smooth=True):
    """Results are stacked: axis 0 is the axis that f runs along."""
    results = [differentiate(lambda x: f(x, axis), [x], c, rng, smooth) for axis in range(3)]
    save(f"{name}_y", np.stack([y for y, _ in results]))
    save(f"{name}_dx", np.stack([dx for _, (dx,) in results]))


def write_reduction(name, f, x, c, rng, smooth=True):
    """The cotangent is the first slice of c along the axis, which is gone from y."""
    gradients = []
    for axis in range(3):
        y, (dx,) = differentiate(lambda x: f(x, axis), [x], np.take(c, 0, axis), rng, smooth)
        save(f"{name}_y{axis}", y)
        gradients.append(dx)
    save(f"{name}_dx", np.stack(gradients))


# ---- One operand, element by element ----------------------------------------

UNARY = {
    "gelu": lambda x: x * (1 + jax.scipy.special.erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * jax.nn.sigmoid(x),
    "sigmoid": jax.nn.sigmoid,
    "softplus": lambda x: jnp.logaddexp(x, 0),
    "tanh": jnp.tanh,
    "erf": jax.scipy.special.erf,
    "sin": jnp.sin,
    "cos": jnp.cos,
}
UNARY_POSITIVE = {
    "exp": jnp.exp,
    "log": jnp.log,
    "sqrt": jnp.sqrt,
    "rsqrt": lambda x: 1 / jnp.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "pow": lambda x: x**2.7,
}


def write_unary(rng):
    """NAME.npy holds three rows: f(x), f'(x) and f''(x)."""
    x = np.concatenate([np.linspace(-9, 9, 25), [-40, -1e-9, 1e-9, 40], rng.normal(size=7)])
    positive = np.concatenate([np.linspace(0.01, 5, 15), [1e-3, 40], rng.random(size=4)])
    save("unary_x", x)
    save("unary_x_positive", positive)
    save("unary_cotangents", rng.normal(size=(2, len(x))))
    for table, points in ((UNARY, x), (UNARY_POSITIVE, positive)):
        for name, f in table.items():
            rows = [f, jax.grad(f), jax.grad(jax.grad(f))]
            save(f"unary_{name}", np.stack([np.asarray(jax.vmap(r)(points)) for r in rows]))


# ---- Losses -----------------------------------------------------------------


def cross_entropy(logits, labels, ignore, reduction):
    picked = jnp.take_along_axis(
        jax.nn.log_softmax(logits, -1), jnp.where(ignore, 0, labels)[..., None], -1)[..., 0]
    total = -jnp.sum(jnp.where(ignore, 0, picked))
    return total / jnp.maximum(jnp.sum(~ignore), 1) if reduction == "mean" else total


def write_cross_entropy(rng):
    labels = rng.integers(0, 7, size=(2, 3))
    partly = labels.copy()
    partly[0, 1] = partly[1, 2] = -100
    logits = {"normal": rng.normal(size=(2, 3, 7)) * 2,
              "huge": rng.normal(size=(2, 3, 7)) + 1e4 * rng.integers(-1, 2, size=(2, 3, 7))}
    save("cross_entropy_labels", labels)
    save("cross_entropy_labels_ignore", partly)
    for name, x in logits.items():
        save(f"cross_entropy_{name}_x", x)
        for case, l in (("", labels), ("_ignore", partly)):
            for reduction in ("mean", "sum"):
                y, (dx,) = differentiate(
                    lambda x: cross_entropy(x, l, l == -100, reduction), [x], 0.7, rng)
                save(f"cross_entropy_{name}_{reduction}{case}_y", y)
                save(f"cross_entropy_{name}_{reduction}{case}_dx", dx)


def write_binary_cross_entropy(rng):
    x = rng.normal(size=(4, 5)) * 3
    x[1, 2], x[3, 0] = 800, -800
    t = rng.random(size=(4, 5))
    t[0, 0], t[0, 1], t[1, 2], t[3, 0] = 0, 1, 1, 1
    save("binary_cross_entropy_x", x)
    save("binary_cross_entropy_t", t)
    for reduction, reduce in (("mean", jnp.mean), ("sum", jnp.sum)):
        f = lambda x, t: reduce(jnp.logaddexp(x, 0) - t * x)
        y, (dx, dt) = differentiate(f, [x, t], 0.7, rng)
        for part, array in (("y", y), ("dx", dx), ("dt", dt)):
            save(f"binary_cross_entropy_{reduction}_{part}", array)


# ---- cumsum, ties, matmul ---------------------------------------------------


def write_cumsum(rng):
    x, c = rng.normal(size=(2, 2, 4, 5))
    save("cumsum_x", x)
    save("cumsum_cotangent", c)
    write_axes("cumsum", jnp.cumsum, x, c, rng)


def write_ties(rng):
    """Equal winners share evenly: numbers from a few integers make many ties."""
    a = rng.integers(-1, 2, size=(2, 4, 5)).astype(float)
    b = rng.integers(-1, 2, size=(4, 1)).astype(float)
    c = rng.normal(size=(2, 4, 5))
    save("ties_a", a)
    save("ties_b", b)
    save("ties_cotangent", c)
    for name, f in (("maximum", jnp.maximum), ("minimum", jnp.minimum)):
        y, (da, db) = differentiate(f, [a, b], c, rng, smooth=False)
        for part, array in (("y", y), ("da", da), ("db", db)):
            save(f"ties_{name}_{part}", array)
    write_reduction("ties_max", jnp.max, a, c, rng, smooth=False)


def write_matmul(rng):
    a, b = rng.normal(size=(3, 1, 2, 4)), rng.normal(size=(2, 4, 5))
    c = rng.normal(size=(3, 2, 2, 5))
    y, (da, db) = differentiate(jnp.matmul, [a, b], c, rng)
    for part, array in (("a", a), ("b", b), ("cotangent", c), ("y", y), ("da", da), ("db", db)):
        save(f"matmul_{part}", array)


def write_affine(rng):
    """Gradients with bias and residual; affine_plain_y is x w alone."""
    x, w, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5)), rng.normal(size=5)
    r, c = rng.normal(size=(2, 2, 3, 5))
    y, gradients = differentiate(lambda x, w, b, r: x @ w + b + r, [x, w, b, r], c, rng)
    names = ("x", "w", "b", "residual", "cotangent", "y", "dx", "dw", "db", "dresidual")
    for name, array in zip(names, (x, w, b, r, c, y, *gradients)):
        save(f"affine_{name}", array)
    save("affine_plain_y", x @ w)


# ---- Self-attention ---------------------------------------------------------

D_IN, D_K, D_V, D_OUT, T = 6, 4, 5, 3, 5
NORMALIZERS = ("softmax", "sigmoid", "relu", "linear")

# Which scores count: (causal, lengths of the two sequences or None, additive).
# A single sequence has the first of the lengths. A length of 0 and the row of
# -inf in the additive mask give rows in which everything is masked.
MASKS = ((False, None, False), (True, None, False), (False, (3, 5), False),
         (False, None, True), (True, (3, 0), False), (True, (4, 5), True))


def normalize(kind, s, allowed):
    s, n = jnp.where(allowed, s, 0), s.shape[-1]
    if kind == "softmax":
        return softmax(s, -1, allowed)
    if kind == "sigmoid":
        return jnp.where(allowed, 1 / (1 + jnp.exp(np.log(n) - s)), 0)
    if kind == "relu":
        return jnp.where(allowed, jnp.where(s > 0, s, 0) / n, 0)
    return jnp.where(allowed, s, 0)


def allowed_scores(shape, causal, lengths, additive):
    """True where a score counts; shape [.., heads, t, t]."""
    allowed = np.ones(shape, bool)
    if causal:
        allowed &= np.tril(np.ones((T, T), bool))
    if lengths is not None:
        allowed &= (np.arange(T) < np.asarray(lengths)[..., None])[..., None, None, :]
    return allowed if additive is None else allowed & np.isfinite(additive)


def attention(p, kind, heads, scale, allowed, additive):
    """The layer of layers.h. Returns the output and the weights."""
    def project(w, b, size):
        y = p["x"] @ p[w] + p.get(b, 0)
        return jnp.swapaxes(y.reshape(y.shape[:-1] + (heads, size)), -2, -3)

    q, k, v = project("w_q", "b_q", D_K), project("w_k", "b_k", D_K), project("w_v", "b_v", D_V)
    scores = scale * (q @ jnp.swapaxes(k, -1, -2))
    if additive is not None:
        scores = scores + jnp.where(jnp.isfinite(additive), additive, 0)
    weights = normalize(kind, scores, allowed)
    mixed = jnp.swapaxes(weights @ v, -2, -3)
    out = mixed.reshape(mixed.shape[:-2] + (heads * D_V,))
    return (out @ p["w_o"] + p["b_o"] if "w_o" in p else out), weights


def attention_inputs(rng, batch, heads, full):
    shapes = {"x": batch + (T, D_IN), "w_q": (D_IN, heads * D_K), "w_k": (D_IN, heads * D_K),
              "w_v": (D_IN, heads * D_V)}
    if full:
        shapes |= {"w_o": (heads * D_V, D_OUT), "b_q": (heads * D_K,), "b_k": (heads * D_K,),
                   "b_v": (heads * D_V,), "b_o": (D_OUT,)}
    return {name: rng.normal(size=shape) * 0.8 for name, shape in shapes.items()}


def additive_mask(rng, leading):
    """Finite numbers, some -inf, and one row of nothing but -inf."""
    mask = rng.normal(size=leading + (T, T))
    mask[rng.random(mask.shape) < 0.15] = -INF
    mask[..., 2, :] = -INF
    return mask


def attention_case(p, c, kind, heads, scale, mask, additive, rng):
    """Value, weights and all gradients of one normaliser under one mask."""
    causal, lengths, with_additive = mask
    batch = p["x"].shape[:-2]
    if lengths is not None and not batch:
        lengths = lengths[0]
    extra = additive if with_additive else None
    if extra is not None and heads == 1:
        extra = extra[..., None, :, :]
    allowed = allowed_scores(batch + (heads, T, T), causal, lengths, extra)
    names = list(p)

    def f(*arrays):
        bias = arrays[-1] if extra is not None else None
        return attention(dict(zip(names, arrays)), kind, heads, scale, allowed, bias)

    args = list(p.values()) + ([extra] if extra is not None else [])
    out, gradients = differentiate(lambda *a: f(*a)[0], args, c, rng, kind != "relu")
    result = {"d" + name: g for name, g in zip(names, gradients)}
    if extra is not None:
        result["dadditive"] = gradients[-1].reshape(additive.shape)
    if heads == 1:
        result["weights"] = np.asarray(f(*args)[1])[..., 0, :, :]
    return result | {"out": out}


def write_attention(name, rng, batch, heads, full, scale, additive_leading, masks):
    """Results are stacked: axis 0 is the normaliser, axis 1 the mask; for the
    gradient of the additive mask, one of those masks that have it."""
    p = attention_inputs(rng, batch, heads, full)
    additive = additive_mask(rng, additive_leading)
    c = rng.normal(size=batch + (T, D_OUT if full else heads * D_V))
    for part, array in (p | {"additive": additive, "cotangent": c}).items():
        save(f"attention_{name}_{part}", array)
    cases = [[attention_case(p, c, kind, heads, scale, MASKS[m], additive, rng) for m in masks]
             for kind in NORMALIZERS]
    for part in cases[0][-1]:
        stacked = [[case[part] for case in row if part in case] for row in cases]
        save(f"attention_{name}_{part}", np.array(stacked))


def write_attentions(rng):
    save("attention_lengths", np.array([lengths or (T, T) for _, lengths, _ in MASKS]))
    every, few = range(len(MASKS)), (0, 5)
    default = 1 / np.sqrt(D_K)
    write_attention("one", rng, (2,), 1, False, default, (2,), every)
    write_attention("one_rank2", rng, (), 1, False, 1.0, (), few)
    write_attention("heads", rng, (2,), 3, True, default, (3,), every)
    write_attention("heads_rank2", rng, (), 3, True, 0.3, (3,), few)


# ---- Optimisers -------------------------------------------------------------

# The zero of betas, epsilon and weight decay stands for attograd's default.
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.05, momentum=0.9),
    "adam": optax.adam(0.02),
    "adam_set": optax.adam(0.1, b1=0.8, b2=0.95, eps=1e-3),
    "adamw": optax.adamw(0.02, weight_decay=0.01),
    "adamw_set": optax.adamw(0.1, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.3),
}


def write_optimizers(rng):
    """Two parameters, ten steps; the gradients of each step are given."""
    start = {"p": rng.normal(size=(3, 2)), "q": rng.normal(size=4)}
    steps = {"p": rng.normal(size=(10, 3, 2)), "q": rng.normal(size=(10, 4)) * 10}
    steps["q"][:, 1] *= 1e-7
    for k in start:
        save(f"optimizer_{k}", start[k])
        save(f"optimizer_gradients_{k}", steps[k])
    for name, optimizer in OPTIMIZERS.items():
        values = {k: jnp.asarray(v) for k, v in start.items()}
        state, path = optimizer.init(values), {k: [] for k in start}
        for t in range(10):
            gradients = {k: jnp.asarray(steps[k][t]) for k in start}
            updates, state = optimizer.update(gradients, state, values)
            values = optax.apply_updates(values, updates)
            for k in start:
                path[k].append(np.asarray(values[k]))
        for k in start:
            save(f"optimizer_{name}_{k}", np.stack(path[k]))


def write_clipping(rng):
    """Row 0: clipped to norm 1.5; row 1: a limit of 100 changes nothing."""
    gradients = {"p": jnp.asarray(rng.normal(size=(3, 2))), "q": jnp.asarray(rng.normal(size=4))}
    save("clip_norm", optax.global_norm(gradients))
    clipped = [optax.clip_by_global_norm(limit).update(gradients, optax.EmptyState())[0]
               for limit in (1.5, 100.0)]
    for k in gradients:
        save(f"clip_{k}", gradients[k])
        save(f"clip_{k}_result", np.stack([np.asarray(c[k]) for c in clipped]))


# ---- Norms -------------------------------------------------------------------


def layer_norm(x, gain=1, bias=0, epsilon=1e-5):
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + epsilon) * gain + bias


def rms_norm(x, gain=1, epsilon=1e-5):
    return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + epsilon) * gain


def write_norms(rng):
    """Some rows lie far from 0, one is almost constant."""
    x = rng.normal(size=(2, 3, 5)) * 2
    x[0, 1] += 1000
    x[1, 2] = 3 + 1e-3 * rng.normal(size=5)
    gain, bias = rng.normal(size=(2, 5))
    c = rng.normal(size=(2, 3, 5))
    for part, array in (("x", x), ("gain", gain), ("bias", bias), ("cotangent", c)):
        save(f"norm_{part}", array)
    forms = {"layer": (layer_norm, (x, gain, bias)), "layer_plain": (layer_norm, (x,)),
             "layer_epsilon": (lambda x, g, b: layer_norm(x, g, b, 0.3), (x, gain, bias)),
             "rms": (rms_norm, (x, gain)), "rms_plain": (rms_norm, (x,))}
    for name, (f, args) in forms.items():
        y, gradients = differentiate(f, args, c, rng, h=1e-5)
        for part, array in zip(("y", "dx", "dgain", "dbias"), (y, *gradients)):
            save(f"norm_{name}_{part}", array)


# ---- The transformer and its parts -------------------------------------------

ACTIVATIONS = {"gelu": UNARY["gelu"], "gelu_tanh": UNARY["gelu_tanh"],
               "relu": lambda a: jnp.where(a > 0, a, 0), "silu": UNARY["silu"]}


def feed_forward(p, x, activation):
    return ACTIVATIONS[activation](x @ p["w_1"] + p["b_1"]) @ p["w_2"] + p["b_2"]


def any_norm(p, x):
    return layer_norm(x, p["gain"], p["bias"]) if "bias" in p else rms_norm(x, p["gain"])


def self_attention(p, x, heads, allowed):
    def project(w):
        y = x @ w
        return jnp.swapaxes(y.reshape(y.shape[:-1] + (heads, -1)), -2, -3)

    q, k, v = project(p["w_q"]), project(p["w_k"]), project(p["w_v"])
    scores = q @ jnp.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    mixed = jnp.swapaxes(softmax(scores, -1, allowed) @ v, -2, -3)
    return mixed.reshape(x.shape) @ p["w_o"]


def block(p, x, heads, allowed, activation):
    h = x + self_attention(p["attn"], any_norm(p["norm_1"], x), heads, allowed)
    return h + feed_forward(p["ff"], any_norm(p["norm_2"], h), activation)


def transformer(p, tokens, heads, allowed, activation):
    x = p["tokens"][tokens] + p["positions"][: tokens.shape[-1]]
    for one in p["blocks"]:
        x = block(one, x, heads, allowed, activation)
    return any_norm(p["norm"], x) @ p["unembedding"]


def norm_parameters(rng, d, rms):
    p = {"gain": 1 + 0.3 * rng.normal(size=d)}
    return p if rms else p | {"bias": 0.3 * rng.normal(size=d)}


def feed_forward_parameters(rng, d, d_ff):
    return {"w_1": rng.normal(size=(d, d_ff)) * 0.7, "b_1": rng.normal(size=d_ff),
            "w_2": rng.normal(size=(d_ff, d)) * 0.7, "b_2": rng.normal(size=d)}


def block_parameters(rng, d, d_ff, rms):
    return {"norm_1": norm_parameters(rng, d, rms),
            "attn": {w: rng.normal(size=(d, d)) * 0.7 for w in ("w_q", "w_k", "w_v", "w_o")},
            "norm_2": norm_parameters(rng, d, rms), "ff": feed_forward_parameters(rng, d, d_ff)}


def leaves(p):
    """The arrays of nested parameters, in the order in which layers register them."""
    if isinstance(p, dict):
        p = list(p.values())
    return [leaf for part in p for leaf in leaves(part)] if isinstance(p, list) else [p]


def rebuild(p, arrays):
    """The same nest with other arrays, taken from an iterator."""
    if isinstance(p, dict):
        return {name: rebuild(part, arrays) for name, part in p.items()}
    return [rebuild(part, arrays) for part in p] if isinstance(p, list) else next(arrays)


def flat(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


def write_layer(name, rng, p, f, x=None, smooth=True):
    """All parameters in one vector, in their order, and their gradients likewise; of x too
    if there is one. f takes the parameters and x."""
    arrays = leaves(p)
    args = arrays + ([x] if x is not None else [])

    def run(*a):
        return f(rebuild(p, iter(a[: len(arrays)])), *a[len(arrays) :])

    c = rng.normal(size=np.shape(run(*[jnp.asarray(a) for a in args])))
    y, gradients = differentiate(run, args, c, rng, smooth, h=1e-4)
    parts = {"parameters": flat(arrays), "y": y, "cotangent": c,
             "gradients": flat(gradients[: len(arrays)])}
    if x is not None:
        parts |= {"x": x, "dx": gradients[-1]}
    for part, array in parts.items():
        save(f"{name}_{part}", array)


def write_transformers(rng):
    """Blocks: one head, rms and silu, lengths 4 and 2; two heads, causal. Transformers of two
    blocks: causal; bidirectional with rms."""
    b, t, d, d_ff, vocab = 2, 4, 6, 7, 5
    x = rng.normal(size=(b, t, d))
    for activation in ACTIVATIONS:
        write_layer(f"feed_forward_{activation}", rng, feed_forward_parameters(rng, d, d_ff),
                    lambda p, x: feed_forward(p, x, activation), x, activation != "relu")
    causal = np.tril(np.ones((t, t), bool))
    lengths = (np.arange(t) < np.array([[4], [2]]))[:, None, None, :]
    write_layer("block_lengths", rng, block_parameters(rng, d, d_ff, True),
                lambda p, x: block(p, x, 1, lengths, "silu"), x)
    write_layer("block_causal", rng, block_parameters(rng, d, d_ff, False),
                lambda p, x: block(p, x, 2, causal, "gelu"), x)
    tokens = rng.integers(0, vocab, size=(b, t))
    save("transformer_tokens", tokens)
    for name, rms, allowed, activation in (("causal", False, causal, "gelu_tanh"),
                                           ("bidirectional", True, True, "gelu")):
        p = {"tokens": rng.normal(size=(vocab, d)), "positions": rng.normal(size=(t + 2, d)),
             "blocks": [block_parameters(rng, d, 4 * d, rms) for _ in range(2)],
             "norm": norm_parameters(rng, d, rms), "unembedding": rng.normal(size=(d, vocab))}
        write_layer(f"transformer_{name}", rng, p,
                    lambda p: transformer(p, tokens, 3, allowed, activation))


def write_masked_decay(_rng):
    """AdamW whose weight decay is for p alone, from the numbers of write_optimizers."""
    values = {k: jnp.asarray(np.load(FOLDER / f"optimizer_{k}.npy")) for k in ("p", "q")}
    steps = {k: np.load(FOLDER / f"optimizer_gradients_{k}.npy") for k in values}
    optimizer = optax.adamw(0.1, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.3,
                            mask={"p": True, "q": False})
    state, path = optimizer.init(values), {k: [] for k in values}
    for t in range(10):
        gradients = {k: jnp.asarray(steps[k][t]) for k in values}
        updates, state = optimizer.update(gradients, state, values)
        values = optax.apply_updates(values, updates)
        for k in values:
            path[k].append(np.asarray(values[k]))
    for k in values:
        save(f"optimizer_adamw_masked_{k}", np.stack(path[k]))


# ---- Attention with a memory -------------------------------------------------


def attend(q, k, v, heads, allowed):
    """softmax(q k^T / sqrt d) v of heads that lie side by side in the last axis."""
    def split(x):
        return jnp.swapaxes(x.reshape(x.shape[:-1] + (heads, -1)), -2, -3)

    q, k, v = split(q), split(k), split(v)
    scores = q @ jnp.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    mixed = jnp.swapaxes(softmax(scores, -1, allowed) @ v, -2, -3)
    return mixed.reshape(mixed.shape[:-2] + (-1,))


def memory_masks(s, t, lengths):
    """What each query sees, [b, 1, s, t]."""
    causal = np.arange(t) <= np.arange(s)[:, None] + t - s
    short = (np.arange(t) < np.asarray(lengths)[:, None])[:, None, None, :]
    everything = np.ones((len(lengths), 1, s, t), bool)
    return {"plain": everything, "causal": causal & everything, "lengths": short & everything,
            "both": causal & short}


def write_attend(rng):
    """More queries than keys, so that the first see none under the causal mask; of the second
    sequence two keys are real. And the layer with a memory."""
    b, s, t, heads, d, d_v = 2, 5, 4, 2, 3, 2
    q, k = rng.normal(size=(b, s, heads * d)) * 2, rng.normal(size=(b, t, heads * d))
    v, c = rng.normal(size=(b, t, heads * d_v)), rng.normal(size=(b, s, heads * d_v))
    for name, array in (("q", q), ("k", k), ("v", v), ("cotangent", c)):
        save(f"attend_{name}", array)
    for name, allowed in memory_masks(s, t, [4, 2]).items():
        y, gradients = differentiate(lambda q, k, v: attend(q, k, v, heads, allowed), (q, k, v), c,
                                     rng, h=1e-4)
        for part, array in zip(("y", "dq", "dk", "dv"), (y, *gradients)):
            save(f"attend_{name}_{part}", array)
    d_in, d_memory, d_out = 6, 5, 4
    for name, heads, mask in (("one", 1, "plain"), ("heads", 2, "both")):
        widths = {"q": (d_in, heads * d), "k": (d_memory, heads * d), "v": (d_memory, heads * d_v)}
        p = {f"w_{x}": rng.normal(size=shape) for x, shape in widths.items()}
        p |= {f"b_{x}": rng.normal(size=shape[1]) for x, shape in widths.items()}
        p |= {"w_o": rng.normal(size=(heads * d_v, d_out)), "b_o": rng.normal(size=d_out),
              "memory": rng.normal(size=(b, t, d_memory))}
        allowed = memory_masks(s, t, [4, 2])[mask]
        write_layer(f"cross_{name}", rng, p, lambda p, x: attend(
            x @ p["w_q"] + p["b_q"], p["memory"] @ p["w_k"] + p["b_k"],
            p["memory"] @ p["w_v"] + p["b_v"], heads, allowed) @ p["w_o"] + p["b_o"],
            rng.normal(size=(b, s, d_in)))


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    writers = (write_softmax, write_unary, write_cross_entropy, write_binary_cross_entropy,
               write_cumsum, write_ties, write_matmul, write_attentions, write_optimizers,
               write_clipping, write_affine, write_norms, write_transformers, write_masked_decay,
               write_attend)
    for number, write in enumerate(writers):
        write(np.random.default_rng([20, number]))


if __name__ == "__main__":
    main()
